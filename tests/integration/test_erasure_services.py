"""Scorer, sink and the dead-letter tool on erased and merged customers, as real processes on real Kafka and MongoDB."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Message
from pymongo.database import Database

from deploy.local.processes import ServiceProcess
from schemas.dead_letters import DeadLetter, Origin, Reason, letter_key, to_record
from schemas.mongo import CUSTOMERS, DEAD_LETTERS, ERASURES, PREDICTION_HISTORY, erasure_id
from schemas.predictions import encode_prediction
from schemas.tombstones import Cause, cause_headers
from schemas.topics import CUSTOMER_EVENTS, CUSTOMER_FEATURES, PREDICTIONS
from schemas.topics import DEAD_LETTERS as LETTERS_TOPIC
from services.runtime.bundle import point_to
from tests.bundles import feature_messages, write_bundle
from tests.conftest import ROOT
from tests.support import metric, produce, read_all, wait_for
from tests.unit.sink.examples import prediction

pytestmark = pytest.mark.integration
Start = Callable[..., ServiceProcess]
Mongo = Database[dict[str, Any]]
NOW_MS = int(time.time() * 1000)
HOUR_MS = 3_600_000


@pytest.fixture
def env(sink_environment: dict[str, str]) -> dict[str, str]:
    return sink_environment


def letter(offset: int, value: bytes | None, *, key: bytes | None = None, arrived_ms: int = NOW_MS) -> DeadLetter:
    return DeadLetter(
        reason=Reason.INVALID_FIELD,
        detail="no",
        service="ingest",
        origin=Origin(CUSTOMER_EVENTS, 0, offset),
        rejected_at_ms=arrived_ms + 5,
        key=key,
        value=value,
        arrived_at_ms=arrived_ms,
    )


def publish_letters(servers: str, *letters: DeadLetter) -> None:
    for each in letters:
        key, value, headers = to_record(each)
        produce(servers, LETTERS_TOPIC, [(key, value)], headers=headers)


def tombstone(servers: str, topic: str, customer: str, cause: Cause, timestamp_ms: int = NOW_MS + HOUR_MS) -> None:
    produce(servers, topic, [(customer.encode(), None)], headers=cause_headers(cause), timestamp=timestamp_ms)


def names(database: Mongo) -> set[str]:
    return {each["_id"] for each in database[DEAD_LETTERS].find({}, {"_id": 1})}


def keys(*letters: DeadLetter) -> set[str]:
    return {letter_key(each).decode() for each in letters}


def taken_back(servers: str) -> set[str]:
    return {each.key().decode() for each in read_all(servers, LETTERS_TOPIC) if each.value() is None}


# ---------------------------------------------------------------- the sink


OF_GONE = (
    letter(1, b'{"customer_id": "gone", "amount": -1}'),
    letter(2, b'{"event_type": "customer.merged", "customer_id": "x", "merged_into": "gone"}'),
    letter(3, b'{"customer_id": "gone", "amo'),
    letter(4, b"{", key=b"gone"),
    letter(5, b'{"userId": "gone"}'),
    letter(6, b'{"customer_id": "gone", "\xff'),
)
OF_OTHERS = (
    letter(11, b'{"customer_id": "stays", "note": "gone"}'),
    letter(12, b'{"userId": "gone-too"}'),
    letter(13, b"{", key=b"stays"),
    letter(14, None),
)
NEW_OF_GONE = letter(21, b'{"customer_id": "gone", "amount": -1}', arrived_ms=NOW_MS + 2 * HOUR_MS)


def test_an_erasure_takes_back_the_letters_that_hold_the_customer_and_no_others(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    produce(topics, PREDICTIONS, [(b"gone", encode_prediction(prediction("gone")))])
    produce(topics, PREDICTIONS, [(b"stays", encode_prediction(prediction("stays")))])
    publish_letters(topics, *OF_GONE, *OF_OTHERS, NEW_OF_GONE)
    everything = keys(*OF_GONE, *OF_OTHERS, NEW_OF_GONE)
    wait_for(lambda: names(database) == everything, "the letters", 30, process.log_tail)
    wait_for(lambda: database[CUSTOMERS].count_documents({}) == 2, "the customers", 30, process.log_tail)
    tombstone(topics, PREDICTIONS, "gone", Cause.ERASED)
    left = keys(*OF_OTHERS, NEW_OF_GONE)
    wait_for(
        lambda: names(database) == left, "the letters to go", 30, lambda: f"{names(database)}\n{process.log_tail()}"
    )
    assert taken_back(topics) == keys(*OF_GONE)
    assert {each["_id"] for each in database[CUSTOMERS].find()} == {"stays"}
    assert {each["customer_id"] for each in database[PREDICTION_HISTORY].find()} == {"stays"}
    assert [each["_id"] for each in database[ERASURES].find()] == [erasure_id("gone")]
    wait_for(lambda: metric(process, "clv_letters_erased_total") == len(OF_GONE), "the count")


def test_a_letter_that_comes_after_the_erasure_goes_if_its_event_came_before(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    tombstone(topics, PREDICTIONS, "gone", Cause.ERASED)
    wait_for(lambda: database[ERASURES].count_documents({}) == 1, "the erasure", 30, process.log_tail)
    publish_letters(topics, *OF_GONE, *OF_OTHERS, NEW_OF_GONE)
    wait_for(lambda: taken_back(topics) == keys(*OF_GONE), "the late letters to go", 30, process.log_tail)
    wait_for(lambda: names(database) == keys(*OF_OTHERS, NEW_OF_GONE), "only the others' to stay", 30, process.log_tail)


def test_a_merge_deletes_documents_and_no_letter(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    produce(topics, PREDICTIONS, [(b"gone", encode_prediction(prediction("gone")))])
    publish_letters(topics, *OF_GONE)
    wait_for(lambda: names(database) == keys(*OF_GONE), "the letters", 30, process.log_tail)
    wait_for(lambda: database[CUSTOMERS].count_documents({}) == 1, "the customer", 30, process.log_tail)
    tombstone(topics, PREDICTIONS, "gone", Cause.MERGED)
    wait_for(lambda: database[CUSTOMERS].count_documents({}) == 0, "the merge", 30, process.log_tail)
    produce(topics, PREDICTIONS, [(b"gone", encode_prediction(prediction("gone", 2)))])
    wait_for(lambda: database[CUSTOMERS].count_documents({}) == 1, "what comes next", 30, process.log_tail)
    assert names(database) == keys(*OF_GONE)
    assert taken_back(topics) == set()
    assert database[ERASURES].count_documents({}) == 0


def test_kill_9_amid_erasures_leaves_no_letter_behind(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    customers = [f"c{number}" for number in range(300)]
    letters = [letter(number, f'{{"customer_id": "{name}"}}'.encode()) for number, name in enumerate(customers)]
    process = service("sink", {**env, "CLV_SINK_BATCH_RECORDS": "20"})
    publish_letters(topics, *letters)
    wait_for(lambda: len(names(database)) == 300, "the letters", 60, process.log_tail)
    gone = customers[::2]
    produce(
        topics,
        PREDICTIONS,
        [(name.encode(), None) for name in gone],
        headers=cause_headers(Cause.ERASED),
        timestamp=NOW_MS + HOUR_MS,
    )
    for left in (260, 220, 180):
        wait_for(lambda n=left: len(names(database)) < n, "erasures to go on", 60, process.log_tail)
        process.kill()
        process.start()
    expected = keys(*letters[1::2])
    wait_for(lambda: names(database) == expected, "all of them to be gone", 60, process.log_tail)
    assert taken_back(topics) == keys(*letters[::2])


def test_a_second_sink_shares_the_letters(topics: str, env: dict[str, str], database: Mongo, service: Start) -> None:
    """Letters and erasures of one customer may be in the hands of different sinks, at the same time."""
    customers = [f"c{number}" for number in range(200)]
    letters = [letter(number, f'{{"customer_id": "{name}"}}'.encode()) for number, name in enumerate(customers)]
    first, second = service("sink", env), service("sink", env)
    for each, name in zip(letters, customers, strict=True):
        publish_letters(topics, each)
        if int(name[1:]) % 2:
            tombstone(topics, PREDICTIONS, name, Cause.ERASED)
    expected = keys(*letters[::2])
    wait_for(
        lambda: names(database) == expected and taken_back(topics) == keys(*letters[1::2]),
        "the erased ones' letters to be gone",
        60,
        lambda: first.log_tail() + second.log_tail(),
    )


def test_a_letter_that_the_topic_takes_back_is_deleted(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    publish_letters(topics, *OF_OTHERS)
    wait_for(lambda: names(database) == keys(*OF_OTHERS), "the letters", 30, process.log_tail)
    produce(topics, LETTERS_TOPIC, [(letter_key(OF_OTHERS[0]), None)])
    wait_for(lambda: names(database) == keys(*OF_OTHERS[1:]), "the deletion", 30, process.log_tail)


def test_what_the_sink_cannot_keep_does_not_stop_it(
    topics: str, env: dict[str, str], database: Mongo, service: Start
) -> None:
    process = service("sink", env)
    database.command("collMod", DEAD_LETTERS, validator={"service": {"$ne": "unwanted"}})
    unwanted = letter(30, b"{")
    key, value, headers = to_record(unwanted)
    produce(topics, LETTERS_TOPIC, [(key, value)], headers=[*headers, ("clv.service", b"unwanted")])
    produce(topics, LETTERS_TOPIC, [(b"foreign", b"x"), (b"\xff", None)])
    publish_letters(topics, *OF_OTHERS)
    wait_for(lambda: names(database) == keys(*OF_OTHERS), "the letters", 30, process.log_tail)
    assert len(read_all(topics, LETTERS_TOPIC)) == len(OF_OTHERS) + 3, "a letter about a letter"


# ---------------------------------------------------------------- the scorer


def headers_of(record: Message) -> list[tuple[str, bytes]]:
    return list(record.headers() or [])


@pytest.mark.parametrize("cause", Cause)
def test_the_scorer_passes_the_cause_on(
    topics: str, env: dict[str, str], tmp_path: Any, service: Start, cause: Cause
) -> None:
    models = tmp_path / "models"
    point_to(models, write_bundle(models))
    process = service("scorer", {**env, "CLV_MODELS_DIR": str(models)})
    (message, other) = feature_messages(2)
    from schemas.customer_features import encode_features

    value = encode_features(message)
    produce(topics, CUSTOMER_FEATURES, [(b"c0", value), (b"c1", encode_features(other))])
    read_all(topics, PREDICTIONS, at_least=2)
    # All in one batch: who comes back at once is gone all the same before.
    produce(topics, CUSTOMER_FEATURES, [(b"c0", None)], headers=cause_headers(cause), timestamp=NOW_MS)
    produce(topics, CUSTOMER_FEATURES, [(b"c0", value)])
    read_all(topics, PREDICTIONS, at_least=4)
    of_customer = [each for each in read_all(topics, PREDICTIONS) if each.key() == b"c0"]
    before, gone, after = of_customer
    assert gone.value() is None
    assert headers_of(gone) == cause_headers(cause)
    assert gone.timestamp()[1] == NOW_MS
    assert json.loads(after.value())["previous_segment"] is None
    assert json.loads(before.value())["prediction_id"] == json.loads(after.value())["prediction_id"]
    assert process.alive


def test_an_erasure_and_a_return_in_one_batch_are_both_passed_on(
    topics: str, env: dict[str, str], tmp_path: Any, service: Start
) -> None:
    from schemas.customer_features import encode_features

    (message,) = feature_messages(1)
    produce(topics, CUSTOMER_FEATURES, [(b"c0", None)], headers=cause_headers(Cause.ERASED))
    produce(topics, CUSTOMER_FEATURES, [(b"c0", encode_features(message))])
    models = tmp_path / "models"
    point_to(models, write_bundle(models))
    service("scorer", {**env, "CLV_MODELS_DIR": str(models)})
    gone, after = read_all(topics, PREDICTIONS, at_least=2)
    assert gone.value() is None
    assert headers_of(gone) == cause_headers(Cause.ERASED)
    assert json.loads(after.value())["customer_id"] == "c0"


# ---------------------------------------------------------------- the tool


def clv(servers: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", "cli", "dead-letters", *arguments, "--json", "--bootstrap-servers", servers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_was_taken_back_is_neither_listed_nor_replayed(topics: str) -> None:
    publish_letters(topics, *OF_GONE, *OF_OTHERS)
    produce(
        topics, LETTERS_TOPIC, [(key.encode(), None) for key in keys(*OF_GONE)], headers=cause_headers(Cause.ERASED)
    )
    listing = clv(topics, "list")
    assert {row["origin"]["offset"] for row in listing["letters"]} == {11, 12, 13, 14}
    assert (listing["total"], listing["not_letters"]) == (4, 0)
    done = clv(topics, "replay")
    assert done["replayed"] == 3
    assert done["skipped"] == {"neither a key nor a value": 1}
    values = {each.value() for each in read_all(topics, CUSTOMER_EVENTS)}
    assert values == {each.value for each in OF_OTHERS if each.value is not None}


def test_a_letter_whose_origin_was_read_twice_is_one_letter(topics: str) -> None:
    publish_letters(topics, OF_OTHERS[0], OF_OTHERS[0])
    assert clv(topics, "list")["total"] == 1
    assert clv(topics, "replay")["replayed"] == 1
    assert clv(topics, "replay")["replayed"] == 0
    publish_letters(topics, OF_OTHERS[0])  # refused again, later: to be repaired again
    assert clv(topics, "replay")["replayed"] == 1
