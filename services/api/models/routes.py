"""GET /v1/models…: which models there are, and one of them in full.

Must never read all customers for one request: drift is measured on a sample, and stands for a while.
"""

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Path as InPath
from fastapi.responses import Response

from schemas.http_api.models import Comparison, FeatureDrift, ModelDetail, Models, Realised
from services.api import examples
from services.api.answers import json_answer, registry_away
from services.api.models.bundles import BundleGone, Bundles
from services.api.models.facts import (
    Known,
    comparison_of,
    deciles_in,
    drift_of,
    gains_in,
    known_models,
    realised_models,
    sampled_features,
)
from services.api.settings import ApiSettings
from services.api.short_cache import ShortCache
from services.api.store import Store
from services.inference.model_comparison import differences_on_trial
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.problems import Refused, responses
from services.runtime.registry import Registry, RegistryAway
from services.runtime.shutdown import KnownProblem

CARD_FILE = "model_card.html"
_CARD_HEADERS = {
    # The card loads nothing; were there a script in it, it would not run.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
}
_COMPARED_MAX = 20_000
_Version = Annotated[
    str, InPath(pattern="^[0-9a-f]{16}$", description="Content address of the bundle", examples=["3f6c0d2e9a41b870"])
]


class _Facts:
    """What is worked out of many customers, and stands for a while."""

    def __init__(self, settings: ApiSettings, store: Store) -> None:
        seconds = settings.api_model_facts_seconds
        self._store = store
        self._customers_max, self._customers_min = settings.api_drift_customers, settings.api_drift_min_customers
        self._features = ShortCache[list[dict[str, float | None]]](seconds)
        self._drift = ShortCache[tuple[list[FeatureDrift], int]](seconds)
        self._realised = ShortCache[list[Realised]](seconds)
        self._comparison = ShortCache[Comparison | None](seconds)

    async def drift(self, version: str, metadata: dict[str, Any]) -> tuple[list[FeatureDrift], int]:
        async def make() -> tuple[list[FeatureDrift], int]:
            rows = await self._features.get("", lambda: sampled_features(self._store, self._customers_max))
            if len(rows) < self._customers_min:
                return [], len(rows)
            return await asyncio.to_thread(drift_of, rows, metadata)

        return await self._drift.get(version, make)

    async def realised(self) -> list[Realised]:
        return await self._realised.get("", lambda: realised_models(self._store))

    async def comparison(self, known: Known, version: str) -> Comparison | None:
        champion, challenger = known.pointer.champion, known.pointer.challenger
        if champion is None or challenger is None or version not in (champion, challenger):
            return None

        async def make() -> Comparison | None:
            found = await differences_on_trial(self._store.database, champion, challenger, _COMPARED_MAX)
            return None if found is None else comparison_of(champion, challenger, found)

        return await self._comparison.get((champion, challenger), make)


def model_router(settings: ApiSettings, store: Store, registry: Registry, bundles: Bundles) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(requires(Scope.READ))])
    facts = _Facts(settings, store)
    listed = ShortCache[Known](settings.api_summary_seconds)

    async def known() -> Known:
        try:
            return await listed.get("", lambda: known_models(settings, registry))
        except RegistryAway as problem:
            raise registry_away(problem) from None
        except KnownProblem as problem:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(problem), headers={"Retry-After": "5"}) from None

    @router.get(
        "",
        summary="All models",
        response_model=Models,
        responses=examples.example(examples.MODELS) | responses(401, 403, 429, 503),
    )
    async def models() -> Response:
        return json_answer((await known()).answer())

    @router.get(
        "/{version}",
        summary="One model in full: quality, calibration, lift, drift, and how its predictions came out",
        response_model=ModelDetail,
        responses=examples.example(examples.MODEL) | responses(401, 403, 404, 422, 429, 503),
    )
    async def model(version: _Version) -> Response:
        found = await known()
        row = found.row(version)
        if row is None:
            raise _unknown(version)
        folder, metadata = await _bundle(bundles, version)
        (drift, customers), realised, comparison = await asyncio.gather(
            facts.drift(version, metadata), facts.realised(), facts.comparison(found, version)
        )
        return json_answer(
            ModelDetail(
                model=row,
                has_card=(folder / CARD_FILE).is_file(),
                deciles=deciles_in(metadata),
                gains=gains_in(metadata),
                drift=drift,
                drift_customers=customers,
                realised=realised,
                comparison=comparison,
            )
        )

    @router.get(
        "/{version}/card",
        summary="The model card, as a page",
        response_class=Response,
        responses={
            200: {
                "description": "The card",
                "content": {"text/html": {"schema": {"type": "string"}, "example": examples.CARD}},
            },
            **responses(401, 403, 404, 422, 429, 503),
        },
    )
    async def card(version: _Version) -> Response:
        folder, _ = await _bundle(bundles, version)
        try:
            page = await asyncio.to_thread((folder / CARD_FILE).read_bytes)
        except FileNotFoundError:
            raise Refused(HTTPStatus.NOT_FOUND, f"the bundle of model {version} has no card") from None
        return Response(page, media_type="text/html; charset=utf-8", headers=_CARD_HEADERS)

    return router


async def _bundle(bundles: Bundles, version: str) -> tuple[Path, dict[str, Any]]:
    try:
        return await bundles.folder(version), await bundles.metadata(version)
    except RegistryAway as problem:
        raise registry_away(problem) from None
    except BundleGone:
        raise _unknown(version) from None


def _unknown(version: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, f"no model {version} is known: GET /v1/models lists them")
