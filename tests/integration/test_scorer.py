"""The scorer as a real process against a real Kafka: what goes in, what downstream reads, what a crash leaves."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message

from deploy.local.processes import ServiceProcess
from domain.segments import Segment, Thresholds, classify
from schemas.customer_features import CustomerFeatures, encode_features, feature_matrix
from schemas.dead_letters import from_record
from schemas.predictions import decode_prediction, prediction_id
from schemas.segment_thresholds import decode_sketch
from schemas.topics import CUSTOMER_FEATURES, DEAD_LETTERS, PREDICTIONS, SEGMENT_THRESHOLDS
from services.inference.model import load_model
from services.runtime.bundle import point_to
from tests.bundles import OTHER_QUINTILES, feature_messages, graph, write_bundle
from tests.integration.line_support import ending_cleanly, publish_features
from tests.support import end_offsets, http, metric, newest_by_customer, produce, read_all, ready, wait_for

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]


@pytest.fixture
def service(service: Start) -> Iterator[Start]:
    yield from ending_cleanly(service)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    point_to(folder, write_bundle(folder))
    return folder


@pytest.fixture
def env(topics: str, models: Path) -> dict[str, str]:
    """Thresholds of the bundle alone, unless a test says otherwise: then every byte can be foretold."""
    return {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MODELS_DIR": str(models),
        "CLV_SCORER_MIN_POPULATION": "1000000",
        "CLV_SCORER_MODEL_POLL_SECONDS": "0.2",
        "CLV_SCORER_THRESHOLDS_SECONDS": "0.3",
    }


def newest_versions(servers: str) -> dict[str, int]:
    return {name: each["feature_version"] for name, each in newest_by_customer(servers, PREDICTIONS).items()}


def never_goes_back(records: list[Message]) -> None:
    """In each partition a customer's prediction is never followed by one from older features."""
    last: dict[bytes, int] = {}
    for record in records:
        version = json.loads(record.value())["feature_version"]
        assert version >= last.get(record.key(), 0), record.key()
        last[record.key()] = version


def test_each_customer_gets_the_prediction_the_model_makes(
    topics: str, env: dict[str, str], models: Path, service: Start
) -> None:
    messages = feature_messages(300)
    service("scorer", env)
    publish_features(topics, messages, timestamp=1_700_000_000_123)
    records = read_all(topics, PREDICTIONS, at_least=300)
    model = load_model(models / (models / "current").read_text().strip(), "USD")
    outcomes = model.predict(feature_matrix([each.features for each in messages]))
    expected = {each.customer_id: (each, outcomes.expected_value[at]) for at, each in enumerate(messages)}
    sources = {record.key(): record.partition() for record in read_all(topics, CUSTOMER_FEATURES)}
    assert len({record.key() for record in records}) == 300
    for record in records:
        made = decode_prediction(record.value())
        message, value = expected[made.customer_id]
        assert made.prediction_id == prediction_id(made.customer_id, message.feature_version, model.version)
        assert made.expected_value == value
        assert (made.inputs, made.features, made.as_of) == (message.inputs, message.features, message.as_of)
        assert made.segment_thresholds == model.thresholds
        assert made.segment == classify(value, model.thresholds).value
        assert made.previous_segment is None
        assert (record.key(), record.partition()) == (made.customer_id.encode(), sources[record.key()])
        assert record.timestamp()[1] == 1_700_000_000_123


def test_redelivery_repeats_the_same_bytes(topics: str, env: dict[str, str], service: Start) -> None:
    first, second = feature_messages(50), feature_messages(50, seed=1, events=2)
    service("scorer", env)
    publish_features(topics, first)
    read_all(topics, PREDICTIONS, at_least=50)
    publish_features(topics, second)
    read_all(topics, PREDICTIONS, at_least=100)
    publish_features(topics, second)
    by_key: dict[bytes, list[bytes]] = defaultdict(list)
    for record in read_all(topics, PREDICTIONS, at_least=150):
        by_key[record.key()].append(record.value())
    assert len(by_key) == 50
    for former, now, again in by_key.values():
        assert again == now != former
        assert decode_prediction(now).previous_segment == decode_prediction(former).segment


def test_features_older_than_the_prediction_are_not_scored_again(
    topics: str, env: dict[str, str], service: Start
) -> None:
    service("scorer", env)
    publish_features(topics, feature_messages(20, events=2))
    read_all(topics, PREDICTIONS, at_least=20)
    publish_features(topics, feature_messages(20, events=1))
    publish_features(topics, feature_messages(20, events=3))
    records = read_all(topics, PREDICTIONS, at_least=40)
    never_goes_back(records)
    assert len(records) == 40


