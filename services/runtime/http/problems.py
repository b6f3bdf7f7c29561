"""Every error as problem details (RFC 9457): those of routes, of the framework, and faults of ours.

Must never tell a client what stands in a request's secrets or in a traceback: a fault is told by its request id alone.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from traceback import format_exception
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.http_api.problem import PROBLEM_JSON, FieldProblem, Problem
from services.runtime.http.request_ids import request_id_of
from services.runtime.logs import logger

_PLACES = ("body", "query", "path", "header", "cookie")
_ERRORS_MAX = 100
_FIELD_CHARACTERS_MAX = 200
_DETAIL_CHARACTERS_MAX = 500
_NOT_DECODED = ("model_attributes_type", "model_type", "dict_type", "list_type")
"""What pydantic says of a body that the framework left as bytes, because its Content-Type is not JSON."""
log = logger(__name__)


class Refused(HTTPException):
    """A request that is answered with a problem. Raise it anywhere in a route or dependency."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] = {},
    ) -> None:
        """detail: what went wrong and what to do. errors: each field that is wrong. headers: of the answer."""
        super().__init__(status, detail, dict(headers))
        self.status = status
        self.errors = errors


def problem_response(
    status: HTTPStatus,
    detail: str,
    request_id: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] = {},
) -> Response:
    """The answer that tells of a problem."""
    problem = Problem(
        title=status.phrase, status=status, detail=detail, request_id=request_id, errors=list(errors) or None
    )
    return Response(problem.model_dump_json(exclude_none=True), status, dict(headers), media_type=PROBLEM_JSON)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems for FastAPI's `responses=`, by status. The schema comes from services.runtime.http.app."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Answer what routes and framework raise with problems. Faults are caught by Faults, which sits further out."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer_to(request, error)


def answer_to(request: Request, error: HTTPException) -> Response:
    """What is answered where a route, or the framework, has raised this."""
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    detail = str(error.detail)
    if isinstance(error, Refused):
        return problem_response(status, detail, request_id_of(request), errors=error.errors, headers=headers)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
        detail = f"this path takes {headers['Allow']} only"
    elif status is HTTPStatus.NOT_FOUND and detail == status.phrase:
        detail = "there is nothing at this path"
    return problem_response(status, detail, request_id_of(request), headers=headers)


def _methods(request: Request) -> set[str]:
    """The methods of all routes at the request's path: the framework names those of the first alone."""
    found: set[str] = set()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            found.add(method)
    return found


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        why = found[0].get("ctx", {}).get("error", "it cannot be read")
        return problem_response(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {why}", request_id_of(request))
    if any(tuple(each["loc"]) == ("body",) and each["type"] in _NOT_DECODED for each in found) and not _says_json(
        request
    ):
        detail = "Content-Type must be application/json"
        return problem_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, request_id_of(request))
    errors = [field_problem(each) for each in found[:_ERRORS_MAX]]
    detail = f"{len(found)} of the request's fields cannot be used: `errors` says which"
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail, request_id_of(request), errors=errors)


def _says_json(request: Request) -> bool:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media.startswith("application/") and media.removeprefix("application/").split("+")[-1] == "json"


def field_problem(error: Mapping[str, Any]) -> FieldProblem:
    """One of pydantic's errors, without the input."""
    where = list(error["loc"])
    if where and where[0] in _PLACES:
        del where[0]
    return FieldProblem(
        field=".".join(map(str, where))[:_FIELD_CHARACTERS_MAX],
        detail=str(error["msg"]).removeprefix("Value error, ")[:_DETAIL_CHARACTERS_MAX],
    )


class Faults:
    """ASGI middleware: what nothing else caught is logged with its traceback and answered 500 without it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def send_seen(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, send_seen)
        except ClientDisconnect:
            return
        except Exception as error:
            text = "".join(format_exception(error))  # not exc_info: some log formats show local variables, headers too
            log.error("request_failed", problem=repr(error), path=scope["path"], traceback=text)
            if began:  # the server then closes the connection, which tells the client that the answer is not whole
                raise
            request_id = request_id_of(Request(scope))
            answer = problem_response(
                HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of this service; its log says more", request_id
            )
            await answer(scope, receive, send)
