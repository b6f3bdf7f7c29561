"""A small application with everything that HTTP sides share, and a client of it in the same process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException
from structlog.contextvars import get_contextvars

from schemas.http_api.problem import FieldProblem
from services.runtime.health import Health
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.app import new_app
from services.runtime.http.key_file import KeyRecord, encode_keys, new_key
from services.runtime.http.problems import Refused, responses
from services.runtime.http.settings import HttpSettings

BODY_BYTES_MAX = 2000
SECRET = "hunter2-what-nobody-may-read"
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    orders: int = Field(ge=1)
    days: float = 1.0

    @model_validator(mode="after")
    def _agree(self) -> "Form":
        if self.days == 13:
            raise ValueError("thirteen days do not fit")
        return self


def build(keys: Path | None = None, **settings: Any) -> FastAPI:
    """The application; without other settings nobody is too fast."""
    app = new_app(
        title="Test",
        description="For tests.",
        settings=HttpSettings(http_keys_file=keys, **{"http_requests_per_second": 1e6, **settings}),
        health=Health(),
        body_bytes_max=BODY_BYTES_MAX,
        body_bytes_max_by_path={"/v1/large": 10 * BODY_BYTES_MAX},
        direct={"/v1/direct": _direct},
        service="test",
    )
    app.include_router(_nested())
    _add_plain(app)
    _add_failing(app)
    return app


async def _direct(request: Request) -> Response:
    await requires(Scope.PREDICT)(request)
    body = await request.body()
    if body == b"refuse":
        raise Refused(HTTPStatus.CONFLICT, "it is there already")
    if body == b"fail":
        raise RuntimeError(SECRET)
    return Response(body)


def _nested() -> APIRouter:
    nested = APIRouter(prefix="/v1/nested")

    @nested.get("/{number}", dependencies=[Depends(requires(Scope.READ))])
    async def nested_number(number: int) -> int:
        return number

    @nested.delete("/{number}", dependencies=[Depends(requires(Scope.ERASE))])
    async def nested_erase(number: int) -> int:
        return number

    return nested


def _add_plain(app: FastAPI) -> None:
    @app.post("/v1/forms", dependencies=[Depends(requires(Scope.PREDICT))])
    async def forms(form: Form) -> Form:
        return form

    @app.post("/v1/large")
    async def large(request: Request) -> int:
        return len(await request.body())

    @app.post("/v1/unread")
    async def unread() -> str:
        return "no body was needed"

    @app.get("/v1/logged")
    async def logged() -> dict[str, Any]:
        return dict(get_contextvars())

    @app.get("/v1/cached")
    async def cached() -> StreamingResponse:
        return StreamingResponse(iter([b"x"]), headers={"Cache-Control": "max-age=60"})


def _add_failing(app: FastAPI) -> None:
    @app.get("/v1/refused", responses=responses(409))
    async def refused() -> None:
        fields = [FieldProblem(field="a.b", detail="is taken")]
        raise Refused(HTTPStatus.CONFLICT, "it is there already", errors=fields, headers={"X-Which": "1"})

    @app.get("/v1/framework")
    async def framework() -> None:
        raise HTTPException(418, "no coffee")

    @app.get("/v1/fault")
    async def fault() -> None:
        raise RuntimeError(SECRET)

    @app.get("/v1/late-fault")
    async def late_fault() -> StreamingResponse:
        async def rows() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError(SECRET)

        return StreamingResponse(rows())


@asynccontextmanager
async def client_of(app: FastAPI, address: str = "192.0.2.1", **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=(address, 1234), raise_app_exceptions=False)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=named) as client:
        yield client


def write_keys(file: Path, *keys: Mapping[str, Any]) -> list[str]:
    """Write a file of keys with these facts; gives the keys themselves."""
    made = []
    for facts in keys:
        created_at = facts.get("created_at", NOW)
        key, record = new_key(facts.get("name", "test"), facts.get("scopes", list(Scope)), created_at)
        changed = KeyRecord.model_validate(record.model_dump() | dict(facts))
        made.append((key, changed))
    file.write_text(encode_keys(record for _, record in made))
    file.chmod(0o600)
    return [key for key, _ in made]
