"""The Faust application of a feature worker and its table: a factory, with every setting that matters named.

Must never declare topics (`./clv setup` does) and never let Faust commit or log for the table by itself.
"""

from typing import Any

import faust

from schemas.topics import CUSTOMER_STATE_CHANGELOG, ORDERS, topic
from services.features.chunks import ChunkTransport, PassThrough
from services.features.recovery import CustomerTables
from services.features.settings import FeaturesSettings
from services.features.table import CustomerTable

FETCH_BYTES_MAX = 8 << 20
"""Of one partition: several chunks, so that the worker does not wait for a fetch after each."""


def build_app(settings: FeaturesSettings, group: str) -> faust.App:
    """The application: membership in the group, rebalances and recovery. Not started."""
    brokers = ";".join(f"kafka://{server.strip()}" for server in settings.kafka_bootstrap_servers.split(","))
    app = faust.App(
        group,
        broker=brokers,
        store="rocksdb://",
        datadir=str(settings.features_data_dir),
        topic_partitions=topic("orders").partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_max_poll_records=settings.features_chunk_records,
        consumer_max_fetch_size=FETCH_BYTES_MAX,
        broker_commit_interval=settings.features_commit_seconds,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=8,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        table_standby_replicas=settings.features_standby_replicas,
        web_enabled=False,
        Table=CustomerTable,
        TableManager=CustomerTables,
    )
    app.transport = ChunkTransport(app.conf.broker_consumer, app, source_topic=ORDERS)
    return app


def orders_topic(app: faust.App) -> Any:
    """The source: chunks of records as they are."""
    return app.topic(ORDERS, schema=PassThrough(), partitions=topic("orders").partitions)


def build_table(app: faust.App, settings: FeaturesSettings) -> CustomerTable:
    """Customers' rows, by partition of the source, with their changelog."""
    raw = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    partitions = topic("customer-state-changelog").partitions
    table: CustomerTable = app.Table(
        "customers",
        partitions=partitions,
        schema=raw,
        key_type=bytes,
        value_type=bytes,
        changelog_topic=app.topic(CUSTOMER_STATE_CHANGELOG, schema=raw, partitions=partitions, compacting=True),
        options={
            "driver": "rocksdict",
            "block_cache_size": settings.features_block_cache_bytes,
            "block_cache_compressed_size": 1 << 20,
            "write_buffer_size": settings.features_write_buffer_bytes,
            "max_write_buffer_number": 2,
        },
    )
    return table
