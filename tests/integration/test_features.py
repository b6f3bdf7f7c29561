"""The feature worker as a real process against real Kafka."""

import signal

import pytest

from domain.customer import DAY_MS
from schemas.orders import Placed, encode_order
from schemas.topics import CUSTOMER_FEATURES, CUSTOMER_STATE_CHANGELOG, DEAD_LETTERS, ORDERS
from tests.integration.features_support import (
    FIRST_DAY,
    assert_features_equal_batch,
    history,
    lag,
    processed,
    publish,
)
from tests.support import http, metric, newest_by_customer, produce, read_all, wait_for

pytestmark = pytest.mark.integration


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


def test_a_refresh_that_was_asked_for_goes_on_to_its_end_after_kill_9(service, environment, topics):
    records = history(customers=4000, events=6000, seed=8)
    worker = service("features", environment)
    publish(topics, records)
    wait_for(lambda: lag(topics) == 0, "all records", context=worker.log_tail)
    assert http(worker, "/v1/refresh?as_of=1998-12-31", "POST")[0] == 202
    worker.kill()
    worker = service("features", environment)
    wait_for(lambda: http(worker, "/v1/refresh")[1] == {"running": {}}, "the refresh", context=worker.log_tail)
    assert {message["as_of"] for message in newest_by_customer(topics, CUSTOMER_FEATURES).values()} == {"1998-12-31"}
