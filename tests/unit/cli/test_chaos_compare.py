"""The comparison finds nothing in what a correct product leaves behind, and names what is wrong with anything else.

The correct product is the real one, its pure parts called one after the other: judge, fold, features, model, documents.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import bson
import msgspec
import pytest
from aiokafka import ConsumerRecord
from aiokafka.partitioner import DefaultPartitioner

from cli.chaos.compare import compare
from cli.chaos.findings import Findings, Wrong
from cli.chaos.load import Event, Shape, history, live
from cli.chaos.oracle import Books, books
from cli.chaos.readback import Evidence, Record
from domain.customer import has_ordered
from schemas.customer_features import decode_features
from schemas.customer_rows import Row, decode_row, encode, is_forgotten, known_state, stored, survivor
from schemas.dead_letters import HEADER_REASON
from schemas.orders import OrderRecord, encode_order
from schemas.predictions import decode_prediction, encode_prediction
from services.features.emit import feature_messages
from services.folding.fold import fold_chunk
from services.inference.model import Model, load_model
from services.inference.ranking import bundle_ranking
from services.ingest.judge import Rules, judge
from services.ingest.rates import Rates
from services.ingest.rejection import Rejection
from services.scorer.intake import Candidate
from services.scorer.intake import judge as judge_features
from services.scorer.scoring import ModelFacts, predictions, prepare
from services.sink.documents import Write
from services.sink.documents import judge as judge_prediction
from tests.bundles import write_bundle

NOW = datetime(2024, 6, 1, tzinfo=UTC)
FIRST_MS = int(NOW.timestamp() * 1000)
TODAY = FIRST_MS // 86_400_000
SHAPE = Shape(customers=40, wholesale=1, wholesale_orders=1150, merged=6, erased=6)
CHUNK_EVENTS = 400
PARTITIONS = [0, 1, 2, 3]


def record(partition: int, offset: int, key: bytes, value: bytes | None) -> ConsumerRecord:
    return ConsumerRecord("", partition, offset, FIRST_MS, 0, key, value, None, 0, 0, ())


class Line:
    """The product without Kafka and MongoDB: chunks of orders in, the evidence of a run out."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.rows: dict[int, dict[bytes, Row]] = {partition: {} for partition in PARTITIONS}
        self.logs: dict[str, dict[int, list[Record]]] = {
            name: {partition: [] for partition in PARTITIONS}
            for name in ("orders", "changelog", "features", "predictions", "dead_letters")
        }
        self.customers: dict[str, dict] = {}
        self.history: dict[str, dict] = {}

    def log(self, name: str, partition: int, key: bytes, value: bytes | None, **headers: bytes) -> ConsumerRecord:
        records = self.logs[name][partition]
        records.append(Record(partition, len(records), key, value, headers))
        return record(partition, len(records) - 1, key, value)

    def take(self, orders: list[OrderRecord]) -> None:
        by_partition: dict[int, list[ConsumerRecord]] = {}
        for order in orders:
            key = order.customer_id.encode()
            partition = DefaultPartitioner()(key, PARTITIONS, PARTITIONS)
            by_partition.setdefault(partition, []).append(self.log("orders", partition, key, encode_order(order)))
        sent = [each for partition, records in by_partition.items() for each in self.chunk(partition, records)]
        if sent:
            self.take(sent)

    def chunk(self, partition: int, records: list[ConsumerRecord]) -> list[OrderRecord]:
        rows = self.rows[partition]
        folded = fold_chunk(records, rows, 0, 0, start_anew=False)
        for rejected in folded.rejected:
            self.log("dead_letters", partition, b"", b"", **{HEADER_REASON: rejected.reason.value.encode()})
        emitted: list[tuple[bytes, Row]] = []
        for key, each in folded.touched.items():
            row = rows[key] = each.row
            for item in stored(key, row):
                self.log("changelog", partition, *item)
            if is_forgotten(row) or survivor(key.decode(), row) is not None:
                self.forget(partition, key)
            elif has_ordered(state := known_state(row)):
                emitted.append((key, Row(row.events_applied, 0, 0, state)))
        if emitted:
            self.emit(partition, emitted)
        return [each.record for each in folded.to_send]

    def forget(self, partition: int, key: bytes) -> None:
        self.log("features", partition, key, None)
        self.log("predictions", partition, key, None)
        self.customers.pop(key.decode(), None)
        self.history = {at: kept for at, kept in self.history.items() if kept["customer_id"] != key.decode()}

    def emit(self, partition: int, rows: list[tuple[bytes, Row]]) -> None:
        messages = feature_messages(rows, [TODAY] * len(rows), self.model.metadata.quintiles, "USD", 100)
        candidates = []
        for (key, _), message in zip(rows, messages, strict=True):
            candidate = judge_features(self.log("features", partition, key, message), "USD")
            assert isinstance(candidate, Candidate)
            candidates.append(candidate)
        self.score(partition, candidates)

    def score(self, partition: int, candidates: list[Candidate]) -> None:
        rows, matrix = prepare(candidates, self.model.metadata.quintiles)
        facts = ModelFacts(self.model.version, self.model.metadata.horizon_days, "USD")
        ranking = bundle_ranking(self.model.thresholds)
        outcomes = self.model.predict(matrix)
        for made in predictions(rows, matrix, outcomes, [None] * len(rows), ranking=ranking, model=facts):
            key = made.customer_id.encode()
            write = judge_prediction(self.log("predictions", partition, key, encode_prediction(made)), NOW)
            assert isinstance(write, Write)
            self.customers[write.customer_id] = bson.decode(write.customer.raw)
            self.history[write.prediction_id] = bson.decode(write.history.raw)

    def evidence(self) -> Evidence:
        logs = [[each for records in log.values() for each in records] for log in self.logs.values()]
        return Evidence(*logs, list(self.customers.values()), list(self.history.values()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("models")
    return load_model(folder / write_bundle(folder), "USD")


@pytest.fixture(scope="module")
def events() -> list[Event]:
    planned = [*history(1, SHAPE, FIRST_MS), *islice(live(1, SHAPE, FIRST_MS - 3_600_000, 100), 3000)]
    return [each.event for each in planned]


def orders_of(events: list[Event]) -> list[OrderRecord]:
    rules = Rules(currency="USD", rates=Rates())
    judged = [judge(json.dumps(event).encode(), [], FIRST_MS, rules) for event in events]
    assert not any(isinstance(each, Rejection) for each in judged)
    return [each for each in judged if not isinstance(each, Rejection)]


@pytest.fixture(scope="module")
def evidence(model: Model, events: list[Event]) -> Evidence:
    line, orders = Line(model), orders_of(events)
    for at in range(0, len(orders), CHUNK_EVENTS):
        line.take(orders[at : at + CHUNK_EVENTS])
    return line.evidence()


@pytest.fixture
def judged(model: Model, events: list[Event]) -> Callable[[Evidence], Findings]:
    accepted = {str(event["event_id"]): event for event in events}
    return lambda evidence: compare(evidence, accepted, model)


def test_nothing_is_wrong_with_a_correct_product(evidence, judged, events):
    findings = judged(evidence)
    assert findings.clean, findings.examples
    assert findings.compared["accepted_events"] == len({event["event_id"] for event in events})
    assert findings.compared["merged_customers"] == 8
    assert findings.compared["erased_customers"] == 6
    assert findings.compared["states"] == 40 + 1 + 6 + 6 + 2
    assert findings.compared["features"] == findings.compared["predictions"] == findings.compared["customer_documents"]


def last_at(records: list[Record], key: bytes) -> int:
    return max(at for at, each in enumerate(records) if each.key == key)


def without(records: list[Record], at: int) -> list[Record]:
    return records[:at] + records[at + 1 :]


def kinds(findings: Findings) -> set[Wrong]:
    return {wrong for wrong, count in findings.counts.items() if count}


def test_an_accepted_event_that_never_became_an_order_is_lost(evidence, judged, events):
    gone = next(str(e["event_id"]) for e in events if e["customer_id"] == "customer-7")
    kept = [each for each in evidence.orders if gone.encode() not in each.value]
    findings = judged(evidence._replace(orders=kept))
    assert findings.counts[Wrong.LOST] >= 1
    assert any(gone in example for example in findings.examples[Wrong.LOST])


def test_an_order_that_was_never_published_is_a_mismatch(evidence, judged):
    strange = evidence.orders[5]._replace(value=evidence.orders[5].value.replace(b"live-e", b"strange-e"))
    assert Wrong.MISMATCH in kinds(judged(evidence._replace(orders=[*evidence.orders, strange])))


def newest_row(evidence: Evidence, key: bytes) -> tuple[int, Row]:
    at = last_at(evidence.changelog, key)
    return at, decode_row(evidence.changelog[at].value)


def with_row(evidence: Evidence, at: int, row: Row) -> Evidence:
    changed = evidence.changelog[at]._replace(value=encode(row))
    return evidence._replace(changelog=[*evidence.changelog[:at], changed, *evidence.changelog[at + 1 :]])


def test_an_event_counted_twice_in_a_state_is_double_counted(evidence, judged):
    at, row = newest_row(evidence, b"customer-3")
    row.events_applied += 1
    findings = judged(with_row(evidence, at, row))
    assert findings.counts[Wrong.DOUBLE_COUNTED] == 1


def test_a_folded_day_that_counts_an_order_twice_is_double_counted(evidence, judged):
    at, row = newest_row(evidence, b"wholesale-0")
    day, total = next(iter(row.state.folded.items()))
    row.state.folded[day] = type(total)(total.orders + 1, total.gross_minor + 100, total.net_minor + 100)
    findings = judged(with_row(evidence, at, row))
    assert findings.counts[Wrong.DOUBLE_COUNTED] == 1
    assert Wrong.MISMATCH in kinds(findings), "and its features are not those of the state"


def test_a_state_that_lacks_an_order_has_lost_it(evidence, judged):
    at, row = newest_row(evidence, b"customer-3")
    row.state.orders = row.state.orders[24:]
    assert judged(with_row(evidence, at, row)).counts[Wrong.LOST] == 1
    row.events_applied -= 1
    assert judged(with_row(evidence, at, row)).counts[Wrong.LOST] == 2


def test_a_state_with_another_amount_is_a_mismatch(evidence, judged):
    at, row = newest_row(evidence, b"customer-3")
    row.state.orders = row.state.orders[:-1] + b"\x01"
    assert kinds(judged(with_row(evidence, at, row))) == {Wrong.MISMATCH}


def test_a_customer_without_a_row_is_lost(evidence, judged):
    kept = [each for each in evidence.changelog if each.key != b"customer-5"]
    assert Wrong.LOST in kinds(judged(evidence._replace(changelog=kept)))


@pytest.mark.parametrize("topic", ["changelog", "features", "predictions"])
def test_an_older_record_after_the_newest_is_stale(evidence, judged, topic):
    records = getattr(evidence, topic)
    first = next(each for each in records if each.key == b"customer-3")
    findings = judged(evidence._replace(**{topic: [*records, first]}))
    assert kinds(findings) == {Wrong.STALE}
    assert findings.counts[Wrong.STALE] == 1


def test_features_older_than_the_state_are_stale_and_so_is_what_follows_from_them(evidence, judged):
    at = last_at(evidence.features, b"customer-3")
    findings = judged(evidence._replace(features=without(evidence.features, at)))
    assert findings.counts[Wrong.STALE] == 1


def test_predictions_and_documents_older_than_their_source_are_stale(evidence, judged):
    newest = evidence.predictions[last_at(evidence.predictions, b"customer-3")]
    kept = [each for each in evidence.predictions if each != newest]
    assert Wrong.STALE in kinds(judged(evidence._replace(predictions=kept)))
    older = next(d for d in evidence.history if d["customer_id"] == "customer-3")
    document = {**older, "_id": "customer-3"}
    others = [each for each in evidence.customers if each["_id"] != "customer-3"]
    assert kinds(judged(evidence._replace(customers=[*others, document]))) == {Wrong.STALE}


@pytest.mark.parametrize(("field", "what"), [("inputs", "total_orders"), ("features", "net_spend_90d")])
def test_one_wrong_number_in_the_features_is_found(evidence, judged, field, what):
    at = last_at(evidence.features, b"customer-3")
    message = decode_features(evidence.features[at].value)
    values = {**getattr(message, field), what: 12_345.0}
    changed = msgspec.json.encode(msgspec.structs.replace(message, **{field: values}))
    features = [*without(evidence.features, at), evidence.features[at]._replace(value=changed)]
    findings = judged(evidence._replace(features=features))
    assert any(what in example for example in findings.examples[Wrong.MISMATCH])


@pytest.mark.parametrize(("field", "wrong"), [("value_p90", 12_345.0), ("expected_next_order_at", "2024-06-02")])
def test_one_wrong_field_in_a_prediction_is_found(evidence, judged, field, wrong):
    at = last_at(evidence.predictions, b"customer-3")
    message = decode_prediction(evidence.predictions[at].value)
    assert getattr(message, field) not in (None, wrong)
    changed = encode_prediction(msgspec.structs.replace(message, **{field: wrong}))
    records = [*without(evidence.predictions, at), evidence.predictions[at]._replace(value=changed)]
    findings = judged(evidence._replace(predictions=records))
    assert kinds(findings) == {Wrong.MISMATCH}
    assert any(field in example for example in findings.examples[Wrong.MISMATCH])


def test_missing_and_invented_documents_are_found(evidence, judged):
    assert kinds(judged(evidence._replace(customers=evidence.customers[1:]))) == {Wrong.LOST}
    assert kinds(judged(evidence._replace(history=evidence.history[1:]))) == {Wrong.MISMATCH}
    stranger = {**evidence.customers[0], "_id": "stranger"}
    assert kinds(judged(evidence._replace(customers=[*evidence.customers, stranger]))) == {Wrong.MISMATCH}
    invented = {**evidence.history[0], "_id": "0" * 32}
    assert kinds(judged(evidence._replace(history=[*evidence.history, invented]))) == {Wrong.MISMATCH}


def test_a_dead_letter_of_a_good_event_is_a_mismatch(evidence, judged):
    letter = evidence.orders[0]._replace(headers={"clv.reason": b"invalid_json"})
    assert kinds(judged(evidence._replace(dead_letters=[letter]))) == {Wrong.MISMATCH}


@pytest.mark.parametrize("topic", ["features", "predictions"])
@pytest.mark.parametrize("customer", [b"alias-1", b"person-3", b"leaver-2"])
def test_what_comes_after_the_tombstone_of_a_customer_who_is_gone_is_found(evidence, judged, topic, customer):
    records = getattr(evidence, topic)
    again = next(each for each in records if each.key == customer and each.value)
    assert kinds(judged(evidence._replace(**{topic: [*records, again]}))) == {Wrong.STALE}


def test_a_row_of_an_erased_customer_that_comes_back_is_found(evidence, judged):
    again = next(each for each in evidence.changelog if each.key == b"leaver-1" and each.value)
    assert kinds(judged(evidence._replace(changelog=[*evidence.changelog, again]))) == {Wrong.STALE}


@pytest.mark.parametrize("customer", ["alias-1", "leaver-1"])
def test_documents_of_customers_who_are_gone_are_found(evidence, judged, customer):
    document = {**evidence.customers[0], "_id": customer}
    assert kinds(judged(evidence._replace(customers=[*evidence.customers, document]))) == {Wrong.MISMATCH}
    past = {**evidence.history[0], "_id": "0" * 32, "customer_id": customer}
    assert kinds(judged(evidence._replace(history=[*evidence.history, past]))) == {Wrong.MISMATCH}


def test_a_survivor_without_what_a_merged_customer_brought_has_lost_it(evidence, judged):
    at, row = newest_row(evidence, b"person-1")
    assert row.links is not None
    row.links.parts.clear()
    assert Wrong.LOST in kinds(judged(with_row(evidence, at, row)))


def test_a_tombstone_of_a_customer_who_is_there_is_a_loss(evidence, judged):
    deleted = evidence.features[-1]._replace(key=b"customer-3", value=None)
    assert kinds(judged(evidence._replace(features=[*evidence.features, deleted]))) == {Wrong.LOST}


def test_a_letter_that_holds_an_erased_customers_event_is_a_mismatch(evidence, judged):
    kept = evidence.orders[0]._replace(headers={HEADER_REASON: b"customer_erased"})
    assert evidence.dead_letters, "events of erased customers went on"
    assert kinds(judged(evidence._replace(dead_letters=[*evidence.dead_letters, kept]))) == {Wrong.MISMATCH}


def event(kind: str, number: int, **fields: str) -> Event:
    at = "2024-05-01T12:00:00.000+00:00"
    return {"event_id": f"e{number}", "event_type": kind, "occurred_at": at, "customer_id": "c", **fields}


def test_the_naive_books_are_those_that_a_person_would_keep():
    events = [
        event("order.placed", 1, order_id="a", amount="10.00"),
        event("order.placed", 1, order_id="a", amount="10.00"),
        event("order.placed", 2, order_id="b", amount="5.50"),
        event("order.placed", 3, order_id="c", amount="7.00"),
        event("order.refunded", 4, refund_id="r", order_id="a", amount="4.00"),
        event("order.refunded", 5, refund_id="s", order_id="b", amount="9.99"),
        event("order.refunded", 6, refund_id="t", order_id="unknown", amount="3.00"),
        event("order.refunded", 7, refund_id="u", amount="0.50"),
        event("order.cancelled", 8, order_id="c"),
        event("customer.updated", 9),
    ]
    day = datetime(2024, 5, 1, tzinfo=UTC).toordinal() - 719_163
    assert books(events, day) == Books(2, 1550, 600 - 50)
    assert books(events, day - 1) == Books(0, 0, 0)
