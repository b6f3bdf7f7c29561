"""Models come, go and are tried while features stream: real Kafka and MongoDB, real scorers, which are killed too."""

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from cli.__main__ import app
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.drift import reference
from domain.features import FEATURE_NAMES
from schemas.customer_features import CustomerFeatures, feature_matrix
from schemas.predictions import decode_prediction, prediction_id
from schemas.tombstones import Cause, cause_headers
from schemas.topics import CHALLENGER_PREDICTIONS, CUSTOMER_FEATURES, PREDICTIONS
from services.inference.model import load_model
from services.runtime.bundle import point_to
from services.runtime.registry import with_registry
from tests.bundles import feature_messages, graph, write_bundle
from tests.integration.features_support import features_environment, history
from tests.integration.features_support import publish as publish_orders
from tests.integration.line_support import ending_cleanly, publish_features
from tests.support import committed_lag, metric, newest_by_customer, produce, read_all, ready, wait_for

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
GROUP = "clv-scorer"


@pytest.fixture
def env(topics: str, tmp_path: Path) -> dict[str, str]:
    return {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MODELS_DIR": str(tmp_path / "models"),
        "CLV_SCORER_MIN_POPULATION": "1000000",
        "CLV_SCORER_MODEL_POLL_SECONDS": "0.2",
        "CLV_SCORER_THRESHOLDS_SECONDS": "0.3",
        "CLV_SCORER_DRIFT_SECONDS": "0.3",
    }


@pytest.fixture
def service(service: Start) -> Iterator[Start]:
    yield from ending_cleanly(service)


def values_of(servers: str, topic: str) -> list[dict[str, Any]]:
    return [json.loads(record.value()) for record in read_all(servers, topic) if record.value() is not None]


def nothing_left(servers: str) -> bool:
    return committed_lag(servers, GROUP, CUSTOMER_FEATURES) == 0


def one_effect_each(made: list[dict[str, Any]], sent: list[CustomerFeatures], champions: set[str]) -> None:
    """Every feature message has one prediction, by prediction_id, however often delivered, and it names a champion."""
    effects: dict[tuple[str, int], set[str]] = defaultdict(set)
    for each in made:
        assert each["model_version"] in champions
        source = each["customer_id"], each["feature_version"]
        assert each["prediction_id"] == prediction_id(*source, each["model_version"])
        effects[source].add(each["prediction_id"])
    assert effects.keys() == {(each.customer_id, each.feature_version) for each in sent}
    assert {len(ids) for ids in effects.values()} == {1}


def test_swaps_and_a_kill_leave_every_message_with_one_prediction_by_a_champion(
    topics: str, env: dict[str, str], mongo: LocalMongo, mongo_database: str, tmp_path: Path, service: Start
) -> None:
    trained = tmp_path / "trained"
    versions = [write_bundle(trained, graph(scale=scale)) for scale in (1.0, 2.0, 3.0)]

    def registry(work: Callable[[Any], Any]) -> Any:
        return asyncio.run(with_registry(mongo.uri, mongo_database, work))

    for version in versions:
        registry(lambda found, v=version: found.register(trained / v, "test"))
    registry(lambda found: found.promote(versions[0], "test"))
    follow = {
        **env,
        "CLV_SCORER_REGISTRY": "true",
        "CLV_MONGO_URI": mongo.uri,
        "CLV_MONGO_DATABASE": mongo_database,
    }
    other = {**follow, "CLV_MODELS_DIR": str(tmp_path / "elsewhere")}
    victim, survivor = service("scorer", follow), service("scorer", other)
    sent: list[CustomerFeatures] = []

    def stream(prefix: str) -> None:
        sent.extend(messages := feature_messages(1500, prefix=prefix))
        publish_features(topics, messages)

    for turn in range(6):
        stream(f"r{turn}-")
        registry(lambda found, t=turn: found.promote(versions[(t + 1) % 2], "test"))
        stream(f"s{turn}-")
        if turn == 3:
            victim.kill()
    wait_for(lambda: nothing_left(topics), "everything to be scored", 90, lambda: survivor.log_tail(20))
    one_effect_each(values_of(topics, PREDICTIONS), sent, set(versions[:2]))
    assert {each["model_version"] for each in values_of(topics, PREDICTIONS)} == set(versions[:2])

    # As after a crash between acknowledgement and commit, only larger: everything comes again, to another champion.
    survivor.kill()
    before = len(read_all(topics, PREDICTIONS))
    registry(lambda found: found.promote(versions[2], "test"))
    admin = AdminClient({"bootstrap.servers": topics})
    wait_for(
        lambda: not admin.describe_consumer_groups([GROUP])[GROUP].result().members, "the group to notice the kill", 60
    )
    back = [TopicPartition(CUSTOMER_FEATURES, partition, 0) for partition in range(4)]
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP, back)])[GROUP].result()
    assert not nothing_left(topics)
    (tmp_path / "models" / "current").write_text(write_bundle(tmp_path / "models", graph(scale=9.0)))  # not promoted
    victim.start()
    wait_for(lambda: nothing_left(topics), "everything to be read again", 90, lambda: victim.log_tail(20))
    assert metric(victim, "clv_predictions_known_total") == len(sent)
    assert len(read_all(topics, PREDICTIONS)) == before
    stream("last-")
    wait_for(lambda: nothing_left(topics), "the last", 60, lambda: victim.log_tail(20))
    one_effect_each(values_of(topics, PREDICTIONS), sent, set(versions))
    last = [each for each in values_of(topics, PREDICTIONS) if each["customer_id"].startswith("last-")]
    assert {each["model_version"] for each in last} == {versions[2]}


