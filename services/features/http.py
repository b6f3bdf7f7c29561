"""The feature worker's HTTP side: health, metrics, and emitting every customer anew on request."""

from datetime import date

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain.features import day_of
from services.features.worker import FeatureWorker
from services.runtime.health import Health


def build_http(worker: FeatureWorker, health: Health) -> Starlette:
    """The application of one worker."""

    async def start_refresh(request: Request) -> Response:
        """POST /v1/refresh?as_of=YYYY-MM-DD: emit every customer of this worker anew, as after a new model."""
        text = request.query_params.get("as_of")
        try:
            day = None if text is None else day_of(date.fromisoformat(text))
            partitions = await worker.refresh_now(day)
        except ValueError as error:
            return JSONResponse({"title": "cannot refresh", "detail": str(error)}, status_code=400)
        return JSONResponse({"partitions": partitions}, status_code=202)

    async def refresh_state(_: Request) -> Response:
        """GET /v1/refresh: customers emitted so far by the refresh asked for, by partition; {} when done."""
        return JSONResponse({"running": {str(partition): done for partition, done in worker.refreshing().items()}})

    return Starlette(
        routes=[
            *health.routes(),
            Route("/v1/refresh", start_refresh, methods=["POST"]),
            Route("/v1/refresh", refresh_state, methods=["GET"]),
        ]
    )
