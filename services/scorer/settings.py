"""The scorer's settings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.runtime.settings import CommonSettings


class ScorerSettings(CommonSettings):
    """Settings of `python -m services.scorer`."""

    models_dir: Annotated[Path, Field(description="Folder of the model bundles and of the pointer `current`")] = Path(
        "models"
    )
    mongo_uri: Annotated[str, Field(description="MongoDB connection string; a replica set")] = (
        "mongodb://localhost:27017/?replicaSet=clv"
    )
    mongo_database: Annotated[str, Field(description="MongoDB database", min_length=1)] = "clv"
    scorer_registry: Annotated[
        bool,
        Field(
            description="Follow the registry of models in MongoDB (`./clv models`): its champion predicts, its "
            "challenger is on trial, and CLV_MODELS_DIR, which must be writable, holds copies of both. Otherwise, and "
            "while the registry has no champion, the pointers in that folder are followed"
        ),
    ] = False
    scorer_http_port: Annotated[int, Field(description="Port of health and metrics; 0 takes a free one", ge=0)] = 8003
    scorer_threads: Annotated[int, Field(description="Threads of one call of the ONNX model", ge=1)] = 1
    scorer_batch_rows: Annotated[int, Field(description="Most customers in one call of the ONNX model", ge=1)] = 4096
    scorer_model_poll_seconds: Annotated[
        float, Field(description="How often the pointer, or the registry, is read for a new model, seconds", gt=0)
    ] = 5.0
    scorer_challenger_share: Annotated[
        float,
        Field(
            description="Share of the scorer's time that a model on trial may take; what does not fit is left out",
            gt=0,
            le=1,
        ),
    ] = 0.25
    scorer_drift_seconds: Annotated[
        float, Field(description="How often the population is compared with the model's training population", gt=0)
    ] = 60.0
    scorer_drift_window_hours: Annotated[
        float, Field(description="Customers scored within this time are compared, each once, hours", gt=0)
    ] = 24.0
    scorer_drift_min_customers: Annotated[
        int, Field(description="Customers needed within that time: of fewer, chance alone looks like a change", ge=1)
    ] = 500
    scorer_thresholds_seconds: Annotated[
        float, Field(description="How often the segment thresholds follow the population, seconds", gt=0)
    ] = 5.0
    scorer_min_population: Annotated[
        int, Field(description="Customers needed before thresholds come from the live population", ge=1)
    ] = 200
    scorer_min_population_share: Annotated[
        float,
        Field(
            description="Share of the known customers that the model in use must have scored before thresholds come "
            "from the live population: the first ones scored after a swap are the active ones",
            ge=0,
            le=1,
        ),
    ] = 0.5
