"""Settings of the API's predictions: which model answers forms, and what is kept of the answers.

A part of the API's settings, with the checks that belong to predictions alone.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.runtime.settings import CommonSettings


class PredictSettings(CommonSettings):
    """What can be set for POST /v1/predict and /v1/predict/batch."""

    models_dir: Annotated[Path, Field(description="Folder of the model bundles and of the pointer `current`")] = Path(
        "models"
    )
    mongo_uri: Annotated[str, Field(description="MongoDB connection string; a replica set")] = (
        "mongodb://localhost:27017/?replicaSet=clv"
    )
    mongo_database: Annotated[str, Field(description="MongoDB database", min_length=1)] = "clv"
    api_registry: Annotated[
        bool,
        Field(
            description="Predict with the champion of the registry in MongoDB (`./clv models`); CLV_MODELS_DIR, which "
            "must be writable, holds a copy. Otherwise, and while the registry has no champion, the pointer in that "
            "folder is followed"
        ),
    ] = False
    api_model_poll_seconds: Annotated[
        float, Field(description="How often the pointer, or the registry, is read for a new model, seconds", gt=0)
    ] = 5.0
    api_thresholds_seconds: Annotated[
        float, Field(description="How often percentile and segment follow the population, seconds", gt=0)
    ] = 5.0
    api_min_population: Annotated[
        int,
        Field(description="Customers needed before percentile and segment come from the live population", ge=1),
    ] = 200
    api_min_population_share: Annotated[
        float,
        Field(
            description="Share of the customers known under any model that the model in use must have scored before "
            "percentile and segment come from the live population",
            ge=0,
            le=1,
        ),
    ] = 0.5
    api_profile_dir: Annotated[
        Path | None,
        Field(description="Folder of a profile model (`./clv train-profile`), whose value is answered beside"),
    ] = None
    api_forms_at_once: Annotated[
        int,
        Field(
            description="Most single forms that are answered by one call of the model, if so many arrive together; 1 "
            "answers each by itself, at twice the cost",
            ge=1,
            le=1024,
        ),
    ] = 64
    api_gather_ms: Annotated[
        float,
        Field(
            description="How long single forms that arrive soon after a call of the model are gathered for the next, "
            "milliseconds; a form that arrives while it is quiet never waits",
            ge=0,
            le=1000,
        ),
    ] = 3.0
    api_batch_bytes_max: Annotated[
        int, Field(description="Largest body of POST /v1/predict/batch, bytes; above it the answer is 413", ge=1024)
    ] = 8 * 1024 * 1024
    api_what_if_days: Annotated[
        int, Field(description="Days that predictions of forms are kept in MongoDB", ge=1, le=3650)
    ] = 30
    api_what_if_wait_ms: Annotated[
        float,
        Field(
            description="How long an answer waits for MongoDB to acknowledge that it is stored, milliseconds; later "
            "it says `stored: false`, and the write goes on. Below 50 no answer waits while others come that often",
            ge=0,
            le=5000,
        ),
    ] = 25.0
    api_what_if_waiting_max: Annotated[
        int,
        Field(description="Most predictions of forms that wait for MongoDB; more are answered and not stored", ge=1),
    ] = 10_000
