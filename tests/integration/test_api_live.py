"""The stream, live figures and erasure over HTTP: a real API process, real Kafka and MongoDB."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from schemas.http_api.customers import CustomerRow
from schemas.predictions import encode_prediction
from schemas.topics import CUSTOMER_EVENTS, PREDICTIONS
from tests.integration.api_support import Seeder, ask, customer_path, ok, predicted, running_api
from tests.support import produce, read_all, wait_for

pytestmark = pytest.mark.integration
DATABASE = "clv_api_live"


@pytest.fixture(scope="module")
def api(kafka: LocalKafka, mongo: LocalMongo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("api")
    seeder = Seeder(mongo.uri, DATABASE)
    seeder.collections()
    with running_api(
        kafka.bootstrap_servers,
        mongo.uri,
        DATABASE,
        folder,
        CLV_API_STREAM_QUEUE="50",
        CLV_API_STREAM_CLIENTS="4",
        CLV_API_STREAM_HEARTBEAT_SECONDS="0.5",
        CLV_API_SUMMARY_SECONDS="0.1",
    ) as process:
        yield process


class Listener:
    """One client of the stream, reading in a thread."""

    def __init__(self, process: ServiceProcess, query: str = "") -> None:
        self.events: list[dict[str, str]] = []
        self.comments: list[str] = []
        self.ended = threading.Event()
        self._connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)  # type: ignore[attr-defined]
        self._connection.request("GET", f"/v1/stream{query}")
        self.answer = self._connection.getresponse()
        self.socket = self.answer.fp.raw._sock  # type: ignore[attr-defined]
        if self.answer.status == 200:
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()

    def _read(self) -> None:
        event: dict[str, str] = {}
        try:
            for raw in self.answer:
                line = raw.decode().rstrip("\r\n")
                if not line and event:
                    if event.keys() - {"retry"}:
                        self.events.append(event)
                    event = {}
                elif line.startswith(":"):
                    self.comments.append(line[1:].strip())
                elif line:
                    name, _, value = line.partition(":")
                    event[name] = value.strip()
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass
        self.ended.set()

    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(event["data"]) for event in self.events if event.get("event") == "prediction"]

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()


@contextmanager
def listening(process: ServiceProcess, query: str = "") -> Iterator[Listener]:
    listener = Listener(process, query)
    try:
        wait_for(lambda: "listening" in listener.comments, "the stream to begin")
        yield listener
    finally:
        listener.close()


def publish(kafka: LocalKafka, values: list[float], name: str = "c") -> None:
    messages = [predicted(f"{name}{at}", value, events=at + 1) for at, value in enumerate(values)]
    produce(
        kafka.bootstrap_servers,
        PREDICTIONS,
        [(each.customer_id.encode(), encode_prediction(each)) for each in messages],
    )


def test_a_prediction_comes_to_those_who_listen_to_its_segment(api: ServiceProcess, kafka: LocalKafka) -> None:
    with listening(api) as everything, listening(api, "?segment=high_value") as best:
        publish(kafka, [10.0, 500.0, 50.0, 700.0], "segment")
        wait_for(lambda: len(everything.predictions()) >= 4, "four predictions")
        wait_for(lambda: len(best.predictions()) >= 2, "two of the best")
        assert sorted(row["expected_value"] for row in everything.predictions()) == [10.0, 50.0, 500.0, 700.0]
        assert sorted(row["expected_value"] for row in best.predictions()) == [500.0, 700.0]
        for row in everything.predictions():
            CustomerRow.model_validate(row)
        places = {tuple(map(int, event["id"].split("-"))) for event in everything.events}
        assert len(places) == 4
        there = {
            (record.partition(), record.offset())
            for record in read_all(kafka.bootstrap_servers, PREDICTIONS)
            if record.key().startswith(b"segment")
        }
        assert places == there


def test_a_silent_stream_says_that_it_lives(api: ServiceProcess) -> None:
    with listening(api) as listener:
        wait_for(lambda: listener.comments.count("ping") >= 2, "two heartbeats", 10)


def test_what_is_no_prediction_does_not_end_the_stream(api: ServiceProcess, kafka: LocalKafka) -> None:
    with listening(api) as listener:
        produce(kafka.bootstrap_servers, PREDICTIONS, [(b"x", b"{"), (b"x", None), (b"x", b"[" * 9000)])
        publish(kafka, [12.0], "after")
        wait_for(lambda: any(row["customer_id"] == "after0" for row in listener.predictions()), "the one after")


@pytest.mark.long
def test_a_slow_client_loses_the_oldest_and_is_told_how_many(api: ServiceProcess, kafka: LocalKafka) -> None:
    """A client that does not read at all, with a small buffer, beside one that reads everything."""
    with socket.create_connection(("127.0.0.1", api.port)) as slow, listening(api) as fast:  # type: ignore[attr-defined]
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in slow.recv(200)
        for at in range(40):
            publish(kafka, [float(number) for number in range(250)], f"many{at}-")
        wait_for(lambda: any('"many39-' in event["data"] for event in fast.events[-50:]), "the last ones", 60)
        slow.settimeout(10)
        text, deadline = b"", time.monotonic() + 20
        while b"event: dropped" not in text and time.monotonic() < deadline:
            text += slow.recv(1 << 16)
        assert b"event: dropped" in text
        assert json.loads(text.partition(b"event: dropped\r\ndata: ")[2].partition(b"\r\n")[0])["predictions"] > 0


def test_only_so_many_may_listen_and_who_leaves_makes_room(api: ServiceProcess) -> None:
    listeners = [Listener(api) for _ in range(4)]
    try:
        for listener in listeners:
            wait_for(lambda listener=listener: "listening" in listener.comments, "the stream to begin")
        refused = ask(api, "/v1/stream")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        listeners.pop().close()

        def again() -> bool:
            one = Listener(api)
            if one.answer.status == 200:
                listeners.append(one)
            return one.answer.status == 200

        wait_for(again, "room", 10)
    finally:
        for listener in listeners:
            listener.close()


def test_live_figures_tell_of_what_came(api: ServiceProcess, kafka: LocalKafka) -> None:
    before = ok(api, "/v1/live")
    publish(kafka, [10.0, 500.0, 60.0], "live")
    wait_for(lambda: ok(api, "/v1/live")["predictions_total"] >= before["predictions_total"] + 3, "three more")
    found = ok(api, "/v1/live")
    assert found["kafka"] is True
    assert found["by_segment"]["high_value"] >= 1
    assert found["predictions_per_second"] > 0
    assert sum(point["predictions"] for point in found["rates"]) >= 3
    assert 0 <= found["newest_prediction_seconds"] < 30
    assert 0 <= found["freshness_seconds_p50"] <= found["freshness_seconds_p99"]
    assert {(lag["service"], lag["topic"]) for lag in found["lags"]} >= {("sink", PREDICTIONS)}
    assert next(lag["records"] for lag in found["lags"] if lag["service"] == "sink") >= 3  # no sink runs here


def test_dead_letters_are_counted_by_reason(api: ServiceProcess, mongo: LocalMongo) -> None:
    now = datetime.now(UTC)
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        client[DATABASE]["dead_letters"].insert_many(
            {"_id": f"l{at}", "reason": reason, "rejected_at": now - age}
            for at, (reason, age) in enumerate(
                [
                    ("invalid_json", timedelta()),
                    ("invalid_json", timedelta(hours=2)),
                    ("future_date", timedelta(minutes=5)),
                ]
            )
        )
    wait_for(lambda: bool(ok(api, "/v1/live")["dead_letters"]), "letters")
    assert ok(api, "/v1/live")["dead_letters"] == [
        {"reason": "invalid_json", "letters": 2, "letters_last_hour": 1},
        {"reason": "future_date", "letters": 1, "letters_last_hour": 1},
    ]


def test_an_erasure_is_in_kafka_before_it_is_answered(api: ServiceProcess, kafka: LocalKafka) -> None:
    answer = ask(api, customer_path("gone/ü"), "DELETE", x_request_id="erase-1")
    assert answer.status == 202
    assert answer.body["customer_id"] == "gone/ü"
    assert answer.body["request_id"] == "erase-1"
    events = [json.loads(each.value()) for each in read_all(kafka.bootstrap_servers, CUSTOMER_EVENTS, 1)]
    ours = [event for event in events if event["event_id"] == answer.body["event_id"]]
    assert [(event["event_type"], event["customer_id"]) for event in ours] == [("customer.erased", "gone/ü")]
    assert ask(api, customer_path("a\x01b"), "DELETE").status == 422


def test_listeners_are_ended_when_the_process_ends(kafka: LocalKafka, mongo: LocalMongo, tmp_path: Any) -> None:
    running = running_api(kafka.bootstrap_servers, mongo.uri, DATABASE, tmp_path)
    with running as process, listening(process) as listener:
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 8
        assert listener.ended.wait(5)
