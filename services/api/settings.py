"""Settings of the HTTP API: CLV_API_… in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.api.forms.settings import PredictSettings
from services.runtime.http.settings import HttpSettings


class ApiSettings(PredictSettings, HttpSettings):
    """Settings of `python -m services.api`, beside those common to all services with an HTTP side."""

    api_http_port: Annotated[
        int, Field(description="TCP port of the API, health and metrics; 0 takes a free one", ge=0, le=65535)
    ] = 8005
    api_bundles_dir: Annotated[
        Path | None,
        Field(
            description="Folder for model bundles that the API fetches from the registry, writable; without it a "
            "folder that goes away with the process"
        ),
    ] = None
    api_mongo_timeout_seconds: Annotated[
        float, Field(description="How long MongoDB may take to answer one request; then 503, seconds", gt=0, le=60)
    ] = 5.0
    api_export_seconds: Annotated[
        float, Field(description="How long MongoDB may work for one CSV export altogether, seconds", gt=0)
    ] = 600.0
    api_kafka_timeout_seconds: Annotated[
        float, Field(description="Longest wait for Kafka's acknowledgement of an erasure; then 503", gt=0, le=8)
    ] = 5.0
    api_summary_seconds: Annotated[
        float,
        Field(description="How long a summary of all customers (segments, live) is answered anew, seconds", gt=0),
    ] = 2.0
    api_model_facts_seconds: Annotated[
        float,
        Field(description="How long drift and comparisons of a model are answered anew, seconds", gt=0),
    ] = 60.0
    api_drift_customers: Annotated[
        int, Field(description="Most customers that drift is measured on, taken at random", ge=100, le=100_000)
    ] = 20_000
    api_drift_min_customers: Annotated[
        int, Field(description="Customers needed for drift: of fewer, chance alone looks like a change", ge=1)
    ] = 500
    api_stream_clients: Annotated[
        int, Field(description="Most clients of GET /v1/stream at a time; then 503", ge=1, le=10_000)
    ] = 200
    api_stream_queue: Annotated[
        int, Field(description="Predictions that wait for a slow client of the stream before the oldest go", ge=1)
    ] = 1_000
    api_stream_heartbeat_seconds: Annotated[
        float, Field(description="Pause between two comments on a silent stream, seconds", gt=0)
    ] = 15.0