def test_features_emitted_anew_on_request_are_scored_by_the_new_model(
    topics: str, env: dict[str, str], tmp_path: Path, service: Start
) -> None:
    models = tmp_path / "models"
    first = write_bundle(models)
    point_to(models, first)
    process = service("scorer", env)
    messages = feature_messages(50)
    publish_features(topics, messages)
    read_all(topics, PREDICTIONS, at_least=50)
    second = write_bundle(models, graph(scale=2.0))
    point_to(models, second)
    wait_for(lambda: metric(process, "clv_model_info", model_version=second) == 1, "the swap")
    publish_features(topics, messages)
    made = [json.loads(each.value()) for each in read_all(topics, PREDICTIONS, at_least=100)]
    assert [each["model_version"] for each in made].count(second) == 50
    assert metric(process, "clv_predictions_known_total") == 0
    assert metric(process, "clv_model_swaps_total") == 1


def test_a_challenger_predicts_the_same_features_on_a_topic_of_its_own(
    topics: str, env: dict[str, str], tmp_path: Path, service: Start
) -> None:
    models = tmp_path / "models"
    champion, challenger = write_bundle(models), write_bundle(models, graph(scale=2.0), horizon_days=30)
    point_to(models, champion)
    point_to(models, challenger, "challenger")
    process = service("scorer", {**env, "CLV_SCORER_CHALLENGER_SHARE": "1"})
    wait_for(lambda: metric(process, "clv_challenger_info", model_version=challenger) == 1, "the trial to begin")
    messages = feature_messages(300)
    publish_features(topics, messages, timestamp=1_700_000_000_123)
    records = read_all(topics, CHALLENGER_PREDICTIONS, at_least=300)
    model = load_model(models / challenger, "USD")
    expected = model.predict(feature_matrix([each.features for each in messages])).expected_value
    source = {record.key(): (record.partition(), record.offset()) for record in read_all(topics, CUSTOMER_FEATURES)}
    made = {record.key(): (record, decode_prediction(record.value())) for record in records}
    assert len(made) == len(records) == 300
    for message, value in zip(messages, expected, strict=True):
        record, prediction = made[message.customer_id.encode()]
        assert (prediction.expected_value, prediction.model_version, prediction.horizon_days) == (value, challenger, 30)
        assert (prediction.feature_version, prediction.features) == (message.feature_version, message.features)
        assert prediction.previous_segment is None
        assert record.timestamp()[1] == 1_700_000_000_123
        partition, offset = source[record.key()]
        assert record.partition() == partition
        assert record.headers() == [("clv.features-offset", str(offset).encode())]
    assert {each["model_version"] for each in values_of(topics, PREDICTIONS)} == {champion}
    wait_for(lambda: metric(process, "clv_challenger_predictions_total") == 300, "its count")

    produce(topics, CUSTOMER_FEATURES, [(b"c0", None)], headers=cause_headers(Cause.ERASED))
    for topic in (PREDICTIONS, CHALLENGER_PREDICTIONS):
        last = read_all(topics, topic, at_least=301)[-1:]
        gone = [each for each in read_all(topics, topic) if each.value() is None]
        assert [(each.key(), each.headers()) for each in gone] == [(b"c0", cause_headers(Cause.ERASED))], last

    (models / "challenger").unlink()
    wait_for(lambda: metric(process, "clv_challenger_info", model_version=challenger) == 0, "the trial to end")
    publish_features(topics, feature_messages(20, prefix="after"))
    read_all(topics, PREDICTIONS, at_least=321)
    produce(topics, CUSTOMER_FEATURES, [(b"c1", None)])
    wait_for(lambda: len(read_all(topics, CHALLENGER_PREDICTIONS)) == 302, "a tombstone without a challenger")
    assert all(not each["customer_id"].startswith("after") for each in values_of(topics, CHALLENGER_PREDICTIONS))


