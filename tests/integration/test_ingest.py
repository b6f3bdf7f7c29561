"""Ingest as a real process between real Kafka and real HTTP, with librdkafka as the outside world."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from deploy.local.kafka import LocalKafka
from schemas.dead_letters import Origin, Reason
from schemas.orders import decode_order
from schemas.topics import CUSTOMER_EVENTS, ORDERS
from tests.conftest import Service
from tests.integration.ingest_support import BAD, Headers, encoded, event, lag, letters, order_ids, post, publish, start
from tests.support import metric, read_all, ready, wait_for

pytestmark = pytest.mark.integration


# ---------------------------------------------------------------- Kafka


def test_every_bad_message_is_a_dead_letter_and_the_good_ones_around_it_arrive(topics: str, service: Service):
    headers: Headers = [("traceparent", b"\x00\xff"), ("nothing", None)]
    messages: list[tuple[bytes | None, bytes | None, Headers]] = []
    expected: list[Reason | None] = []
    for number, (value, reason) in enumerate(BAD):
        messages += [(b"same", encoded(number), []), (b"same", value, headers)]
        expected += [None, reason]
    messages += [(b"same", encoded(800), []), (None, None, []), (b"\x00\xfe", encoded(801), [])]
    expected += [None, Reason.EMPTY_MESSAGE, None]
    sent = publish(topics, messages)
    process = start(service, topics)

    bad = {
        (report.partition(), report.offset()): (message, reason)
        for report, message, reason in zip(sent, messages, expected, strict=True)
        if reason
    }
    found = letters(topics, len(bad))
    assert len(found) == len(bad)
    for letter in found:
        assert letter.origin.topic == CUSTOMER_EVENTS
        (key, value, original_headers), reason = bad.pop((letter.origin.partition, letter.origin.offset))
        assert (letter.key, letter.value, letter.reason) == (key, value, reason)
        assert letter.original_headers == original_headers
        assert letter.service == "ingest"
        assert letter.detail
        assert abs(letter.rejected_at_ms / 1000 - time.time()) < 120
    assert not bad

    good = [report for report, reason in zip(sent, expected, strict=True) if reason is None]
    arrived = read_all(topics, ORDERS, len(good))
    assert len(arrived) == len(good)
    by_id = {decode_order(record.value()).event_id: record for record in arrived}
    sent_times = {
        (record.partition(), record.offset()): record.timestamp()[1] for record in read_all(topics, CUSTOMER_EVENTS)
    }
    for report in good:
        original = json.loads(report.value())
        record = by_id[original["event_id"]]
        assert record.key() == original["customer_id"].encode()
        assert record.timestamp()[1] == sent_times[report.partition(), report.offset()]
        assert decode_order(record.value()).amount_minor == 1234
    wait_for(lambda: lag(topics) == 0, "all offsets to be committed")
    for reason in {reason for _, reason in BAD}:
        assert metric(process, "clv_dead_letters_total", reason=reason.value) >= 1
    assert metric(process, "clv_ingest_events_total", via="kafka") == len(good)


def test_a_customer_is_in_the_partition_where_every_kafka_client_would_put_it(topics: str, service: Service):
    customers = [f"customer-{number}" for number in range(200)] + ["顧客", "é", "x" * 256, "🛒🛒"]
    publish(topics, [(None, encoded(n, customer_id=customer), []) for n, customer in enumerate(customers)])
    start(service, topics)
    placed = {record.key(): record.partition() for record in read_all(topics, ORDERS, len(customers))}
    elsewhere: dict[bytes, int] = {}
    oracle = Producer({"bootstrap.servers": topics, "partitioner": "murmur2"})
    for customer in customers:
        oracle.produce(
            ORDERS,
            key=customer.encode(),
            value=b"{}",
            on_delivery=lambda _, message: elsewhere.__setitem__(message.key(), message.partition()),
        )
    assert oracle.flush(30) == 0
    assert placed == elsewhere
    assert len(set(placed.values())) == 4


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_messages_may_be_compressed(topics: str, service: Service, codec: str):
    publish(topics, [(None, encoded(number), []) for number in range(100)], **{"compression.type": codec})
    start(service, topics)
    assert len(order_ids(read_all(topics, ORDERS, 100))) == 100


def test_a_message_too_large_for_any_topic_once_unpacked_is_cut_and_stops_nothing(topics: str, service: Service):
    bomb = b"[" + b" " * 20_000_000 + b"]"
    publish(topics, [(b"k", bomb, []), (b"k", encoded(1), [])], **{"compression.type": "gzip", "batch.num.messages": 1})
    start(service, topics)
    assert order_ids(read_all(topics, ORDERS, 1)) == {"o1"}
    (letter,) = letters(topics, 1)
    assert letter.reason is Reason.MESSAGE_TOO_LARGE
    assert str(len(bomb)) in letter.detail
    assert bomb.startswith(letter.value)
    assert ("truncated_from_bytes", str(len(bomb)).encode()) in letter.original_headers


def test_cloud_events_are_understood_in_both_modes(topics: str, service: Service):
    context = {"specversion": "1.0", "id": "ce1", "source": "/shop", "type": "order.placed", "subject": "c1"}
    context["time"] = "2024-01-31T12:00:00Z"
    data = {"order_id": "binary", "amount": "1.00", "currency": "USD"}
    binary: Headers = [(f"ce_{name}", value.encode()) for name, value in context.items()]
    structured = json.dumps(context | {"data": data | {"order_id": "structured"}}).encode()
    content_type: Headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    publish(topics, [(None, json.dumps(data).encode(), binary), (None, structured, content_type)])
    process = start(service, topics)
    assert order_ids(read_all(topics, ORDERS, 2)) == {"binary", "structured"}

    over_http = json.dumps(context | {"data": data | {"order_id": "http structured"}}).encode()
    assert post(process, over_http, "application/cloudevents+json")[0] == 202
    over_http = json.dumps([context | {"data": data | {"order_id": "http batch"}}]).encode()
    assert post(process, over_http, "application/cloudevents-batch+json")[0] == 202
    named = {f"ce_{name}": value for name, value in context.items()}
    assert post(process, json.dumps(data | {"order_id": "http binary"}).encode(), **named)[0] == 202
    found = read_all(topics, ORDERS, 5)
    assert order_ids(found) == {"binary", "structured", "http structured", "http batch", "http binary"}
    assert {record.key() for record in found} == {b"c1"}


# ---------------------------------------------------------------- HTTP


def test_events_over_http_are_in_kafka_when_the_answer_comes(topics: str, service: Service):
    process = start(service, topics)
    status, body, headers = post(process, encoded(1), x_request_id="request-1")
    assert (status, body) == (202, {"accepted": 1, "rejected": [], "request_id": "request-1"})
    assert headers["x-request-id"] == "request-1"
    assert order_ids(read_all(topics, ORDERS)) == {"o1"}

    status, body, _ = post(process, json.dumps([event(2), event(3, amount="0"), event(4)]).encode())
    assert (status, body["accepted"]) == (202, 2)
    (rejected,) = body["rejected"]
    assert (rejected["index"], rejected["event_id"], rejected["reason"]) == (1, "e3", "non_positive_amount")
    assert order_ids(read_all(topics, ORDERS)) == {"o1", "o2", "o4"}

    lines = b"\n".join([encoded(5), b"", b"{broken", encoded(6), b""])
    status, body, _ = post(process, lines, "application/x-ndjson")
    assert (status, body["accepted"], [each["index"] for each in body["rejected"]]) == (202, 2, [1])
    records = read_all(topics, ORDERS)
    assert order_ids(records) == {"o1", "o2", "o4", "o5", "o6"}
    assert all(abs(record.timestamp()[1] / 1000 - time.time()) < 60 for record in records)

    found = {letter.reason: letter for letter in letters(topics, 2)}
    assert found[Reason.NON_POSITIVE_AMOUNT].value == json.dumps(event(3, amount="0")).encode()
    assert found[Reason.INVALID_JSON].value == b"{broken"
    assert {letter.origin for letter in found.values()} == {Origin("http")}


def test_requests_that_cannot_be_used_are_answered_with_a_problem(topics: str, service: Service):
    process = start(service, topics, CLV_INGEST_MAX_REQUEST_BYTES="200000", CLV_INGEST_MAX_REQUEST_EVENTS="100")
    for body, content_type, expected in [
        (b"x" * 200_001, "application/json", 413),
        (b"x" * 20_000_000, "application/json", 413),
        (b"1\n" * 101, "application/x-ndjson", 413),
        (encoded(1), "text/plain", 415),
        (encoded(1), None, 415),
        (encoded(1), "application/json; charset=latin-1", 415),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
    ]:
        status, problem, headers = post(process, body, content_type)
        assert (status, problem["status"]) == (expected, expected)
        assert headers["content-type"] == "application/problem+json"
        assert problem.keys() == {"type", "title", "status", "detail", "request_id"}
        assert headers["x-request-id"] == problem["request_id"]
    assert post(process, encoded(1), content_encoding="gzip")[0] == 415

    status, problem, headers = post(process, b'{"broken')
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert [(each["index"], each["reason"]) for each in problem["rejected"]] == [(0, "invalid_json")]
    status, problem, _ = post(process, json.dumps([event(1, amount="x"), 5]).encode())
    assert (status, problem["accepted"]) == (400, 0)
    assert [each["reason"] for each in problem["rejected"]] == ["invalid_amount", "not_an_object"]
    assert len(letters(topics, 3)) == 3
    assert read_all(topics, ORDERS) == []
    assert metric(process, "clv_http_requests_total", status="415") == 4


def test_the_openapi_document_shows_the_events(topics: str, service: Service):
    process = start(service, topics)
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    connection.close()
    components = document["components"]["schemas"]
    assert {
        "CustomerEvent",
        "OrderPlacedEvent",
        "CustomerMergedEvent",
        "EventsAccepted",
        "Problem",
    } <= components.keys()
    references = {text.split('"')[0] for text in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]}
    assert references <= components.keys()
    shown = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    for content_type, content in shown.items():
        for each in content.get("examples", {}).values():
            assert post(process, json.dumps(each["value"]).encode(), content_type)[0] == 202


def test_without_kafka_http_says_503_and_later_202_again(kafka: LocalKafka, topics: str, service: Service):
    process = start(service, topics, CLV_INGEST_KAFKA_TIMEOUT_SECONDS="0.5")
    kafka.pause()
    try:
        status, problem, headers = post(process, encoded(1))
        assert (status, problem["status"], headers["content-type"]) == (503, 503, "application/problem+json")
        assert int(headers["retry-after"]) > 0
    finally:
        kafka.resume()
    wait_for(lambda: post(process, encoded(2))[0] == 202, "Kafka to acknowledge again")
    assert "o2" in order_ids(read_all(topics, ORDERS))


# ---------------------------------------------------------------- ends and accidents


def test_sigterm_ends_it_cleanly_and_at_once(topics: str, service: Service):
    publish(topics, [(None, encoded(number), []) for number in range(30_000)])
    process = start(service, topics)
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 10


def test_sigterm_ends_it_even_when_kafka_is_away(kafka: LocalKafka, topics: str, service: Service):
    process = start(service, topics)
    kafka.pause()
    try:
        waiting = threading.Thread(target=post, args=(process, encoded(1)), daemon=True)
        waiting.start()
        began = time.monotonic()
        assert process.stop() == 0, process.log_tail()
        assert time.monotonic() - began < 10
    finally:
        kafka.resume()


def test_sigterm_does_not_wait_for_a_client_that_never_ends_its_request(topics: str, service: Service):
    process = start(service, topics)
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as client:
        client.sendall(
            b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        )
        assert post(process, encoded(1))[0] == 202  # so the first request is being served, too
        began = time.monotonic()
        assert process.stop() == 0, process.log_tail()
        assert time.monotonic() - began < 10


def test_it_says_in_one_line_why_it_cannot_run(service: Service, tmp_path: Path):
    (tmp_path / "rates.csv").write_text("date,currency,rate\n2026-01-01,EUR,-1\n")
    for env, part in [
        ({"CLV_KAFKA_BOOTSTRAP_SERVERS": "localhost:1", "CLV_KAFKA_WAIT_SECONDS": "0.1"}, "no Kafka broker answers"),
        ({"CLV_INGEST_RATES_FILE": str(tmp_path / "rates.csv")}, "line 2"),
        ({"CLV_CURRENCY": "ABC"}, "ISO 4217"),
        ({"CLV_INGEST_RATE_FILE": "x"}, "did you mean CLV_INGEST_RATES_FILE"),
    ]:
        process = service("ingest", env=env, wait=False)
        assert process.wait(20) == 1
        assert part in process.log_tail()
        assert "Traceback" not in process.log_tail(200)


def test_kill_9_loses_nothing(topics: str, service: Service):
    good = {f"o{number}" for number in range(60_000)}
    sent = [(None, encoded(number), []) for number in range(60_000)]
    sent += [(None, encoded(number, amount="0"), []) for number in range(60_000, 60_300)]
    sent.sort(key=lambda message: hash(message[1]))
    publisher = threading.Thread(target=publish, args=(topics, sent))
    publisher.start()
    for pause_seconds in (0.1, 0.4, 0.8):
        process = start(service, topics)
        time.sleep(pause_seconds)  # an accident has no event to wait for
        process.kill()
    publisher.join()
    process = start(service, topics)
    wait_for(lambda: lag(topics) == 0, "everything to be read", 90)
    assert process.alive
    assert order_ids(read_all(topics, ORDERS)) == good
    refused = {json.loads(letter.value or b"")["order_id"] for letter in letters(topics, 300)}
    assert refused == {f"o{number}" for number in range(60_000, 60_300)}


def test_a_broker_restart_loses_nothing(kafka: LocalKafka, topics: str, service: Service):
    process = start(service, topics)
    accepted: list[str] = []
    over = threading.Event()

    def keep_posting() -> None:
        number = 100_000
        while not over.is_set():
            number += 1
            if post(process, encoded(number))[0] == 202:
                accepted.append(f"o{number}")

    posting = threading.Thread(target=keep_posting)
    publish(topics, [(None, encoded(number), []) for number in range(20_000)])
    posting.start()
    wait_for(lambda: len(accepted) > 20, "requests to be accepted")
    kafka.kill()
    kafka.restart()
    before = len(accepted)
    wait_for(lambda: len(accepted) > before + 20, "requests to be accepted again", 60)
    over.set()
    posting.join()
    wait_for(lambda: ready(process) and lag(topics) == 0, "everything to be read", 60, process.log_tail)
    assert order_ids(read_all(topics, ORDERS)) >= {f"o{number}" for number in range(20_000)} | set(accepted)
