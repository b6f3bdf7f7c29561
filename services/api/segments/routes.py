"""GET /v1/segments. What it answers may be as old as CLV_API_SUMMARY_SECONDS says: it is about all customers."""

import asyncio
from datetime import date
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from schemas.http_api.problem import FieldProblem
from schemas.http_api.segments import Migration, Segments
from services.api import examples
from services.api.answers import json_answer
from services.api.segments.sums import read_migration, read_segments
from services.api.short_cache import ShortCache
from services.api.store import Store
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.problems import Refused, responses


def segment_router(store: Store, currency: str, summary_seconds: float) -> APIRouter:
    """The route. currency: what is answered while there is no customer. summary_seconds: how long answers stand."""
    router = APIRouter(prefix="/v1/segments", tags=["segments"], dependencies=[Depends(requires(Scope.READ))])
    summaries = ShortCache[Segments](summary_seconds)
    migrations = ShortCache[Migration](summary_seconds)

    @router.get(
        "",
        summary="Sizes, value and distributions of the segments, and who moved between two dates",
        response_model=Segments,
        responses=examples.example(examples.SEGMENTS) | responses(401, 403, 422, 429, 503),
    )
    async def segments(
        from_date: Annotated[
            date | None, Query(alias="from", description="With `to`: where a migration begins", examples=["2026-04-01"])
        ] = None,
        to_date: Annotated[
            date | None, Query(alias="to", description="With `from`: where it ends", examples=["2026-05-01"])
        ] = None,
    ) -> Response:
        _check(from_date, to_date)
        if from_date is None or to_date is None:
            found = await summaries.get("", lambda: read_segments(store, currency))
            return json_answer(found)
        first, last = from_date.isoformat(), to_date.isoformat()
        found, migration = await asyncio.gather(
            summaries.get("", lambda: read_segments(store, currency)),
            migrations.get((first, last), lambda: read_migration(store, first, last)),
        )
        return json_answer(found.model_copy(update={"migration": migration}))

    return router


def _check(from_date: date | None, to_date: date | None) -> None:
    if (from_date is None) != (to_date is None):
        missing = "from" if from_date is None else "to"
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "a migration needs both dates",
            errors=[FieldProblem(field=missing, detail="must be given with the other date")],
        )
    if from_date is not None and to_date is not None and from_date > to_date:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "a migration goes forward in time",
            errors=[FieldProblem(field="from", detail="must not be after `to`")],
        )
