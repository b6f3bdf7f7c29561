"""The sink's settings."""

from typing import Annotated

from pydantic import Field

from services.runtime.settings import CommonSettings


class SinkSettings(CommonSettings):
    """Settings of `python -m services.sink`."""

    mongo_uri: Annotated[str, Field(description="MongoDB connection string; a replica set")] = (
        "mongodb://localhost:27017/?replicaSet=clv"
    )
    mongo_database: Annotated[str, Field(description="MongoDB database", min_length=1)] = "clv"
    sink_http_port: Annotated[int, Field(description="Port of health and metrics", ge=0)] = 8004
    sink_history_days: Annotated[
        int,
        Field(
            description="Days that prediction_history, matured_predictions and challenger_predictions keep a "
            "prediction; to be compared with what came, more than the model's horizon",
            ge=1,
            le=20_000,
        ),
    ] = 400
    sink_batch_records: Annotated[int, Field(description="Most predictions read from Kafka at once", ge=1)] = 5000
    sink_bulk_documents: Annotated[int, Field(description="Most documents in one write to MongoDB", ge=1)] = 1000
    sink_mongo_timeout_seconds: Annotated[
        float, Field(description="How long one write may take before it is tried again, seconds", gt=0, le=8)
    ] = 8.0
    sink_retry_seconds_max: Annotated[
        float, Field(description="Longest pause between two attempts while MongoDB is away, seconds", gt=0)
    ] = 5.0
    sink_outcomes_seconds: Annotated[
        float,
        Field(description="Pause between two rounds of comparing predictions with what came, seconds", gt=0, le=86_400),
    ] = 60.0
    sink_outcomes_grace_days: Annotated[
        int,
        Field(description="Days that a prediction waits after its window is over, for events that come late", ge=0),
    ] = 2
    sink_outcomes_window_days: Annotated[
        int, Field(description="The figures of clv_realised_… are of comparisons made within so many days", ge=1)
    ] = 28
