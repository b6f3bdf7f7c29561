"""The API as a process: clients, health, tasks that run beside the requests, from start to a clean end.

Starts without Kafka and MongoDB and waits for neither: readiness says what is missing, requests that need it get 503.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from services.api.app import build_app
from services.api.customers.erasure import Eraser, erasure_router
from services.api.customers.explanations import explanation_router
from services.api.customers.routes import customer_router, one_customer_router
from services.api.forms.prediction import Prediction
from services.api.live.fanout import Fanout
from services.api.live.feed import Feed
from services.api.live.figures import Arrivals
from services.api.live.pipeline import Pipeline
from services.api.live.routes import live_router
from services.api.models.bundles import Bundles
from services.api.models.routes import model_router
from services.api.segments.routes import segment_router
from services.api.settings import ApiSettings
from services.api.store import Store, connect
from services.runtime import telemetry
from services.runtime.health import Health, HttpServer
from services.runtime.registry import Registry
from services.runtime.shutdown import KnownProblem

SERVICE = "api"
_CLOSE_SECONDS = 2.0


class Api:
    """All parts of one process, put together. Connects to nothing before `serve` runs them."""

    def __init__(self, settings: ApiSettings) -> None:
        """Raises KnownProblem for what somebody must mend."""
        servers = settings.kafka_bootstrap_servers
        arrivals = Arrivals()
        self.fanout = Fanout(settings.api_stream_clients, settings.api_stream_queue)
        self.pipeline, self.feed = Pipeline(servers), Feed(servers, arrivals, self.fanout)
        self.eraser = Eraser(servers, settings.api_kafka_timeout_seconds)
        self.prediction = Prediction(settings)
        self.client = connect(settings)
        self.store = Store(self.client, settings)
        registry = Registry(self.client, settings.mongo_database)
        self.bundles = Bundles(settings, registry)
        health = Health()
        health.add("mongo", lambda: self.store.problem)
        health.add("model", self.prediction.not_looked)
        health.add("kafka", lambda: self.pipeline.problem or self.feed.problem)
        routers = [
            self.prediction.router,
            live_router(
                self.store,
                arrivals,
                self.pipeline,
                self.fanout,
                summary_seconds=settings.api_summary_seconds,
                heartbeat_seconds=settings.api_stream_heartbeat_seconds,
            ),
            segment_router(self.store, settings.currency, settings.api_summary_seconds),
            model_router(settings, self.store, registry, self.bundles),
            explanation_router(self.store, self.bundles, settings.currency),
            customer_router(self.store, settings.currency, settings.api_summary_seconds),
            erasure_router(self.eraser),
            one_customer_router(self.store),
        ]
        prediction = self.prediction
        self.app = build_app(settings, health, routers, prediction.body_bytes_max_by_path, prediction.direct)


async def serve(settings: ApiSettings, stop: asyncio.Event) -> None:
    """Answer until `stop` is set. Raises KnownProblem for what somebody must mend."""
    api = Api(settings)
    telemetry.UP.set(1, service=SERVICE, version="1")
    async with AsyncExitStack() as stack:
        stack.callback(api.client.close)
        stack.callback(api.bundles.close)
        stack.push_async_callback(api.eraser.close)
        stack.push_async_callback(api.prediction.close)
        try:
            await stack.enter_async_context(HttpServer(api.app, settings.http_host, settings.api_http_port))
        except OSError as error:
            raise KnownProblem(str(error)) from error
        stack.callback(api.fanout.close)  # before the server waits for its answers to end
        await _beside(stop, [api.store.watch(), api.pipeline.watch(), api.feed.run(), api.prediction.run()])


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
