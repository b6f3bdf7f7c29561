"""The feature worker as a real process against real Kafka."""

import json
import math
import random
import signal
from datetime import date
from pathlib import Path

import pytest

from domain.customer import DAY_MS, OrderCancelled, OrderPlaced, OrderRefunded, fold
from domain.features import FEATURE_NAMES, INPUT_NAMES, day_of, features
from domain.rfm_scores import Quintiles
from schemas.orders import Cancelled, OrderRecord, Placed, Refunded, domain_event, encode_order
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG, DEAD_LETTERS, ORDERS
from services.runtime.bundle import point_to
from tests.support import http, metric, newest_by_customer, produce, read_all, wait_for

pytestmark = pytest.mark.integration

QUINTILES = Quintiles((30, 60, 120, 240), (0, 1, 2, 5), (20, 50, 100, 300))
FIRST_DAY = 10_000


@pytest.fixture
def environment(topics: str, tmp_path: Path) -> dict[str, str]:
    bundle = tmp_path / "models" / "m1"
    bundle.mkdir(parents=True)
    head = {
        "model_version": "m1",
        "horizon_days": 90,
        "currency": "USD",
        "feature_names": list(FEATURE_NAMES),
        "quintiles": {name: getattr(QUINTILES, name) for name in ("recency_days", "frequency", "monetary")},
        "segment_thresholds": [1, 2, 3],
    }
    (bundle / "metadata.json").write_text(json.dumps(head))
    point_to(tmp_path / "models", "m1")
    return {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MODELS_DIR": str(tmp_path / "models"),
        "CLV_FEATURES_DATA_DIR": str(tmp_path / "data"),
        "CLV_FEATURES_CLOCK": "event",
        "CLV_FEATURES_REFRESH_SECONDS": "0",
        "CLV_FEATURES_CHUNK_RECORDS": "200",
    }


def history(customers: int, events: int, seed: int) -> list[OrderRecord]:
    """Orders, refunds and cancellations of some customers over a year, shuffled, one in ten sent twice."""
    rng = random.Random(seed)
    records: list[OrderRecord] = []
    for n in range(events):
        customer = f"c{rng.randrange(customers)}"
        at_ms = (FIRST_DAY + rng.randrange(365)) * DAY_MS + rng.randrange(DAY_MS)
        common = {"event_id": f"e{n}", "customer_id": customer, "occurred_at_ms": at_ms}
        money = {"amount_minor": rng.randrange(1, 20_000), "original_amount": "1", "original_currency": "USD"}
        kind = rng.random()
        if kind < 0.8:
            records.append(Placed(**common, **money, order_id=f"o{n}"))
        elif kind < 0.9:
            records.append(Refunded(**common, **money, refund_id=f"r{n}", order_id=f"o{rng.randrange(events)}"))
        else:
            records.append(Cancelled(**common, order_id=f"o{rng.randrange(events)}"))
    records += rng.sample(records, events // 10)
    rng.shuffle(records)
    return records


def publish(bootstrap: str, records: list[OrderRecord]) -> None:
    produce(bootstrap, ORDERS, ((record.customer_id.encode(), encode_order(record)) for record in records))


def assert_features_equal_batch(bootstrap: str, records: list[OrderRecord]) -> None:
    """Each customer's newest message equals a batch recomputation, number by number."""
    events: dict[str, list[object]] = {}
    for record in records:
        events.setdefault(record.customer_id, []).append(domain_event(record))
    expected = {
        customer: state
        for customer, found in events.items()
        if (
            state := fold(event for event in found if isinstance(event, OrderPlaced | OrderRefunded | OrderCancelled))
        ).orders
    }
    newest = newest_by_customer(bootstrap, CUSTOMER_FEATURES)
    assert newest.keys() == expected.keys()
    for customer, message in newest.items():
        day = day_of(date.fromisoformat(message["as_of"]))
        wanted = features([expected[customer]], [day], QUINTILES, 100)
        for names, values, sent in (
            (INPUT_NAMES, wanted.inputs[0], message["inputs"]),
            (FEATURE_NAMES, wanted.features[0], message["features"]),
        ):
            for name, value in zip(names, values.tolist(), strict=True):
                assert sent[name] == (None if math.isnan(value) else value), (customer, name)


def processed(process: object, count: int) -> bool:
    return metric(process, "clv_records_processed_total") >= count


def test_features_of_all_customers_equal_a_batch_recomputation(service, environment, topics):
    records = history(customers=60, events=2000, seed=1)
    worker = service("features", environment)
    publish(topics, records)
    wait_for(lambda: processed(worker, len(records)), "all records", context=worker.log_tail)
    assert_features_equal_batch(topics, records)


def test_kill_9_in_the_middle_loses_and_doubles_nothing(service, environment, topics):
    records = history(customers=200, events=6000, seed=2)
    worker = service("features", environment)
    publish(topics, records[:3000])
    wait_for(lambda: metric(worker, "clv_records_processed_total") > 500, "some records")
    worker.kill()
    worker = service("features", environment)
    publish(topics, records[3000:])
    wait_for(lambda: processed(worker, 500), "some more", context=worker.log_tail)
    worker.kill()
    worker = service("features", environment)
    wait_for(lambda: lag(topics) == 0, "all records to be committed", context=worker.log_tail)
    assert_features_equal_batch(topics, records)


def lag(bootstrap: str) -> int:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "clv-features", "enable.auto.commit": False})
    try:
        partitions = [
            TopicPartition(ORDERS, p) for p in consumer.list_topics(ORDERS, timeout=10).topics[ORDERS].partitions
        ]
        return sum(
            consumer.get_watermark_offsets(tp, timeout=10)[1] - max(tp.offset, 0)
            for tp in consumer.committed(partitions)
        )
    finally:
        consumer.close()


