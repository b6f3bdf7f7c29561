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
    scorer_http_port: Annotated[int, Field(description="Port of health and metrics; 0 takes a free one", ge=0)] = 8003
    scorer_threads: Annotated[int, Field(description="Threads of one call of the ONNX model", ge=1)] = 1
    scorer_batch_rows: Annotated[int, Field(description="Most customers in one call of the ONNX model", ge=1)] = 4096
    scorer_model_poll_seconds: Annotated[
        float, Field(description="How often the pointer is read for a new model, seconds", gt=0)
    ] = 5.0
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