def test_what_cannot_be_scored_is_a_dead_letter_and_the_line_goes_on(
    topics: str, env: dict[str, str], service: Start
) -> None:
    good, other = feature_messages(2)
    absurd = {**other.features, "orders_per_month": 1e308, "average_order_value": 1e308}
    process = service("scorer", env)
    produce(
        topics,
        CUSTOMER_FEATURES,
        [
            (b"c0", b"{"),
            (b"c0", b"\xff\xfe"),
            (b"x", encode_features(other)),
            (b"c1", json.dumps({"customer_id": "c1"}).encode()),
            (b"c1", encode_features(CustomerFeatures(**{**_fields(other), "features": absurd}))),
            (b"c0", encode_features(good)),
        ],
        headers=[("source", b"test")],
    )
    (made,) = read_all(topics, PREDICTIONS, at_least=1)
    assert made.key() == b"c0"
    letters = [from_record(r.key(), r.value(), r.headers()) for r in read_all(topics, DEAD_LETTERS, at_least=5)]
    assert Counter(each.reason.value for each in letters) == {
        "invalid_json": 2,
        "key_mismatch": 1,
        "missing_field": 1,
        "invalid_field": 1,
    }
    assert all(
        each.origin.topic == CUSTOMER_FEATURES and each.original_headers == [("source", b"test")] for each in letters
    )
    assert metric(process, "clv_dead_letters_total", service="scorer") == 5


def _fields(message: CustomerFeatures) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def test_a_tombstone_is_passed_on_and_the_customer_starts_anew(
    topics: str, env: dict[str, str], service: Start
) -> None:
    (message,) = feature_messages(1)
    service("scorer", env)
    publish_features(topics, [message])
    read_all(topics, PREDICTIONS, at_least=1)
    produce(topics, CUSTOMER_FEATURES, [(b"c0", None)])
    assert read_all(topics, PREDICTIONS, at_least=2)[-1].value() is None
    publish_features(topics, [message])
    last = read_all(topics, PREDICTIONS, at_least=3)[-1]
    assert decode_prediction(last.value()).previous_segment is None