def one_row_only() -> bytes:
    """A graph that predicts one customer at a time, and fails for two."""
    model = onnx.load_from_string(graph())
    for name in ("expected_orders",):
        (node,) = [node for node in model.graph.node if name in node.output]
        node.output[0] = f"{name}_any"
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1], dtype=np.int64), "one_row"))
        at = list(model.graph.node).index(node) + 1
        model.graph.node.insert(at, helper.make_node("Reshape", [f"{name}_any", "one_row"], [name]))
    return bytes(model.SerializeToString())


def test_a_failing_challenger_is_set_aside_and_the_champion_goes_on(
    topics: str, env: dict[str, str], tmp_path: Path, service: Start
) -> None:
    models = tmp_path / "models"
    champion, failing = write_bundle(models), write_bundle(models, one_row_only())
    point_to(models, champion)
    point_to(models, failing, "challenger")
    process = service("scorer", env)
    wait_for(lambda: metric(process, "clv_challenger_info", model_version=failing) == 1, "the trial to begin")
    for turn in range(3):
        publish_features(topics, feature_messages(200, prefix=f"t{turn}-"))
        read_all(topics, PREDICTIONS, at_least=200 * (turn + 1))
    wait_for(lambda: nothing_left(topics), "all to be committed")
    assert metric(process, "clv_challenger_failures_total", reason="model") == 1
    assert process.log_tail(500).count("challenger_set_aside") == 1
    assert metric(process, "clv_challenger_skipped_total", reason="aside") >= 400
    assert read_all(topics, CHALLENGER_PREDICTIONS) == []
    assert ready(process)
    point_to(models, write_bundle(models, currency="EUR"), "challenger")
    wait_for(lambda: "challenger_refused" in process.log_tail(50), "the refusal")
    point_to(models, good := write_bundle(models, graph(scale=3.0)), "challenger")
    wait_for(lambda: metric(process, "clv_challenger_info", model_version=good) == 1, "another trial")
    publish_features(topics, feature_messages(50, prefix="z"))
    assert len(read_all(topics, CHALLENGER_PREDICTIONS, at_least=50)) == 50


def test_without_mongodb_the_model_at_hand_stays_and_it_is_said_once(
    topics: str, env: dict[str, str], tmp_path: Path, service: Start
) -> None:
    trained = tmp_path / "trained"
    first, second = write_bundle(trained), write_bundle(trained, graph(scale=2.0))
    with LocalMongo() as server:

        def registry(work: Callable[[Any], Any]) -> Any:
            return asyncio.run(with_registry(server.uri, "clv", work))

        for version in (first, second):
            registry(lambda found, v=version: found.register(trained / v, "test"))
        registry(lambda found: found.promote(first, "test"))
        process = service("scorer", {**env, "CLV_SCORER_REGISTRY": "true", "CLV_MONGO_URI": server.uri})
        server.kill()
        wait_for(lambda: metric(process, "clv_registry_away") == 1, "the outage to be seen", 60)
        point_to(tmp_path / "models", write_bundle(tmp_path / "models", graph(scale=9.0)))  # trained here, not promoted
        publish_features(topics, feature_messages(30))
        made = [json.loads(each.value()) for each in read_all(topics, PREDICTIONS, at_least=30)]
        assert {each["model_version"] for each in made} == {first}
        process.kill()
        process.start()  # without MongoDB: the folder has what was last told
        wait_for(lambda: ready(process), "the scorer to be ready", 60, lambda: process.log_tail(20))
        publish_features(topics, feature_messages(30, prefix="d"))
        made = [json.loads(each.value()) for each in read_all(topics, PREDICTIONS, at_least=60)]
        assert {each["model_version"] for each in made} == {first}
        assert process.log_tail(500).count("registry_away") == 2, "once by each process"
        server.restart()
        registry(lambda found: found.promote(second, "test"))
        wait_for(lambda: metric(process, "clv_model_info", model_version=second) == 1, "the swap", 60)
        assert metric(process, "clv_registry_away") == 0


