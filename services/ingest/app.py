"""The HTTP side of ingest: POST /v1/events beside health and metrics.

Must never answer 202 before Kafka has acknowledged all that the answer speaks of.
"""

import asyncio
from http import HTTPStatus

from aiokafka.errors import KafkaError
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from schemas.http_api.problem import PROBLEM_JSON
from services.ingest import bodies
from services.ingest.answers import (
    EventsAccepted,
    EventsRefused,
    RejectedEvent,
    added_schemas,
    refused_response,
    request_body,
)
from services.ingest.intake import Intake, NotConnected
from services.ingest.rejection import Rejection
from services.ingest.room import REQUEST_BYTES, Room, Share
from services.ingest.settings import IngestSettings
from services.runtime.health import Health
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.app import add_schemas, new_app
from services.runtime.http.problems import Refused, responses
from services.runtime.http.request_ids import request_id_of
from services.runtime.logs import logger

_RETRY_AFTER = {"Retry-After": "2"}
log = logger(__name__)


def build_app(settings: IngestSettings, intake: Intake, health: Health) -> FastAPI:
    """The application. intake: where events go; its connection may come and go.

    Raises KnownProblem if the file of API keys cannot be used.
    """
    app = new_app(
        title="CLV ingest",
        description="Takes customer events. The same events can be published to Kafka directly.",
        settings=settings,
        health=health,
        body_bytes_max=settings.ingest_max_request_bytes,
    )
    _add_events(app, settings, intake)
    add_schemas(app, added_schemas())
    return app


def _add_events(app: FastAPI, settings: IngestSettings, intake: Intake) -> None:
    room = Room(settings.ingest_max_waiting_bytes)
    described = {
        413: "The body is too large, or holds too many events",
        415: "The content type is none of those that are accepted",
        503: "Kafka does not answer; try again after Retry-After seconds",
    }

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
            400: refused_response(),
            **{
                status: response | {"description": described[int(status)]}
                for status, response in responses(*described).items()
            },
        },
        openapi_extra={"requestBody": request_body()},
        dependencies=[Depends(requires(Scope.INGEST))],
    )
    async def take_events(request: Request) -> Response:
        with room.share() as share:
            return await _take(request, settings, intake, share)


async def _take(request: Request, settings: IngestSettings, intake: Intake, share: Share) -> Response:
    media = _media_type(request)
    headers = bodies.event_headers(media, request.headers.items())
    events = bodies.split(await _body(request, share), media, dict(headers))
    if not events:
        raise Refused(HTTPStatus.BAD_REQUEST, "the request holds no event")
    if len(events) > settings.ingest_max_request_events:
        at_most = settings.ingest_max_request_events
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request holds {len(events)} events, at most {at_most} are accepted: send them in several requests",
        )
    timeout_seconds = settings.ingest_kafka_timeout_seconds
    try:
        async with asyncio.timeout(timeout_seconds):
            rejected = await intake.from_http(events, headers)
    except (TimeoutError, KafkaError, NotConnected) as error:
        log.warning("kafka_did_not_acknowledge", problem=repr(error))
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"Kafka did not acknowledge within {timeout_seconds:g} s: send the same events again, their ids make that"
            " harmless",
            headers=_RETRY_AFTER,
        ) from error
    return _answer(len(events), rejected, request_id_of(request))


def _media_type(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a Content-Encoding is not supported: send the body as it is")
    media = bodies.media_type(request.headers.get("content-type", ""))
    if media is None:
        accepted = ", ".join(bodies.MEDIA_TYPES)
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type must be one of {accepted}, in UTF-8")
    return media


async def _body(request: Request, share: Share) -> bytes:
    """The body, for which there must be room. Its length is bounded by the application's limit."""
    chunks: list[bytes] = []
    full = not share.take(REQUEST_BYTES)
    try:
        async for chunk in request.stream():
            full = full or not share.take(len(chunk))
            if full:
                break
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refused(HTTPStatus.BAD_REQUEST, "the connection ended before the body did") from None
    if full:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too many requests wait for Kafka already: send the same events again",
            headers=_RETRY_AFTER,
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
        return JSONResponse(problem.model_dump(mode="json", exclude={"errors"}), status, media_type=PROBLEM_JSON)
    body = EventsAccepted(accepted=events - len(refused), rejected=refused, request_id=request_id)
    return JSONResponse(body.model_dump(mode="json"), HTTPStatus.ACCEPTED)