def test_state_comes_back_from_the_changelog_when_the_local_folder_is_lost(service, environment, topics, tmp_path):
    records = history(customers=50, events=1500, seed=3)
    worker = service("features", environment)
    publish(topics, records[:1000])
    wait_for(lambda: lag(topics) == 0, "the first part", context=worker.log_tail)
    assert worker.stop() == 0
    worker = service("features", environment | {"CLV_FEATURES_DATA_DIR": str(tmp_path / "empty")})
    publish(topics, records[1000:])
    wait_for(lambda: lag(topics) == 0, "the second part", context=worker.log_tail)
    assert_features_equal_batch(topics, records)


def test_a_restart_with_local_state_does_not_read_the_changelog_again(service, environment, topics):
    worker = service("features", environment)
    publish(topics, history(customers=50, events=1000, seed=4))
    wait_for(lambda: lag(topics) == 0, "all records", context=worker.log_tail)
    worker.stop()
    worker = service("features", environment)
    assert metric(worker, "clv_features_recovered_rows_total") == 0


def test_sigterm_ends_the_worker_cleanly_within_ten_seconds(service, environment):
    worker = service("features", environment)
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0, worker.log_tail()


def test_records_that_are_no_orders_become_dead_letters_and_the_line_goes_on(service, environment, topics):
    good = Placed(
        event_id="e", customer_id="good", occurred_at_ms=FIRST_DAY * DAY_MS, order_id="o", amount_minor=100,
        original_amount="1.00", original_currency="USD",
    )  # fmt: skip
    worker = service("features", environment)
    produce(
        topics,
        ORDERS,
        [
            (b"bad", b"{not json"),
            (b"bad", b'{"event_type":"order.placed"}'),
            (b"", encode_order(good)),
            (b"somebody else", encode_order(good)),
            (b"good", encode_order(good)),
        ],
    )
    wait_for(lambda: processed(worker, 5), "all records", context=worker.log_tail)
    reasons = sorted(dict(letter.headers())["clv.reason"].decode() for letter in read_all(topics, DEAD_LETTERS))
    assert reasons == ["empty_key", "invalid_field", "invalid_json", "key_mismatch"]
    assert list(newest_by_customer(topics, CUSTOMER_FEATURES)) == ["good"]


def test_a_refresh_emits_every_customer_anew_as_of_the_day_asked_for(service, environment, topics):
    records = history(customers=700, events=3000, seed=5)
    worker = service("features", environment)
    publish(topics, records)
    wait_for(lambda: processed(worker, len(records)), "all records", context=worker.log_tail)
    assert http(worker, "/v1/refresh?as_of=1997-01-01", "POST")[0] == 400
    status, body = http(worker, "/v1/refresh?as_of=1998-12-31", "POST")
    assert (status, body) == (202, {"partitions": [0, 1, 2, 3]})
    wait_for(lambda: http(worker, "/v1/refresh")[1] == {"running": {}}, "the refresh", context=worker.log_tail)
    assert {message["as_of"] for message in newest_by_customer(topics, CUSTOMER_FEATURES).values()} == {"1998-12-31"}
    assert_features_equal_batch(topics, records)


def test_silence_is_a_signal_customers_come_again_without_events(service, environment, topics):
    worker = service("features", environment | {"CLV_FEATURES_CLOCK": "wall", "CLV_FEATURES_REFRESH_SECONDS": "3"})
    records = history(customers=40, events=200, seed=6)
    publish(topics, records)
    wait_for(lambda: processed(worker, len(records)), "all records", context=worker.log_tail)
    customers = len(newest_by_customer(topics, CUSTOMER_FEATURES))
    wait_for(
        lambda: metric(worker, "clv_features_emitted_total", cause="refresh") >= 2 * customers,
        "two sweeps",
        context=worker.log_tail,
    )
    assert_features_equal_batch(topics, records)


def test_rows_in_the_changelog_are_keyed_by_customer(service, environment, topics):
    worker = service("features", environment)
    records = history(customers=10, events=100, seed=7)
    publish(topics, records)
    wait_for(lambda: processed(worker, len(records)), "all records", context=worker.log_tail)
    keys = {record.key() for record in read_all(topics, CUSTOMER_STATE_CHANGELOG)}
    assert keys - {b"\x00progress"} == {record.customer_id.encode() for record in records}
