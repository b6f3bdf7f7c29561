"""The API as one application: routes, and what becomes of servers that do not answer.

Must never answer 500 because MongoDB or Kafka is away.
"""

from http import HTTPStatus

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from pymongo.errors import PyMongoError

from services.api.settings import ApiSettings
from services.runtime.health import Health
from services.runtime.http.app import new_app
from services.runtime.http.direct_routes import Handler
from services.runtime.http.problems import problem_response
from services.runtime.http.request_ids import request_id_of
from services.runtime.logs import logger
from services.runtime.mongo_errors import in_short

_RETRY_AFTER = {"Retry-After": "2"}
_BODY_BYTES_MAX = 64 * 1024
"""Most routes take no body at all."""
_DESCRIPTION = """\
What customers will be worth: predictions as they are now, as they were, and why; lists and segments; what is happening;
models. Money is in major units of `currency`; days are UTC dates. Errors are problem details (RFC 9457)."""
log = logger(__name__)


def build_app(
    settings: ApiSettings,
    health: Health,
    routers: list[APIRouter],
    body_bytes_max_by_path: dict[str, int],
    direct: dict[str, Handler],
) -> FastAPI:
    """The application. routers: in order: of two that match a path the first answers. direct: what answers before."""
    app = new_app(
        title="CLV: customer lifetime value",
        description=_DESCRIPTION,
        settings=settings,
        health=health,
        body_bytes_max=_BODY_BYTES_MAX,
        body_bytes_max_by_path=body_bytes_max_by_path,
        direct=direct,
    )
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(PyMongoError, _mongo_away)
    return app


async def _mongo_away(request: Request, error: Exception) -> Response:
    """MongoDB does not answer, or not in time; what else it refuses is as little the client's fault."""
    log.warning("mongo_did_not_answer", problem=f"{type(error).__name__}: {in_short(error)}")
    return problem_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "MongoDB did not answer in time: send the same request again",
        request_id_of(request),
        headers=_RETRY_AFTER,
    )
