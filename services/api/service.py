"""The API as a process: clients, health, tasks that run beside the requests, from start to a clean end.

Starts without Kafka and MongoDB and waits for neither: readiness says what is missing, requests that need it get 503.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from services.api.app import build_app
from services.api.bundles import Bundles
from services.api.customers import customer_router, one_customer_router
from services.api.erasure import Eraser, erasure_router
from services.api.explanations import explanation_router
from services.api.fanout import Fanout
from services.api.feed import Feed
from services.api.live import Arrivals
from services.api.live_routes import live_router
from services.api.model_routes import model_router
from services.api.pipeline import Pipeline
from services.api.prediction import Prediction
from services.api.segment_routes import segment_router
from services.api.settings import ApiSettings
from services.api.store import Store, connect
from services.runtime import telemetry
from services.runtime.health import Health, HttpServer
from services.runtime.registry import Registry
from services.runtime.shutdown import KnownProblem

SERVICE = "api"
_CLOSE_SECONDS = 2.0


async def serve(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Answer until `stop` is set. Raises KnownProblem for what somebody must mend."""
    health, fanout, arrivals = Health(), Fanout(settings.api_stream_clients, settings.api_stream_queue), Arrivals()
    servers = settings.kafka_bootstrap_servers
    pipeline, feed = Pipeline(servers), Feed(servers, arrivals, fanout)
    eraser = Eraser(servers, settings.api_kafka_timeout_seconds)
    prediction = Prediction(settings)
    telemetry.UP.set(1, service=SERVICE, version="1")
    client = connect(settings)
    store = Store(client, settings)
    registry = Registry(client, settings.mongo_database)
    bundles = Bundles(settings, registry)
    health.add("mongo", lambda: store.problem)
    health.add("model", prediction.not_looked)
    health.add("kafka", lambda: pipeline.problem or feed.problem)
    app = build_app(
        settings,
        health,
        [
            prediction.router,
            live_router(
                store,
                arrivals,
                pipeline,
                fanout,
                summary_seconds=settings.api_summary_seconds,
                heartbeat_seconds=settings.api_stream_heartbeat_seconds,
            ),
            segment_router(store, settings.currency, settings.api_summary_seconds),
            model_router(settings, store, registry, bundles),
            explanation_router(store, bundles, settings.currency),
            customer_router(store, settings.currency, settings.api_summary_seconds),
            erasure_router(eraser),
            one_customer_router(store),
        ],
        prediction.body_bytes_max_by_path,
    )
    async with AsyncExitStack() as stack:
        stack.callback(client.close)
        stack.callback(bundles.close)
        stack.push_async_callback(eraser.close)
        stack.push_async_callback(prediction.close)
        try:
            await stack.enter_async_context(HttpServer(app, settings.http_host, settings.api_http_port))
        except OSError as error:
            raise KnownProblem(str(error)) from error
        stack.callback(fanout.close)  # before the server waits for its answers to end
        await _beside(stop, [store.watch(), pipeline.watch(), feed.run(), prediction.run()])


async def _beside(stop: asyncio.Event, work: list[Coroutine[Any, Any, None]]) -> None:
    """Run the tasks until `stop`, or one of them fails, which is raised: they are meant to go on for ever."""
    tasks = [asyncio.ensure_future(each) for each in work]
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.wait({stopped, *tasks}, timeout=_CLOSE_SECONDS)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()
