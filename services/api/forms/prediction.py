"""The predicting part of the API put together: the model that is followed, the store of answers, and the routes.

Must never keep the rest of the API from starting: without a model its own routes answer 503.
"""

import asyncio

from fastapi import APIRouter

from services.api.forms.bundle_follower import BundleFollower
from services.api.forms.routes import (
    BATCH_PATH,
    FORM_BYTES_MAX,
    PREDICT_PATH,
    Predictor,
    direct_answer,
    predict_router,
)
from services.api.forms.settings import PredictSettings
from services.api.forms.what_if_store import WhatIfStore
from services.runtime.http.direct_routes import Handler


class Prediction:
    """One process's part. `router`, `direct` and `body_bytes_max_by_path` are for its application."""

    def __init__(self, settings: PredictSettings) -> None:
        """Connects to nothing yet. Raises KnownProblem for what somebody must mend."""
        self._follower, self._store = BundleFollower(settings), WhatIfStore(settings)
        predictor = Predictor(settings, self._follower, self._store)
        self.router: APIRouter = predict_router(predictor)
        self.direct: dict[str, Handler] = {PREDICT_PATH: direct_answer(predictor)}
        self.body_bytes_max_by_path = {PREDICT_PATH: FORM_BYTES_MAX, BATCH_PATH: settings.api_batch_bytes_max}

    def not_looked(self) -> str | None:
        """For readiness: None after the first look for a model, found or not: the rest of the API needs none."""
        return None if self._follower.looked else "looking for a model"

    async def run(self) -> None:
        """Follow model and population and write answers, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run())
            tasks.create_task(self._store.run())

    async def close(self) -> None:
        """Let go of MongoDB, after run() has ended."""
        await self._store.close()
