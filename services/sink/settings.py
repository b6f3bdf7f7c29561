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
        int, Field(description="Days that prediction_history keeps a prediction", ge=1, le=20_000)
    ] = 400
    sink_batch_records: Annotated[int, Field(description="Most predictions read from Kafka at once", ge=1)] = 5000
    sink_bulk_documents: Annotated[int, Field(description="Most documents in one write to MongoDB", ge=1)] = 1000
    sink_mongo_timeout_seconds: Annotated[
        float, Field(description="How long one write may take before it is tried again, seconds", gt=0, le=8)
    ] = 8.0
    sink_retry_seconds_max: Annotated[
        float, Field(description="Longest pause between two attempts while MongoDB is away, seconds", gt=0)
    ] = 5.0
