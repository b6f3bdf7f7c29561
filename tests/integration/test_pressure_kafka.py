"""Kafka dies under HTTP load: what was answered 202 is there, what could not be taken was answered 503."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
from confluent_kafka import KafkaException

from benchmarks.http_load import HttpLoad
from deploy.local.kafka import LocalKafka
from domain.customer import DAY_MS, OrderPlaced, canonical, fold
from domain.features import date_of
from schemas.orders import decode_order, domain_event
from schemas.topics import CUSTOMER_EVENTS, ORDERS
from services.ingest.service import GROUP
from tests.conftest import Service
from tests.integration.ingest_support import encoded, post, publish, start
from tests.support import committed_lag, metric, read_all, ready, wait_for

pytestmark = pytest.mark.integration

TIMEOUT_SECONDS = 2.0
MARGIN_SECONDS = 2.0
OUTAGE_SECONDS = 20.0
GROWTH_BYTES_MAX = 100 * 1024 * 1024


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[LocalKafka]:
    """A broker of the test's own, to be killed."""
    with LocalKafka() as server:
        yield server


def rss_bytes(pid: int | None) -> int:
    return psutil.Process(pid).memory_info().rss


def test_a_killed_broker_loses_no_event_that_was_answered_202(own_kafka: LocalKafka, service: Service):
    servers = own_kafka.bootstrap_servers
    process = start(service, servers, CLV_INGEST_KAFKA_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS))
    pid = process.pid
    with HttpLoad(f"http://127.0.0.1:{process.port}", retry_seconds_max=0.5) as load:
        wait_for(lambda: len(load.accepted) > 200, "requests to be accepted", context=process.log_tail)
        publish(
            servers,
            [(None, encoded(number, order_id=f"k{number}", event_id=f"k{number}"), []) for number in range(3000)],
        )
        before_bytes = rss_bytes(pid)
        own_kafka.kill()
        killed = time.monotonic()
        wait_for(lambda: load.status_count(503) > 0, "the outage to be felt")
        wait_for(lambda: not ready(process) or time.monotonic() > killed + OUTAGE_SECONDS, "time to pass", 60)
        time.sleep(max(0.0, killed + OUTAGE_SECONDS - time.monotonic()))  # an outage has no event to wait for
        during_bytes, restarted = rss_bytes(pid), time.monotonic()
        own_kafka.restart()
        known = len(load.accepted)
        wait_for(lambda: len(load.accepted) > known + 200, "requests to be accepted again", 60, process.log_tail)
    assert load.failures == []
    assert Counter(answer.status for answer in load.answers).keys() == {202, 503}
    for answer in load.answers:
        assert answer.seconds < TIMEOUT_SECONDS + MARGIN_SECONDS, answer
        assert (answer.retry_after is not None) == (answer.status == 503), answer
        assert answer.retry_after is None or int(answer.retry_after) >= 1
        in_outage = answer.began > killed and answer.began + answer.seconds < restarted
        assert not (in_outage and answer.status == 202), "nobody could have acknowledged it"
    assert during_bytes < before_bytes + GROWTH_BYTES_MAX

    wait_for(lambda: ready(process), "ingest to be ready again", 60, process.log_tail)
    assert (process.alive, process.pid) == (True, pid)
    wait_for(lambda: committed_lag(servers, GROUP, CUSTOMER_EVENTS) == 0, "its Kafka side", 60, process.log_tail)
    records = [decode_order(record.value()) for record in read_all(servers, ORDERS)]
    sent = {event["event_id"]: event for event in load.accepted}
    assert {record.event_id for record in records} == sent.keys() | {f"k{number}" for number in range(3000)}
    assert len(sent) == len(load.accepted)
    assert_in_effect_once(records, list(sent.values()))
    assert metric(process, "clv_http_requests_total", status="500") == 0


def test_what_was_answered_202_does_not_need_ingest_to_live_on(own_kafka: LocalKafka, service: Service):
    """The broker dies, and then ingest: what it only held in memory is gone, so it must not have been accepted."""
    servers = own_kafka.bootstrap_servers
    process = start(service, servers, CLV_INGEST_KAFKA_TIMEOUT_SECONDS="1")
    with HttpLoad(f"http://127.0.0.1:{process.port}", retry_seconds_max=0.1, pause_seconds=0, name="last") as load:
        wait_for(lambda: len(load.accepted) > 200, "requests to be accepted", context=process.log_tail)
        own_kafka.kill()
        wait_for(lambda: load.status_count(503) > 20, "the outage to be felt")
        process.kill()
    own_kafka.restart()
    written: set[str] = set()

    def read() -> bool:
        try:
            written.update(decode_order(record.value()).event_id for record in read_all(servers, ORDERS))
        except KafkaException:  # the restarted broker does not lead the partition yet
            return False
        return True

    wait_for(read, "the topic to be readable again")
    assert {event["event_id"] for event in load.accepted} <= written


def assert_in_effect_once(records, events):
    """However often an event is in the topic: a customer's state is what the events, each once, amount to."""
    at_ms = 19_753 * DAY_MS + DAY_MS // 2
    assert date_of(19_753).isoformat() == "2024-01-31"
    wanted: dict[str, list[OrderPlaced]] = {}
    for event in events:
        minor = int(event["amount"].replace(".", ""))
        wanted.setdefault(event["customer_id"], []).append(OrderPlaced(event["order_id"], minor, at_ms))
    found: dict[str, list[OrderPlaced]] = {}
    for record in records:
        if not record.event_id.startswith("k"):
            found.setdefault(record.customer_id, []).append(domain_event(record))
    assert found.keys() == wanted.keys()
    for customer, history in wanted.items():
        assert canonical(fold(found[customer])) == canonical(fold(history))


def test_requests_that_wait_for_kafka_are_bounded_and_the_rest_is_sent_away_at_once(
    kafka: LocalKafka, topics: str, service: Service
):
    process = start(
        service, topics, CLV_INGEST_KAFKA_TIMEOUT_SECONDS="8", CLV_INGEST_MAX_WAITING_BYTES=str(16 * 1024 * 1024)
    )
    body = b"\n".join(encoded(number, filler="x" * 1000) for number in range(6000))
    assert 7_000_000 < len(body) < 8_000_000
    assert post(process, body, "application/x-ndjson")[0] == 202
    before_bytes = rss_bytes(process.pid)
    kafka.pause()
    try:
        with BigRequests(process, body, clients=12) as waiting:
            wait_for(lambda: len(waiting.answers) >= 10, "all but two to be sent away", 7, process.log_tail)
            assert all(status == 503 and headers["retry-after"] for status, _, headers in waiting.answers)
            assert rss_bytes(process.pid) < before_bytes + GROWTH_BYTES_MAX
    finally:
        kafka.resume()
    wait_for(lambda: post(process, body, "application/x-ndjson")[0] == 202, "room to be given back", 30)


class BigRequests:
    """Many clients that post the same large body at the same time."""

    def __init__(self, process, body: bytes, clients: int) -> None:
        self.answers: list[tuple[int, dict, dict[str, str]]] = []
        self._threads = [
            threading.Thread(target=lambda: self.answers.append(post(process, body, "application/x-ndjson")))
            for _ in range(clients)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(30)
