"""A record that cannot be used blocks no partition: on every topic, between good records, with real services."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from pymongo import MongoClient

from cli.lag import GROUPS
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from schemas.customer_features import encode_features
from schemas.dead_letters import (
    HEADER_OFFSET,
    HEADER_REASON,
    HEADER_REJECTED_AT_MS,
    HEADER_REPLAYED,
    HEADER_TOPIC,
    DeadLetter,
    Headers,
    from_record,
)
from schemas.mongo import CUSTOMERS
from schemas.orders import Placed, encode_order
from schemas.predictions import encode_prediction
from schemas.topics import CUSTOMER_FEATURES, DEAD_LETTERS, ORDERS, PREDICTIONS
from services.runtime.bundle import point_to
from services.runtime.kafka import MAX_REQUEST_BYTES
from tests.bundles import feature_messages, write_bundle
from tests.integration.ingest_support import event
from tests.integration.poison_records import Poison, changed, common, keyed, poison
from tests.support import committed_lag, read_all, wait_for
from tests.unit.sink.examples import prediction

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
Good = Callable[[str], tuple[bytes, bytes]]
SECONDS_MAX = 30.0
"""For all of it, of which most is the machine's: blocked would be for ever."""


@pytest.fixture
def environment(topics: str, tmp_path: Path) -> dict[str, str]:
    models = tmp_path / "models"
    point_to(models, write_bundle(models))
    return {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MODELS_DIR": str(models),
        "CLV_FEATURES_DATA_DIR": str(tmp_path / "data"),
        "CLV_FEATURES_REFRESH_SECONDS": "0",
    }


