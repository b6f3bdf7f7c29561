"""The HTTP side of ingest: POST /v1/events beside health and metrics.

Must never answer 202 before Kafka has acknowledged all that the answer speaks of.
"""

import asyncio
import re
import time
import uuid
from http import HTTPStatus
from typing import Any

from aiokafka.errors import KafkaError
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from services.ingest import bodies
from services.ingest.answers import (
    PROBLEM_JSON,
    EventsAccepted,
    EventsRefused,
    Problem,
    RejectedEvent,
    event_schemas,
    request_body,
)
from services.ingest.intake import Intake, NotConnected
from services.ingest.rejection import Rejection
from services.ingest.room import REQUEST_BYTES, Room, Share
from services.ingest.settings import IngestSettings
from services.runtime import telemetry
from services.runtime.health import Health
from services.runtime.logs import logger

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z", re.ASCII)
_DISCARDED_BYTES_MAX = 64 * 1024 * 1024
"""So much of a body that is too large is read and thrown away: many clients read no answer before they have sent."""
_RETRY_AFTER_SECONDS = 2
log = logger(__name__)


class _Unusable(Exception):
    """A request that is answered with a problem, whatever its events are."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def build_app(settings: IngestSettings, intake: Intake, health: Health) -> FastAPI:
    """The application. intake: where events go; its connection may come and go."""
    app = FastAPI(
        title="CLV ingest",
        version="1",
        description="Takes customer events. The same events can be published to Kafka directly.",
        docs_url="/docs",
        redoc_url=None,
    )
    app.router.routes.extend(health.routes())
    _add_events(app, settings, intake)
    _add_problems(app)
    _add_event_schemas(app)
    return app


def _add_events(app: FastAPI, settings: IngestSettings, intake: Intake) -> None:
    room = Room(settings.ingest_max_waiting_bytes)

    @app.post(
        "/v1/events",
        status_code=202,
        summary="Take one event or several",
        description=(
            "One event, a JSON list of events, NDJSON, or CloudEvents 1.0 (structured, batched, or binary with `ce-`"
            " headers). Each event is judged for itself. The answer comes once Kafka has acknowledged everything."
            " Sending an event again is harmless."
        ),
        response_model=EventsAccepted,
        responses={
            202: {"description": "At least one event was accepted"},
            400: {"model": EventsRefused, "description": "No event was accepted"},
            413: {"model": Problem, "description": "The body is too large, or holds too many events"},
            415: {"model": Problem, "description": "The content type is none of those that are accepted"},
            503: {"model": Problem, "description": "Kafka does not answer; try again after Retry-After seconds"},
        },
        openapi_extra={"requestBody": request_body()},
    )
    async def take_events(request: Request) -> Response:
        began = time.perf_counter()
        request_id = _request_id(request)
        try:
            with room.share() as share:
                response = await _take(request, settings, intake, share, request_id)
        except _Unusable as problem:
            response = _problem(problem.status, problem.detail, request_id)
        telemetry.INGEST_HTTP_REQUESTS.inc(status=str(response.status_code))
        telemetry.INGEST_HTTP_SECONDS.observe(time.perf_counter() - began)
        response.headers["X-Request-Id"] = request_id
        return response


async def _take(request: Request, settings: IngestSettings, intake: Intake, share: Share, request_id: str) -> Response:
    media = _media_type(request)
    headers = bodies.event_headers(media, request.headers.items())
    events = bodies.split(await _body(request, settings.ingest_max_request_bytes, share), media, dict(headers))
    if not events:
        raise _Unusable(HTTPStatus.BAD_REQUEST, "the request holds no event")
    if len(events) > settings.ingest_max_request_events:
        at_most = settings.ingest_max_request_events
        raise _Unusable(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request holds {len(events)} events, at most {at_most} are accepted: send them in several requests",
        )
    timeout_seconds = settings.ingest_kafka_timeout_seconds
    try:
        async with asyncio.timeout(timeout_seconds):
            rejected = await intake.from_http(events, headers)
    except (TimeoutError, KafkaError, NotConnected) as error:
        log.warning("kafka_did_not_acknowledge", problem=repr(error), request_id=request_id)
        raise _Unusable(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"Kafka did not acknowledge within {timeout_seconds:g} s: send the same events again, their ids make that"
            " harmless",
        ) from error
    return _answer(len(events), rejected, request_id)


def _media_type(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise _Unusable(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a Content-Encoding is not supported: send the body as it is"
        )
    media = bodies.media_type(request.headers.get("content-type", ""))
    if media is None:
        accepted = ", ".join(bodies.MEDIA_TYPES)
        raise _Unusable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type must be one of {accepted}, in UTF-8")
    return media


async def _body(request: Request, bytes_max: int, share: Share) -> bytes:
    """The body, for which there must be room. One that is refused is read to its end all the same, and not kept."""
    chunks: list[bytes] = []
    read_bytes, full = 0, not share.take(REQUEST_BYTES)
    try:
        async for chunk in request.stream():
            read_bytes += len(chunk)
            if read_bytes <= bytes_max and not full:
                full = not share.take(len(chunk))
                chunks.append(chunk)
            elif read_bytes > _DISCARDED_BYTES_MAX:
                break
            if full:
                chunks.clear()
                share.give_back()
    except ClientDisconnect:
        raise _Unusable(HTTPStatus.BAD_REQUEST, "the connection ended before the body did") from None
    if read_bytes > bytes_max:
        raise _Unusable(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is larger than {bytes_max} bytes: send the events in several requests",
        )
    if full:
        raise _Unusable(
            HTTPStatus.SERVICE_UNAVAILABLE, "too many requests wait for Kafka already: send the same events again"
        )
    return b"".join(chunks)


def _answer(events: int, rejected: dict[int, Rejection], request_id: str) -> Response:
    refused = [
        RejectedEvent(index=index, event_id=each.event_id, reason=each.reason, detail=each.detail)
        for index, each in rejected.items()
    ]
    if len(refused) == events:
        status = HTTPStatus.BAD_REQUEST
        problem = EventsRefused(
            title=status.phrase,
            status=status,
            detail="none of the events was accepted: `rejected` says why",
            request_id=request_id,
            rejected=refused,
        )
        return JSONResponse(problem.model_dump(mode="json"), status, media_type=PROBLEM_JSON)
    body = EventsAccepted(accepted=events - len(refused), rejected=refused, request_id=request_id)
    return JSONResponse(body.model_dump(mode="json"), HTTPStatus.ACCEPTED)


def _problem(status: HTTPStatus, detail: str, request_id: str) -> Response:
    problem = Problem(title=status.phrase, status=status, detail=detail, request_id=request_id)
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JSONResponse(problem.model_dump(mode="json"), status, headers, media_type=PROBLEM_JSON)


def _request_id(request: Request) -> str:
    sent = request.headers.get("x-request-id", "")
    return sent if _REQUEST_ID.match(sent) else uuid.uuid4().hex


def _add_problems(app: FastAPI) -> None:
    """Errors of the framework itself (404, 405, a fault of ours) in the same form as all others."""

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = _problem(HTTPStatus(error.status_code), str(error.detail), _request_id(request))
        response.headers.update(error.headers or {})
        return response

    async def fault(request: Request, error: Exception) -> Response:
        request_id = _request_id(request)
        log.error("request_failed", problem=repr(error), request_id=request_id)
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of this service; see its log", request_id)

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, fault)


def _add_event_schemas(app: FastAPI) -> None:
    """The framework knows the answers alone: the endpoint reads its body itself, event by event."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made()["components"]["schemas"].update(event_schemas())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