def test_after_kill_9_in_the_middle_every_customer_has_the_newest(
    topics: str, env: dict[str, str], service: Start
) -> None:
    rounds = [feature_messages(4000, seed=number, events=number) for number in range(1, 4)]
    process = service("scorer", env)
    for number, messages in enumerate(rounds):
        publish_features(topics, messages)
        wait_for(lambda n=number: end_offsets(topics, PREDICTIONS) > 4000 * n, "the stream to flow", 60)
        process.kill()
        process.start()
    wanted = {each.customer_id: each.feature_version for each in rounds[-1]}
    wait_for(lambda: newest_versions(topics) == wanted, "every customer's newest", 60, lambda: process.log_tail(20))
    never_goes_back(read_all(topics, PREDICTIONS))
    by_customer: dict[str, dict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    for record in read_all(topics, PREDICTIONS):
        made = decode_prediction(record.value())
        by_customer[made.customer_id][made.feature_version].add(record.value())
    for versions in by_customer.values():
        history = [versions[version] for version in sorted(versions)]
        assert all(len(values) == 1 for values in history)  # repeats are the same prediction, previous_segment included
        segments = [decode_prediction(next(iter(values))) for values in history]
        assert [each.previous_segment for each in segments] == [None, *(each.segment for each in segments[:-1])]


def test_a_second_scorer_may_come_and_go_while_streaming(topics: str, env: dict[str, str], service: Start) -> None:
    service("scorer", env)
    publish_features(topics, feature_messages(2000, prefix="a"))
    other = service("scorer", env, wait=False)
    wanted = 2000
    for prefix in "bcdefghijk":  # customers of their own, so that a batch lost in a rebalance cannot be made good later
        publish_features(topics, feature_messages(2000, prefix=prefix))
        wanted += 2000
        if ready(other) and prefix > "e":
            break
    wait_for(lambda: ready(other), "the second scorer", 60, lambda: other.log_tail(30))
    publish_features(topics, feature_messages(2000, prefix="y"))
    assert other.stop() == 0
    publish_features(topics, feature_messages(2000, prefix="z"))
    wait_for(lambda: len(newest_versions(topics)) == wanted + 4000, "all customers", 60)


def test_a_model_swap_while_streaming_loses_nothing(
    topics: str, env: dict[str, str], models: Path, service: Start
) -> None:
    first = (models / "current").read_text().strip()
    second = write_bundle(
        models,
        graph(scale=2.0),
        quintiles={
            "recency_days": OTHER_QUINTILES.recency_days,
            "frequency": OTHER_QUINTILES.frequency,
            "monetary": OTHER_QUINTILES.monetary,
        },
    )
    process = service("scorer", env)
    publish_features(topics, feature_messages(2000, events=1))
    wait_for(lambda: end_offsets(topics, PREDICTIONS) > 0, "the first predictions")
    point_to(models, second)
    count = 1
    while metric(process, "clv_model_info", model_version=second) != 1:
        assert count < 60, process.log_tail(20)
        count += 1
        publish_features(topics, feature_messages(500, events=count))
    publish_features(topics, feature_messages(2000, events=count + 1))
    wanted = {each.customer_id: each.feature_version for each in feature_messages(2000, events=count + 1)}
    wait_for(lambda: newest_versions(topics) == wanted, "every customer's newest", 60, lambda: process.log_tail(20))
    newest = newest_by_customer(topics, PREDICTIONS)
    assert {each["model_version"] for each in newest.values()} == {second}
    assert {json.loads(r.value())["model_version"] for r in read_all(topics, PREDICTIONS)} == {first, second}
    rescored = {each.customer_id: each for each in feature_messages(2000, events=count + 1, quintiles=OTHER_QUINTILES)}
    for name, made in newest.items():  # the features still came with the first model's scores
        assert (made["features"], made["inputs"]) == (rescored[name].features, rescored[name].inputs)
    assert metric(process, "clv_model_info", model_version=first) == 0


def test_a_bundle_that_cannot_be_used_leaves_the_former_in_use(
    topics: str, env: dict[str, str], models: Path, service: Start
) -> None:
    first = (models / "current").read_text().strip()
    process = service("scorer", env)
    broken = write_bundle(models, currency="EUR")
    point_to(models, broken)
    wait_for(lambda: "model_refused" in process.log_tail(50), "the refusal to be logged")
    publish_features(topics, feature_messages(10))
    made = read_all(topics, PREDICTIONS, at_least=10)
    assert {json.loads(each.value())["model_version"] for each in made} == {first}
    assert ready(process)


def test_without_a_model_it_waits_and_begins_when_one_is_there(
    topics: str, env: dict[str, str], tmp_path: Path, service: Start
) -> None:
    folder = tmp_path / "later"
    process = service("scorer", {**env, "CLV_MODELS_DIR": str(folder)}, wait=False)
    wait_for(lambda: "waiting_for_model" in process.log_tail(), "the scorer to wait")
    status, body = http(process, "/readyz")
    assert status == 503
    assert "clv train" in body["problems"]["model"]
    point_to(folder, write_bundle(folder))
    wait_for(lambda: ready(process), "the scorer to be ready", 30, lambda: process.log_tail(20))


def test_a_wrong_bundle_at_the_start_is_one_line(env: dict[str, str], models: Path, service: Start) -> None:
    process = service("scorer", {**env, "CLV_CURRENCY": "EUR"}, wait=False)
    assert process.wait(30) == 1
    assert "is in USD, but CLV_CURRENCY is EUR" in process.log_tail(1)
    assert "Traceback" not in process.log_tail(50)


def test_thresholds_follow_the_population_of_all_scorers(
    topics: str, env: dict[str, str], models: Path, service: Start
) -> None:
    live = {**env, "CLV_SCORER_MIN_POPULATION": "200"}
    one, two = service("scorer", live), service("scorer", live)
    messages = feature_messages(3000)
    publish_features(topics, messages)
    read_all(topics, PREDICTIONS, at_least=3000)
    buyers = sum(each.features["monetary"] is not None for each in messages)
    for process in (one, two):
        wait_for(
            lambda p=process: metric(p, "clv_population_customers") == buyers, "all customers", 30, process.log_tail
        )
    model = load_model(models / (models / "current").read_text().strip(), "USD")
    values = model.predict(feature_matrix([each.features for each in messages])).expected_value
    values = values[[each.features["monetary"] is not None for each in messages]]
    publish_features(topics, feature_messages(3000, events=2))
    records = read_all(topics, PREDICTIONS, at_least=6000)
    made = [each for each in (decode_prediction(r.value()) for r in records) if each.feature_version >= 200_000]
    assert len(made) == 3000
    for each in made[::97]:
        exact = [float(np.mean(values <= threshold)) for threshold in each.segment_thresholds]
        assert exact == pytest.approx([0.25, 0.5, 0.75], abs=0.015)
        assert each.previous_segment is not None
        thresholds = Thresholds(*each.segment_thresholds)
        assert each.segment == classify(each.expected_value, thresholds, Segment(each.previous_segment))
    shares = Counter(classify(each.expected_value, Thresholds(*each.segment_thresholds)) for each in made)
    assert all(0.2 < share / 3000 < 0.3 for share in shares.values())
    sketches = {record.key(): decode_sketch(record.value()) for record in read_all(topics, SEGMENT_THRESHOLDS)}
    assert set(sketches) == {b"0", b"1", b"2", b"3"}
    assert sum(each.customers for each in sketches.values()) == buyers
    fresh = service("scorer", live)  # a newcomer takes over partitions and ranks by the population at once
    wait_for(lambda: metric(fresh, "clv_population_customers") == buyers, "the newcomer to know them", 30)


def test_sigterm_ends_it_within_ten_seconds_and_commits(topics: str, env: dict[str, str], service: Start) -> None:
    process = service("scorer", env)
    publish_features(topics, feature_messages(5000))
    wait_for(lambda: end_offsets(topics, PREDICTIONS) > 0, "the stream to flow")
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 10
    written = end_offsets(topics, PREDICTIONS)
    process.start()
    wait_for(lambda: ready(process), "the scorer to be ready again", 30)
    wait_for(lambda: len(newest_versions(topics)) == 5000, "all customers", 30)
    assert end_offsets(topics, PREDICTIONS) == 5000, f"{written} were written before: no batch is done twice"