def test_a_promotion_that_asks_for_it_has_every_customer_scored_anew_without_an_event(
    topics: str, env: dict[str, str], mongo: LocalMongo, mongo_database: str, tmp_path: Path, service: Start
) -> None:
    trained = tmp_path / "trained"
    first, second = write_bundle(trained), write_bundle(trained, graph(scale=2.0))
    point_to(trained, first)

    def clv(*arguments: str) -> None:
        registry = {"CLV_MONGO_URI": mongo.uri, "CLV_MONGO_DATABASE": mongo_database}
        done = CliRunner().invoke(app, ["models", *arguments], env=registry)
        assert done.exception is None, done.exception

    for version in (first, second):
        clv("register", str(trained / version))
    common = {**env, "CLV_MONGO_URI": mongo.uri, "CLV_MONGO_DATABASE": mongo_database}
    process = service("scorer", {**common, "CLV_SCORER_REGISTRY": "true"})
    environment = {**features_environment(topics, tmp_path / "features"), "CLV_MODELS_DIR": str(trained)}
    worker = service("features", environment)
    publish_orders(topics, history(customers=40, events=200, seed=1))  # one of them has refunds alone

    def by(version: str) -> set[str]:
        newest = newest_by_customer(topics, PREDICTIONS)
        return {name for name, each in newest.items() if each["model_version"] == version}

    wait_for(lambda: len(by(first)) == 39, "every customer with an order", 90, lambda: process.log_tail(20))
    customers = by(first)
    clv("promote", second, "--rescore", f"http://127.0.0.1:{worker.port}")  # type: ignore[attr-defined]
    wait_for(lambda: by(second) == customers, "every customer to be scored anew", 60, lambda: process.log_tail(20))
    assert metric(process, "clv_predictions_known_total") == 0


def test_drift_is_shown_against_the_training_population(
    topics: str, env: dict[str, str], tmp_path: Path, service: Start
) -> None:
    models = tmp_path / "models"
    trained_on = feature_matrix([each.features for each in feature_messages(4000, seed=3)])
    trained_on = trained_on[~np.isnan(trained_on[:, FEATURE_NAMES.index("monetary")])]
    plain = load_model(models / write_bundle(models), "USD").predict(trained_on)
    known = {
        "reference": {
            name: _facts(trained_on[:, at]) for at, name in enumerate(FEATURE_NAMES) if name != "recency_months"
        },
        "reference_outcomes": {"expected_value": _facts(plain.expected_value), "p_active": _facts(plain.p_active)},
    }
    point_to(models, write_bundle(models, **known))
    process = service("scorer", {**env, "CLV_SCORER_DRIFT_MIN_CUSTOMERS": "1500"})
    publish_features(topics, feature_messages(1000, seed=4))
    wait_for(lambda: metric(process, "clv_drift_customers") == 950, "950 with an order")
    assert math.isnan(metric(process, "clv_feature_drift_psi", feature="recency_days")), "too few to tell"
    for _ in range(2):  # again and again: each customer counts once
        publish_features(topics, feature_messages(2000, seed=5, prefix="e"))
    wait_for(lambda: metric(process, "clv_drift_customers") == 950 + 1900, "all with an order")
    wait_for(lambda: nothing_left(topics), "all to be scored")
    assert math.isnan(metric(process, "clv_feature_drift_psi", feature="recency_months")), "not told by the bundle"
    for name in set(FEATURE_NAMES) - {"recency_months", "as_of_year_day"}:
        assert metric(process, "clv_feature_drift_psi", feature=name) < 0.03, name
    for name in ("expected_value", "p_active"):
        assert 0 <= metric(process, "clv_prediction_drift_psi", outcome=name) < 0.03
    dear = [
        CustomerFeatures(
            **{name: getattr(each, name) for name in each.__struct_fields__ if name != "features"},
            features={**each.features, "average_order_value": 10 * (each.features["average_order_value"] or 0)},
        )
        for each in feature_messages(2000, seed=6, events=2, prefix="e")
    ]
    publish_features(topics, dear)
    wait_for(lambda: metric(process, "clv_feature_drift_psi", feature="average_order_value") > 0.25, "the change")
    wait_for(lambda: metric(process, "clv_prediction_drift_psi", outcome="expected_value") > 0.25, "what it does")
    assert metric(process, "clv_feature_drift_psi", feature="recency_days") < 0.03


def _facts(values: Any) -> dict[str, Any]:
    found = reference(values)
    return {"edges": list(found.edges), "shares": list(found.shares), "missing_share": found.missing_share}
