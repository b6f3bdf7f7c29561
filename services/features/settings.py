"""Settings of the feature worker."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from services.runtime.settings import CommonSettings


class FeaturesSettings(CommonSettings):
    """Settings of the feature worker."""

    features_http_port: Annotated[int, Field(description="Port of health, metrics and refresh", ge=1, le=65535)] = 8002
    features_data_dir: Annotated[
        Path, Field(description="Folder of this worker's local table; one folder a worker, kept over restarts")
    ] = Path("data/features")
    features_chunk_records: Annotated[
        int, Field(description="Most records of a partition folded as one chunk", ge=1, le=100_000)
    ] = 10_000
    features_clock: Annotated[
        Literal["wall", "event"],
        Field(description="What as_of follows: the wall clock (live), or each partition's latest event (replay)"),
    ] = "wall"
    features_refresh_seconds: Annotated[
        int,
        Field(
            description="Every customer is emitted anew at least once in this many seconds of the clock; 0 is never",
            ge=0,
        ),
    ] = 86_400
    features_after_erasure: Annotated[
        Literal["refuse", "anew"],
        Field(
            description="Events of an erased customer that happened after the erasure: refused, or they begin a new"
            " customer; earlier ones are always refused"
        ),
    ] = "refuse"
    features_standby_replicas: Annotated[
        int,
        Field(
            description="Other workers that keep a copy of each partition's state and can take it over at once; as many"
            " as there are other workers, at most",
            ge=0,
            le=5,
        ),
    ] = 1
    features_commit_seconds: Annotated[
        float, Field(description="Seconds between commits of source offsets", gt=0, le=60)
    ] = 1.0
    features_block_cache_bytes: Annotated[
        int, Field(description="RocksDB block cache of one partition, bytes", ge=1 << 20)
    ] = 64 << 20
    features_write_buffer_bytes: Annotated[
        int, Field(description="RocksDB memtable of one partition, bytes", ge=1 << 20)
    ] = 16 << 20
    models_dir: Annotated[Path, Field(description="Folder of model bundles and the pointer to the one in use")] = Path(
        "models"
    )
