"""Settings of the ingest service: CLV_INGEST_… in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.runtime.http.settings import HttpSettings


class IngestSettings(HttpSettings):
    """What can be set for ingest, beside the settings common to all services and to HTTP sides."""

    ingest_http_port: Annotated[
        int, Field(description="TCP port of POST /v1/events, health and metrics", ge=0, le=65535)
    ] = 8001
    ingest_max_event_bytes: Annotated[int, Field(description="Largest event that is accepted, bytes", ge=1024)] = (
        1_000_000
    )
    ingest_max_request_bytes: Annotated[
        int,
        Field(description="Largest HTTP request body, bytes; above it the answer is 413", ge=1024, le=8 * 1024 * 1024),
    ] = 8 * 1024 * 1024
    ingest_max_request_events: Annotated[
        int, Field(description="Most events in one HTTP request; above it the answer is 413", ge=1)
    ] = 10_000
    ingest_max_waiting_bytes: Annotated[
        int,
        Field(
            description="Most bytes of HTTP requests, 16 KiB for each and its body, that wait for Kafka at a time;"
            " above it the answer is 503",
            ge=16 * 1024 * 1024,
        ),
    ] = 64 * 1024 * 1024
    ingest_future_tolerance_seconds: Annotated[
        float, Field(description="How far ahead of this machine's clock occurred_at may be, seconds", ge=0)
    ] = 300.0
    ingest_rates_file: Annotated[
        Path | None,
        Field(
            description="CSV file with the columns date,currency,rate (units of the reporting currency for one unit),"
            " read at start; without it only events in the reporting currency are accepted"
        ),
    ] = None
    ingest_kafka_timeout_seconds: Annotated[
        float, Field(description="Longest wait for Kafka's acknowledgement of an HTTP request; then 503", gt=0, le=8)
    ] = 5.0
