"""The web server: Streamlit's pages, health, and two things that pass through from the API without being kept.

Must never hold a list in memory: a CSV export goes through piece by piece.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from streamlit.starlette import App

from schemas.http_api.outlook import SEGMENT_NAMES
from services.dashboard.client import headers, list_parameters, timeouts, told_as_problems
from services.dashboard.problems import ApiProblem, Kind, from_answer
from services.dashboard.settings import DashboardSettings
from services.dashboard.states import tell_broken
from services.dashboard.theme import STREAMLIT_OPTIONS
from services.runtime.logs import logger

log = logger(__name__)
SCRIPT = Path(__file__).parent / "app.py"
EXPORT_PATH = "/export/customers.csv"
CARD_PATH = "/models/{version}/card"
SORTS = ("-expected_value", "expected_value", "-p_active", "p_active", "-historical_value", "customer_id")


def streamlit_options(settings: DashboardSettings) -> dict[str, Any]:
    """How Streamlit runs: nothing is watched, reported home or opened."""
    return {
        **STREAMLIT_OPTIONS,
        "server.headless": True,
        "server.address": settings.http_host,
        "server.port": settings.dashboard_http_port,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.enableStaticServing": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "runner.magicEnabled": False,
        "logger.hideWelcomeMessage": True,
        "logger.level": "warning",
    }


def build_app(settings: DashboardSettings) -> App:
    """The whole dashboard as one ASGI application."""
    passing = _Passing(settings)
    routes = [
        Route("/healthz", _alive, methods=["GET"]),
        Route("/readyz", _alive, methods=["GET"]),
        Route(EXPORT_PATH, passing.export, methods=["GET"]),
        Route(CARD_PATH, passing.card, methods=["GET"]),
    ]
    return App(SCRIPT, routes=routes, lifespan=passing.lifespan, on_script_error=_tell_broken)


def _tell_broken(error: Exception) -> bool:
    """A mistake in a page: logged for the operator, told to the reader without its text."""
    log.error("page_failed", exc_info=error)
    tell_broken()
    return True


def card_address(version: str) -> str:
    """Where this server shows a model's card."""
    return CARD_PATH.format(version=quote(version, safe=""))


async def _alive(_: Request) -> Response:
    # Ready as soon as it serves: while the API is away, the pages are there to say so.
    return PlainTextResponse("ok")


class _Passing:
    """Hands on answers of the API that are no page of Streamlit's, with the dashboard's key."""

    def __init__(self, settings: DashboardSettings) -> None:
        self._settings = settings
        self._http: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def lifespan(self, _: App) -> AsyncIterator[dict[str, Any]]:
        """Keep one connection pool while the server runs."""
        base = self._settings.dashboard_api_url.rstrip("/")
        async with httpx.AsyncClient(
            base_url=base, headers=headers(self._settings), timeout=timeouts(self._settings)
        ) as self._http:
            yield {}

    async def export(self, request: Request) -> Response:
        """All customers of a choice as CSV, while the API reads them."""
        asked = request.query_params
        segment = asked.get("segment") or None
        sort = asked.get("sort") or SORTS[0]
        try:
            min_value = float(asked.get("min_value") or 0)
        except ValueError:
            return PlainTextResponse("min_value must be a number", 422)
        if sort not in SORTS or (segment is not None and segment not in SEGMENT_NAMES):
            return PlainTextResponse("no such segment or order", 422)
        name = f"customers-{segment or 'all'}.csv"
        extra = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        parameters = list_parameters(asked.get("q", ""), segment, min_value, sort) | {"format": "csv"}
        return await self._pass("/v1/customers", parameters, "text/csv; charset=utf-8", extra)

    async def card(self, request: Request) -> Response:
        """A model's card. It is a page by itself: no script of it may run, and it may load nothing."""
        version = quote(request.path_params["version"], safe="")
        policy = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
        extra = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return await self._pass(f"/v1/models/{version}/card", {}, "text/html; charset=utf-8", extra)

    async def _pass(self, path: str, parameters: dict[str, str], kind: str, extra: dict[str, str]) -> Response:
        assert self._http is not None  # the server serves inside its lifespan
        try:
            with told_as_problems(path):
                answer = await self._http.send(self._http.build_request("GET", path, params=parameters), stream=True)
            if not answer.is_success:
                await answer.aclose()
                raise from_answer(answer.status_code, None, path)
        except ApiProblem as problem:
            status = 404 if problem.kind == Kind.NOT_FOUND else 503 if problem.heals_itself else 502
            return PlainTextResponse(f"{problem.title}. {problem.technical}", status)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_bytes():
                    yield piece
            finally:
                await answer.aclose()

        return StreamingResponse(pieces(), media_type=kind, headers=extra)
