"""What the declarations in schemas/topics/ must say, and what must hold between them."""

from collections.abc import Callable

import pytest

from schemas.json_schemas import json_schemas
from schemas.topics import Topic, topics
from services.runtime.kafka import MAX_REQUEST_BYTES

HEADER_ROOM_BYTES = 64 * 1024
"""What the headers of a dead letter may add to its original."""
PARTIES = {"upstream", "downstream", "operators", "ingest", "ingest-http", "features", "scorer", "sink", "trainer"}


def whole(at_least: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and value >= at_least


# Topic settings of Kafka 4.3 that this product uses or may use, and which values Kafka takes.
BROKER_SETTINGS: dict[str, Callable[[object], bool]] = {
    "cleanup.policy": lambda value: value in ("delete", "compact", "compact,delete"),
    "compression.type": lambda value: value in ("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
    "delete.retention.ms": whole(0),
    "max.compaction.lag.ms": whole(1),
    "max.message.bytes": whole(0),
    "message.timestamp.type": lambda value: value in ("CreateTime", "LogAppendTime"),
    "min.cleanable.dirty.ratio": lambda value: isinstance(value, int | float) and 0 <= value <= 1,
    "min.compaction.lag.ms": whole(0),
    "retention.bytes": whole(-1),
    "retention.ms": whole(-1),
    "segment.bytes": whole(1024 * 1024),
    "segment.ms": whole(1),
}

every_topic = pytest.mark.parametrize("topic", topics().values(), ids=topics().keys())


@every_topic
def test_a_topic_says_whose_it_is_and_who_uses_it(topic: Topic):
    assert topic.owner
    assert topic.purpose.endswith(".")
    assert topic.key
    assert topic.producers
    assert topic.consumers
    assert set(topic.producers + topic.consumers) <= PARTIES


@every_topic
def test_a_topics_schema_exists(topic: Topic):
    assert topic.schema is None or topic.schema in json_schemas()


@every_topic
def test_broker_settings_are_ones_that_kafka_takes(topic: Topic):
    for key, value in topic.config.items():
        assert key in BROKER_SETTINGS, f"{topic.name}: is {key} a topic setting of Kafka? Then add it to this list"
        assert BROKER_SETTINGS[key](value), f"{topic.name}: {key} = {value!r}"
    assert "cleanup.policy" in topic.config, "the broker's default would decide whether data is kept"


@every_topic
def test_a_compacted_topic_is_keyed_by_what_it_keeps(topic: Topic):
    if "compact" in str(topic.config["cleanup.policy"]):
        assert topic.key.startswith(("customer_id", "partition number", "the letter"))


@every_topic
def test_what_a_tombstone_takes_back_is_gone_in_bounded_time(topic: Topic):
    if topic.is_compacted and not topic.key.startswith("partition number"):
        assert int(topic.config["max.compaction.lag.ms"]) <= 86_400_000
        assert 86_400_000 <= int(topic.config["delete.retention.ms"]) <= 604_800_000


@every_topic
def test_what_expires_does_so_little_later_than_declared(topic: Topic):
    if "delete" in str(topic.config["cleanup.policy"]):
        assert int(topic.config["segment.ms"]) <= 86_400_000


def test_names_and_files_agree():
    assert {f"clv.{short}.v1" for short in topics()} == {topic.name for topic in topics().values()}


def test_a_customer_is_in_the_same_partition_of_every_topic_that_state_passes_through():
    shared = ["orders", "customer-state-changelog", "customer-features", "predictions", "challenger-predictions"]
    counts = {name: topics()[name].partitions for name in shared}
    assert len(set(counts.values())) == 1, counts
    assert {topics()[name].key for name in shared} == {"customer_id, UTF-8"}


def test_any_message_that_came_in_fits_into_the_dead_letters():
    largest = int(topics()["customer-events"].config["max.message.bytes"])
    room = int(topics()["dead-letters"].config["max.message.bytes"])
    assert room >= largest + HEADER_ROOM_BYTES
    assert largest + HEADER_ROOM_BYTES <= MAX_REQUEST_BYTES <= room


def test_no_topic_keeps_what_cannot_be_erased_for_ever():
    for topic in topics().values():
        assert topic.is_compacted or 0 < int(topic.config["retention.ms"]) <= 30 * 86_400_000, topic.name


def test_dead_letters_outlive_the_events_they_came_from():
    assert int(topics()["dead-letters"].config["retention.ms"]) > int(
        topics()["customer-events"].config["retention.ms"]
    )