def publish(
    servers: str, topic: str, records: Sequence[tuple[bytes | None, bytes | None]], headers: Headers | None = None
) -> None:
    """One after the other into partition 0, so that the n-th has offset n. Compressed: that is how bombs come."""
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "message.max.bytes": 100_000_000,
            "compression.type": "gzip",
            "batch.num.messages": 5,
            "enable.idempotence": True,
        }
    )
    errors: list[Any] = []
    for key, value in records:
        producer.produce(
            topic,
            key=key,
            value=value,
            headers=headers,
            partition=0,
            on_delivery=lambda error, _: errors.append(error),
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert errors == [None] * len(records)


def mixed(poisons: Sequence[Poison], good: Good) -> tuple[list[tuple[bytes | None, bytes | None]], list[str]]:
    """Every poison between two good records, each of a customer of its own; the good customers."""
    customers = [f"good-{number}" for number in range(len(poisons) + 1)]
    records: list[tuple[bytes | None, bytes | None]] = []
    for customer, bad in zip(customers, poisons, strict=False):
        records += [good(customer), (bad.key, bad.value)]
    return [*records, good(customers[-1])], customers


def survives(
    process: ServiceProcess,
    servers: str,
    service: str,
    poisons: Sequence[Poison],
    good: Good,
    arrived: Callable[[], list[str]],
) -> None:
    """Publish; then every good record has arrived once, every poison is one dead letter, and the service lives."""
    group, topic = GROUPS[service]
    records, customers = mixed(poisons, good)
    publish(servers, topic, records)
    began = time.monotonic()
    wait_for(lambda: committed_lag(servers, group, topic) == 0, "the line to go on", SECONDS_MAX, process.log_tail)
    wait_for(lambda: set(customers) <= set(arrived()), "the good records", SECONDS_MAX, process.log_tail)
    assert time.monotonic() - began < SECONDS_MAX
    assert sorted(arrived()) == sorted(customers)
    assert_letters(servers, service, topic, poisons)
    publish(servers, topic, [good("afterwards")])
    wait_for(lambda: "afterwards" in arrived(), "a good record afterwards", SECONDS_MAX, process.log_tail)
    assert process.alive


def assert_letters(servers: str, service: str, topic: str, poisons: Sequence[Poison]) -> None:
    """Exactly one a poison: with a reason, its origin, and its bytes as far as they fit."""
    expected = {2 * at + 1: each for at, each in enumerate(poisons) if each.reasons}
    found: dict[int, list[DeadLetter]] = {}
    for record in read_all(servers, DEAD_LETTERS):
        letter = from_record(record.key(), record.value(), record.headers())
        assert (letter.origin.topic, letter.origin.partition, letter.service) == (topic, 0, service)
        assert letter.origin.offset is not None
        found.setdefault(letter.origin.offset, []).append(letter)
    assert found.keys() == expected.keys(), (
        [each.name for at, each in expected.items() if at not in found],
        [(at, letters[0].reason, letters[0].detail) for at, letters in found.items() if at not in expected],
    )
    for offset, (letter, *more) in found.items():
        bad = expected[offset]
        assert not more, bad.name
        assert letter.reason.value in bad.reasons, (bad.name, letter.reason, letter.detail)
        assert letter.detail
        assert letter.key == bad.key
        if len(bad.value or b"") < MAX_REQUEST_BYTES - 100_000:
            assert letter.value == bad.value, bad.name
        else:
            assert (bad.value or b"").startswith(letter.value or b"no value")
            assert ("truncated_from_bytes", str(len(bad.value or b"")).encode()) in letter.original_headers


def keys_in(servers: str, topic: str) -> list[str]:
    return [record.key().decode() for record in read_all(servers, topic)]


def test_no_customer_event_blocks_ingest(topics: str, environment: dict[str, str], service: Start):
    def good(customer: str) -> tuple[bytes, bytes]:
        return b"any key", json.dumps(event(1, customer_id=customer, order_id=customer, event_id=customer)).encode()

    valid = event(1, customer_id="bad")
    poisons = [
        *common(valid, "order_id", "amount"),
        poison("null value", b"bad", None, "empty_message"),
        poison("null key and value", None, None, "empty_message"),
        changed(valid, "amount_too_large", amount=str(2**63)),
        changed(valid, "invalid_amount", amount="1e9999999"),
        changed(valid, "invalid_amount", amount="Infinity"),
        changed(valid, "future_date", occurred_at="9999-12-31T23:59:59Z"),
        changed(valid, "invalid_timestamp", occurred_at="10000-01-01T00:00:00Z"),
        changed(valid, "invalid_timestamp", occurred_at="0001-01-01T00:00:00+23:59"),
        changed(valid, "future_date", "invalid_timestamp", occurred_at="9999-12-31T23:59:59-23:59"),
        changed(valid, "unknown_event_type", event_type="x" * 1_000_00),
        changed(valid, "unsupported_schema_version", schema_version=10**30),
        changed(valid, "invalid_field", customer_id="\0progress"),
        changed(valid, "invalid_field", customer_id="x" * 257),
    ]
    process = service("ingest", env=environment)
    survives(process, topics, "ingest", poisons, good, lambda: keys_in(topics, ORDERS))


def placed(customer: str, **changes: Any) -> dict[str, Any]:
    record = Placed(
        event_id=customer,
        customer_id=customer,
        occurred_at_ms=1_700_000_000_000,
        order_id=customer,
        amount_minor=1234,
        original_amount="12.34",
        original_currency="USD",
    )
    return {**json.loads(encode_order(record)), **changes}


def test_no_order_record_blocks_the_feature_worker(topics: str, environment: dict[str, str], service: Start):
    def good(customer: str) -> tuple[bytes, bytes]:
        return customer.encode(), json.dumps(placed(customer)).encode()

    valid = placed("bad")
    updated = {name: valid[name] for name in ("event_id", "customer_id", "occurred_at_ms")}
    updated["event_type"] = "customer.updated"
    poisons = [
        *common(valid, "order_id", "amount_minor"),
        *keyed(valid),
        poison("null key", None, json.dumps(valid).encode(), "empty_key"),
        poison("null value", b"bad", None, "invalid_json", "empty_message"),
        poison("null key and value", None, None, "empty_key"),
        changed(valid, "invalid_field", amount_minor=2**63 - 1),
        changed(valid, "invalid_field", amount_minor=2**62),
        changed(valid, "invalid_field", amount_minor=-1),
        changed(valid, "invalid_field", occurred_at_ms=253_402_300_800_000),
        changed(valid, "invalid_field", occurred_at_ms=2**63 - 1),
        changed(valid, "invalid_field", occurred_at_ms=-1),
        changed(valid, "invalid_field", occurred_at_ms=-(2**62)),
        changed(valid, "invalid_field", event_type="x" * 1_000_000),
        changed(valid, "invalid_field", "key_mismatch", customer_id="x" * 300),
        changed(valid, "invalid_field", "empty_key", "key_mismatch", customer_id="\0progress"),
        changed(updated, "invalid_field", birth_year=2**40),
        changed(updated, "invalid_field", birth_year=-(10**30)),
    ]
    process = service("features", env=environment)
    survives(process, topics, "features", poisons, good, lambda: keys_in(topics, CUSTOMER_FEATURES))


def test_no_features_block_the_scorer(topics: str, environment: dict[str, str], service: Start):
    template = msgspec.structs.replace(feature_messages(1)[0], customer_id="bad")

    def good(customer: str) -> tuple[bytes, bytes]:
        return customer.encode(), encode_features(msgspec.structs.replace(template, customer_id=customer))

    valid = json.loads(encode_features(template))
    finite = dict.fromkeys(valid["features"], 1e308)
    poisons = [
        *common(valid, "as_of", "feature_version"),
        *keyed(valid),
        changed(valid, "invalid_field", features=finite, customer_id="very rich"),
        changed(valid, "invalid_field", features=dict.fromkeys(finite, -1e308), customer_id="very poor"),
        changed(valid, "missing_field", features={}),
        changed(valid, "invalid_field", features=[1.0]),
        changed(valid, "invalid_field", inputs={"total_orders": "many"}),
        changed(valid, "invalid_field", as_of="10000-01-01"),
        changed(valid, "invalid_field", as_of="0000-00-00"),
        changed(valid, "invalid_field", as_of="yesterday" * 100_000),
        changed(valid, "invalid_field", feature_version=2**53),
        changed(valid, "invalid_field", feature_version=-1),
        changed(valid, "invalid_field", currency="XXX"),
        changed(valid, "message_too_large", inputs={f"input {number}": 1.0 for number in range(100_000)}),
    ]
    process = service("scorer", env=environment)
    survives(process, topics, "scorer", poisons, good, lambda: keys_in(topics, PREDICTIONS))
    # What is foreign in its own output, which it reads at the start, does not keep it from starting either.
    foreign = [
        (bad.key, bad.value) for bad in common(json.loads(encode_prediction(prediction("x"))), "as_of", "horizon_days")
    ]
    publish(topics, PREDICTIONS, foreign)
    assert process.stop() == 0
    process = service("scorer", env=environment)
    publish(topics, CUSTOMER_FEATURES, [good("another day")])
    wait_for(
        lambda: any(record.key() == b"another day" for record in read_all(topics, PREDICTIONS)),
        "a prediction after the restart",
        SECONDS_MAX,
        process.log_tail,
    )


def test_no_prediction_blocks_the_sink(
    topics: str, environment: dict[str, str], mongo: LocalMongo, mongo_database: str, service: Start
):
    def good(customer: str) -> tuple[bytes, bytes]:
        return customer.encode(), encode_prediction(prediction(customer))

    valid = json.loads(encode_prediction(prediction("bad")))
    poisons = [
        *common(valid, "segment", "horizon_days"),
        *keyed(valid),
        poison("null value: an erasure", b"nobody", None),
        changed(valid, "invalid_field", feature_version=2**53),
        changed(valid, "invalid_field", feature_version=-1),
        changed(valid, "invalid_field", feature_version=10**30),
        changed(valid, "invalid_field", horizon_days=2**63),
        changed(valid, "invalid_field", prediction_id=""),
        changed(valid, "invalid_field", segment="x" * 1_000_000),
        changed(valid, "invalid_field", expected_value="much"),
        changed(valid, "invalid_field", features={"mone\0tary": 1.0}),
        changed(valid, "message_too_large", features={f"feature {number}": 1.0 for number in range(400_000)}),
    ]
    process = service("sink", env={**environment, "CLV_MONGO_URI": mongo.uri, "CLV_MONGO_DATABASE": mongo_database})
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        customers = client[mongo_database][CUSTOMERS]
        survives(
            process, topics, "sink", poisons, good, lambda: [each["_id"] for each in customers.find({}, {"_id": 1})]
        )
        # It reads the dead letters, too, where what is foreign has no second dead-letter topic to go to.
        reason = (HEADER_REASON, b"invalid_json")
        strange: list[Headers] = [
            [],
            [reason],
            [(HEADER_REASON, b"\xff")],
            [reason, (HEADER_TOPIC, b"\xff"), (HEADER_OFFSET, b"1")],
            [reason, (HEADER_TOPIC, b"t"), (HEADER_OFFSET, b"9" * 30), (HEADER_REJECTED_AT_MS, b"9" * 30)],
            [(HEADER_REPLAYED, b"x:y")],
        ]
        small = [
            (bad.key, bad.value) for bad in common(valid, "segment", "horizon_days") if len(bad.value or b"") < 1e6
        ]
        for headers in strange:
            publish(topics, DEAD_LETTERS, [*small, (b"\xff\xfe", b"{}"), (b"gone", None)], headers)
        group, _ = GROUPS["sink"]
        wait_for(lambda: committed_lag(topics, group, DEAD_LETTERS) == 0, "the letters", SECONDS_MAX, process.log_tail)
        publish(topics, PREDICTIONS, [good("at last")])
        wait_for(lambda: customers.find_one({"_id": "at last"}) is not None, "the line", SECONDS_MAX, process.log_tail)
