"""GET /v1/live and GET /v1/stream: what is happening now, as figures and as server-sent events.

Must never let a slow listener hold up anybody else.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from schemas.http_api.live import LettersByReason, Live
from schemas.http_api.outlook import SegmentName
from schemas.mongo import CUSTOMERS, DEAD_LETTERS
from services.api import examples
from services.api.answers import json_answer
from services.api.customers.listing import Question
from services.api.live.fanout import Fanout
from services.api.live.figures import Arrivals
from services.api.live.pipeline import Pipeline
from services.api.short_cache import ShortCache
from services.api.store import Store
from services.api.views import rfc3339
from services.runtime import telemetry
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.problems import Refused, responses

_EVENT, _DROPPED = "prediction", "dropped"
_EXAMPLE = (
    "event: prediction\r\nid: 3-1041\r\n"
    'data: {"customer_id": "c-42", "as_of": "2026-05-04", "expected_value": 41.7, "segment": "medium_high_value"}\r\n'
    '\r\nevent: dropped\r\ndata: {"predictions": 12}\r\n\r\n: ping\r\n\r\n'
)
_SILENT_HEARTBEATS = 4
"""A client that has taken nothing for so long is let go."""


def live_router(
    store: Store,
    arrivals: Arrivals,
    pipeline: Pipeline,
    fanout: Fanout,
    *,
    summary_seconds: float,
    heartbeat_seconds: float,
) -> APIRouter:
    """The routes. summary_seconds: how long counts of MongoDB stand."""
    router = APIRouter(prefix="/v1", tags=["live"], dependencies=[Depends(requires(Scope.READ))])
    letters = ShortCache[list[LettersByReason]](summary_seconds)
    customers = ShortCache[int](summary_seconds)

    @router.get(
        "/live",
        summary="Rates, lags, freshness and dead letters now",
        response_model=Live,
        responses=examples.example(examples.LIVE) | responses(401, 403, 429, 503),
    )
    async def live() -> Response:
        now = time.time()
        found, count = await asyncio.gather(
            letters.get("", lambda: _letters(store)),
            customers.get("", lambda: store.count(CUSTOMERS, Question().wanted)),
        )
        return json_answer(
            Live(
                at=rfc3339(datetime.fromtimestamp(now, UTC)),
                lags=pipeline.lags,
                dead_letters=found,
                customers=count,
                kafka=pipeline.problem is None,
                **arrivals.figures(now)._asdict(),
            ),
            headers={"Cache-Control": "no-store"},
        )

    @router.get(
        "/stream",
        summary="Fresh predictions as server-sent events",
        response_class=EventSourceResponse,
        responses={
            200: {
                "description": "Events `prediction`, each a CustomerRow with the id partition-offset, and `dropped` "
                "with the number of predictions that a slow client did not get; comments while nothing comes. All "
                "that comes after the comment `listening`; what came before is in GET /v1/customers?sort=-updated_at",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
            },
            **responses(401, 403, 422, 429, 503),
        },
    )
    async def stream(
        segment: Annotated[SegmentName | None, Query(description="Of this segment alone")] = None,
    ) -> Response:
        if fanout.full:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too many clients listen already: try again, or raise CLV_API_STREAM_CLIENTS",
                headers={"Retry-After": "5"},
            )
        return _Stream(
            _events(fanout, segment),
            ping=heartbeat_seconds,
            ping_message_factory=lambda: ServerSentEvent(comment="ping"),
            send_timeout=_SILENT_HEARTBEATS * heartbeat_seconds,
        )

    return router


class _Stream(EventSourceResponse):
    """A stream that ends without ado when its client takes nothing any more."""

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            raise ClientDisconnect from None


async def _events(fanout: Fanout, segment: str | None) -> AsyncIterator[ServerSentEvent]:
    listener = fanout.listen(segment)
    telemetry.API_STREAM_LISTENERS.set(len(fanout))
    try:
        yield ServerSentEvent(comment="listening", retry=2000)
        while (batch := await listener.take()) is not None:
            if batch.dropped:
                telemetry.API_STREAM_DROPPED.inc(batch.dropped)
                yield ServerSentEvent(f'{{"predictions": {batch.dropped}}}', event=_DROPPED)
            for event in batch.events:
                yield ServerSentEvent(event.data, event=_EVENT, id=event.id)
    finally:
        fanout.leave(listener)
        telemetry.API_STREAM_LISTENERS.set(len(fanout))


async def _letters(store: Store) -> list[LettersByReason]:
    since = datetime.now(UTC) - timedelta(hours=1)
    lately = {"$cond": [{"$gte": ["$rejected_at", since]}, 1, 0]}
    found = await store.aggregate(
        DEAD_LETTERS,
        [
            {"$match": {"reason": {"$gt": ""}}},
            {"$group": {"_id": "$reason", "letters": {"$sum": 1}, "lately": {"$sum": lately}}},
            {"$sort": {"letters": -1, "_id": 1}},
        ],
    )
    return [
        LettersByReason(reason=each["_id"], letters=each["letters"], letters_last_hour=each["lately"]) for each in found
    ]
