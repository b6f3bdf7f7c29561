"""/healthz, /readyz and /metrics over HTTP, and the server that answers them. Every service has one.

/healthz: the process lives (200) or its work has ended with an error (503). /readyz: every named check passes.
"""

import asyncio
from collections.abc import Callable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

Check = Callable[[], str | None]
"""None when well, else one sentence that says what is missing."""


class Health:
    """What the endpoints report. Services add named checks, and set `failed` when their work ends."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}
        self.failed: str | None = None

    def add(self, name: str, check: Check) -> None:
        """Readiness depends on this check from now on."""
        self.checks[name] = check

    def not_ready(self) -> dict[str, str]:
        """What is missing, by check."""
        return {name: problem for name, check in self.checks.items() if (problem := check()) is not None}

    def routes(self) -> list[Route]:
        """The three endpoints, for an application of one's own."""
        return [
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]

    async def _healthz(self, _: Request) -> Response:
        if self.failed:
            return JSONResponse({"status": "failed", "problem": self.failed}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def _readyz(self, _: Request) -> Response:
        problems = self.not_ready() | ({"service": self.failed} if self.failed else {})
        return JSONResponse(
            {"status": "not ready" if problems else "ready", "problems": problems}, status_code=503 if problems else 200
        )

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def health_app(health: Health) -> Starlette:
    """An application with the three endpoints alone."""
    return Starlette(routes=health.routes())


class HttpServer:
    """Serves an ASGI application inside a running event loop, without touching the process's signal handlers."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,  # it would let every client on this host say that it is another
        )
        self._server = _Server(self._config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "HttpServer":
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise OSError(f"port {self._config.port} on {self._config.host} is in use: set another CLV_…_HTTP_PORT")
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Server(uvicorn.Server):
    async def serve(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        try:
            await self._serve(sockets)  # type: ignore[arg-type]
        except SystemExit:  # uvicorn exits the process when it cannot bind
            self.should_exit = True
