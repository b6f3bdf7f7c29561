"""Compares what a run left behind with what was published: lost, double-counted, stale, different.

Pure but for the model, which is called with a matrix. Two oracles: `oracle.books`, naive and independent, for what was
bought and paid; and a batch fold of the `orders` topic through the product's own domain, for every bit of a state and
every feature. Must never take a message's word for what it says of itself.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cli.chaos.findings import Findings, Wrong
from cli.chaos.load import Event
from cli.chaos.oracle import Identities, books, by_customer, identities
from cli.chaos.readback import Document, Evidence, Record
from cli.recompute import PUBLISHED_OUTPUTS, day_of_iso, next_order_of
from domain.customer import CustomerState, canonical, fold, has_ordered
from domain.customer import Event as DomainEvent
from domain.features import FEATURE_NAMES, INPUT_NAMES, FeatureRows, features
from domain.purchases import purchases
from schemas.currencies import minor_per_major
from schemas.customer_features import CustomerFeatures, decode_features, feature_matrix, feature_version
from schemas.customer_rows import OWN_PREFIX, Row, decode_row, known_state
from schemas.dead_letters import HEADER_MESSAGE, HEADER_REASON, Reason
from schemas.mongo import stored_prediction
from schemas.orders import Absorbed, decode_order, domain_event
from schemas.predictions import Prediction, decode_prediction, decode_prediction_head
from services.inference.model import Model

RELATIVE_TOLERANCE = 1e-9
_END_OF_TIME_DAY = 60_000


class Customer(NamedTuple):
    """One id as the orders topic has it."""

    events: list[DomainEvent]
    """Of this id alone, in the order of the topic."""
    records: int
    absorbed: int
    """Of the records, those that tell of merged customers: of repeated ones the first alone is applied."""


class Published(NamedTuple):
    """What was published."""

    by_id: Mapping[str, list[Event]]
    who: Identities

    def of(self, customer: str) -> list[Event]:
        """Events of a customer and of those merged into it."""
        return [event for name in self.who.members(customer) for event in self.by_id.get(name, [])]


def compare(evidence: Evidence, accepted: Mapping[str, Event], model: Model) -> Findings:
    """Everything that is wrong. accepted: by event_id, every event that was acknowledged: all that was published."""
    findings = Findings()
    published = Published(by_customer(accepted.values()), identities(accepted.values()))
    customers = _orders(evidence.orders, accepted, findings)
    _dead_letters(evidence.dead_letters, findings)
    rows = _states(evidence.changelog, customers, published, findings)
    newest = _features(evidence.features, rows, customers, published, model, findings)
    predicted = _predictions(evidence.predictions, newest, published.who, model, findings)
    _documents(evidence, predicted, published.who, findings)
    findings.compared.update(merged_customers=len(published.who.survivor), erased_customers=len(published.who.erased))
    return findings


# ---------------------------------------------------------------- ingest


def _orders(records: Sequence[Record], accepted: Mapping[str, Event], findings: Findings) -> dict[str, Customer]:
    """Every accepted event is on `orders`, nothing else is, and a customer's are in one partition."""
    found: dict[str, Customer] = {}
    partitions: dict[str, int] = {}
    seen: set[str] = set()
    for record in records:
        order = decode_order(record.value or b"")
        known = found.get(order.customer_id) or Customer([], 0, 0)
        event = domain_event(order)
        if event is not None:
            known.events.append(event)
        absorbed = isinstance(order, Absorbed)
        if not absorbed:
            seen.add(order.event_id)
        found[order.customer_id] = Customer(known.events, known.records + 1, known.absorbed + absorbed)
        if partitions.setdefault(order.customer_id, record.partition) != record.partition:
            findings.add(Wrong.MISMATCH, f"orders: {order.customer_id} is in two partitions")
    for event_id in accepted.keys() - seen:
        findings.add(Wrong.LOST, f"orders: accepted event {event_id} of {accepted[event_id]['customer_id']} is missing")
    for event_id in seen - accepted.keys():
        findings.add(Wrong.MISMATCH, f"orders: event {event_id} was never published")
    findings.compared.update(accepted_events=len(accepted), order_records=len(records), customers=len(found))
    return found


def _dead_letters(records: Sequence[Record], findings: Findings) -> None:
    """Every event of the load is good, but those of an erased customer, of which nothing may be kept."""
    for record in records:
        reason, message = (record.headers.get(name, b"").decode() for name in (HEADER_REASON, HEADER_MESSAGE))
        if reason != Reason.CUSTOMER_ERASED:
            findings.add(Wrong.MISMATCH, f"dead-letters: a good event is there: {reason}: {message}")
        elif record.value:
            findings.add(Wrong.MISMATCH, f"dead-letters: an erased customer's event is kept: {record.value[:200]!r}")


# ---------------------------------------------------------------- state


def _states(
    records: Sequence[Record], customers: Mapping[str, Customer], published: Published, findings: Findings
) -> dict[str, Row]:
    """The newest row of each customer is the batch fold of its events, and stands last in the changelog."""
    own = [record for record in records if record.key is not None and not record.key.startswith(OWN_PREFIX)]
    kept = _without_gone("changelog", own, published.who.erased, findings)
    newest: dict[str, Row] = {}
    last: dict[str, Row] = {}
    for name, value in kept:
        row = last[name] = decode_row(value)
        if name not in newest or row.events_applied >= newest[name].events_applied:
            newest[name] = row
    for name, row in last.items():
        if row.events_applied < newest[name].events_applied:
            findings.add(
                Wrong.STALE,
                f"changelog: {name} ends with a row of {row.events_applied} events after one of"
                f" {newest[name].events_applied}: compaction would keep the older",
            )
    for name in newest.keys() - customers.keys():
        findings.add(Wrong.MISMATCH, f"changelog: {name} has a row and no event")
    for name, customer in customers.items():
        row_of = newest.get(name)
        if name in published.who.erased:
            continue
        if row_of is None:
            findings.add(Wrong.LOST, f"changelog: {name} has no row, and {customer.records} events", customer.records)
            continue
        _state(name, row_of, customer, published, findings)
    findings.compared.update(changelog_rows=len(own), states=len(newest))
    return newest


def _without_gone(
    topic: str, records: Sequence[Record], gone: Collection[str], findings: Findings
) -> list[tuple[str, bytes]]:
    """Values by customer, without those who are gone: these must end with a tombstone, and nobody else may have one."""
    found: list[tuple[str, bytes]] = []
    last: dict[str, bytes | None] = {}
    for record in records:
        name = (record.key or b"").decode()
        last[name] = record.value
        if name not in gone:
            if record.value is None:
                findings.add(Wrong.LOST, f"{topic}: {name} was deleted")
            else:
                found.append((name, record.value))
    for name in gone:
        if last.get(name) is not None:
            findings.add(Wrong.STALE, f"{topic}: {name} was erased or merged, and its last record is not a tombstone")
    return found


def _state(name: str, row: Row, customer: Customer, published: Published, findings: Findings) -> None:
    applied, records = row.events_applied, customer.records
    if applied > records:
        findings.add(Wrong.DOUBLE_COUNTED, f"state: {name} counts {applied} events of {records}", applied - records)
    if applied < records - customer.absorbed:
        findings.add(Wrong.LOST, f"state: {name} counts {applied} events of {records}", records - applied)
    passed_on = name in published.who.survivor  # then what others brought may be passed by it on the way
    events = published.by_id.get(name, []) if passed_on else published.of(name)
    wanted, found = books(events, _END_OF_TIME_DAY), _books_of(row.state if passed_on else known_state(row))
    _compare_orders(f"state: {name}", found[0], wanted.orders, findings)
    if found[1:] != wanted[1:] and found[0] == wanted.orders:
        findings.add(Wrong.MISMATCH, f"state: {name} has gross and net {found[1:]}, published {tuple(wanted[1:])}")
    if canonical(row.state) != canonical(fold(customer.events)) and applied == records:
        findings.add(Wrong.MISMATCH, f"state: {name} differs from the batch fold of its {records} records")


def _books_of(state: CustomerState) -> tuple[int, int, int]:
    found, loose = purchases([state], [_END_OF_TIME_DAY])
    return int(found.orders.sum()), int(found.gross.sum()), int(found.net.sum()) - int(loose.minor.sum())


def _compare_orders(where: str, found: int, wanted: int, findings: Findings) -> None:
    if found > wanted:
        findings.add(Wrong.DOUBLE_COUNTED, f"{where} has {found} orders, published {wanted}", found - wanted)
    if found < wanted:
        findings.add(Wrong.LOST, f"{where} has {found} orders, published {wanted}", wanted - found)


# ---------------------------------------------------------------- features


def _features(
    records: Sequence[Record],
    rows: Mapping[str, Row],
    customers: Mapping[str, Customer],
    published: Published,
    model: Model,
    findings: Findings,
) -> dict[str, CustomerFeatures]:
    """Each customer's newest features are those of all events of all that the customer is; nobody gone has any."""
    kept = _without_gone("customer-features", records, published.who.gone, findings)
    newest = _newest("customer-features", ((name, decode_features(value)) for name, value in kept), findings)
    states = {
        name: fold(
            event for each in published.who.members(name) if each in customers for event in customers[each].events
        )
        for name in customers.keys() - published.who.gone
    }
    wanted = {name for name, state in states.items() if has_ordered(state)}
    for name in newest.keys() - wanted:
        findings.add(Wrong.MISMATCH, f"customer-features: {name} has features and never ordered")
    for name in wanted - newest.keys():
        findings.add(Wrong.LOST, f"customer-features: {name} has none")
    names = sorted(newest.keys() & wanted & rows.keys())
    days = [day_of_iso(newest[name].as_of) for name in names]
    recomputed = features(
        [states[name] for name in names],
        days,
        model.metadata.quintiles,
        minor_per_major(model.metadata.currency),
    )
    for at, name in enumerate(names):
        message = newest[name]
        version = feature_version(rows[name].events_applied, days[at])
        if message.feature_version < version:
            findings.add(
                Wrong.STALE,
                f"customer-features: {name} is of version {message.feature_version}, its state of {version}",
            )
            continue
        if message.feature_version > version:
            findings.add(
                Wrong.MISMATCH,
                f"customer-features: {name} is newer ({message.feature_version}) than its state {version}",
            )
        _values(f"customer-features: {name}", message, recomputed, at, findings)
        _books(f"customer-features: {name}", message, published.of(name), days[at], findings)
    findings.compared.update(feature_records=len(records), features=len(names))
    return newest


def _newest(topic: str, messages: Iterable[tuple[str, Any]], findings: Findings) -> dict[str, Any]:
    """Each customer's message of the highest version, the later of equals. It must also be the last of its key."""
    newest: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for key, message in messages:
        name = message.customer_id
        if key != name:
            findings.add(Wrong.MISMATCH, f"{topic}: key {key!r} is not {name}")
        last[name] = message
        if name not in newest or message.feature_version >= newest[name].feature_version:
            newest[name] = message
    for name, message in last.items():
        if message.feature_version < newest[name].feature_version:
            findings.add(
                Wrong.STALE,
                f"{topic}: {name} ends with version {message.feature_version} after {newest[name].feature_version}:"
                " compaction would keep the older",
            )
    return newest


def _values(where: str, message: CustomerFeatures, wanted: FeatureRows, at: int, findings: Findings) -> None:
    for kind, names, row, sent in (
        ("input", INPUT_NAMES, wanted.inputs[at], message.inputs),
        ("feature", FEATURE_NAMES, wanted.features[at], message.features),
    ):
        for name, value in zip(names, row.tolist(), strict=True):
            if not _same(sent.get(name), value):
                findings.add(Wrong.MISMATCH, f"{where}: {kind} {name} is {sent.get(name)}, recomputed {value}")


def _books(where: str, message: CustomerFeatures, events: list[Event], day: int, findings: Findings) -> None:
    """The naive oracle's word on what is published to the outside."""
    wanted = books(events, day)
    _compare_orders(where, int(message.inputs.get("total_orders") or 0), wanted.orders, findings)
    if wanted.orders:
        for name, cents in (("total_spending", wanted.gross_minor), ("monetary", wanted.net_minor)):
            if not _same(message.features.get(name), cents / 100):
                findings.add(
                    Wrong.MISMATCH, f"{where}: {name} is {message.features.get(name)}, published {cents / 100}"
                )


def _same(sent: float | None, value: float) -> bool:
    if sent is None:
        return math.isnan(value)
    return math.isclose(sent, value, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9)


# ---------------------------------------------------------------- predictions


def _predictions(
    records: Sequence[Record],
    newest_features: Mapping[str, CustomerFeatures],
    who: Identities,
    model: Model,
    findings: Findings,
) -> dict[str, Prediction]:
    """Each customer's newest prediction is what the model says of the newest features."""
    kept = _without_gone("predictions", records, who.gone, findings)
    decoded = [(name, decode_prediction(value)) for name, value in kept]
    newest: dict[str, Prediction] = _newest("predictions", decoded, findings)
    for name in newest_features.keys() - newest.keys():
        findings.add(Wrong.LOST, f"predictions: {name} has none")
    for name in newest.keys() - newest_features.keys():
        findings.add(Wrong.MISMATCH, f"predictions: {name} has one and no features")
    names = sorted(newest.keys() & newest_features.keys())
    outcomes = model.predict(feature_matrix([newest_features[name].features for name in names]))
    for at, name in enumerate(names):
        prediction, message = newest[name], newest_features[name]
        if prediction.feature_version < message.feature_version:
            findings.add(
                Wrong.STALE,
                f"predictions: {name} is of version {prediction.feature_version}, its features of"
                f" {message.feature_version}",
            )
            continue
        for what in ("feature_version", "as_of", "inputs", "features"):
            if getattr(prediction, what) != getattr(message, what):
                findings.add(Wrong.MISMATCH, f"predictions: {name}: {what} is not that of its features")
        for what in PUBLISHED_OUTPUTS:
            found, wanted = getattr(prediction, what), float(getattr(outcomes, what)[at])
            if not _same(found, wanted):
                findings.add(Wrong.MISMATCH, f"predictions: {name}: {what} is {found}, recomputed {wanted}")
        day = next_order_of(outcomes, at, message.as_of)
        if prediction.expected_next_order_at != day:
            findings.add(
                Wrong.MISMATCH,
                f"predictions: {name}: expected_next_order_at is {prediction.expected_next_order_at}, recomputed {day}",
            )
    findings.compared.update(prediction_records=len(records), predictions=len(names))
    return newest


# ---------------------------------------------------------------- MongoDB


def _documents(evidence: Evidence, predicted: Mapping[str, Prediction], who: Identities, findings: Findings) -> None:
    stored = {str(document["_id"]): document for document in evidence.customers}
    for name in predicted.keys() - stored.keys():
        findings.add(Wrong.LOST, f"customers: {name} is missing")
    for name in stored.keys() - predicted.keys():
        findings.add(Wrong.MISMATCH, f"customers: {name} is there and was never predicted")
    for name in stored.keys() & predicted.keys():
        _document(name, stored[name], predicted[name], findings)
    _history(evidence, who, findings)
    findings.compared.update(customer_documents=len(stored), history_documents=len(evidence.history))


def _document(name: str, document: Document, wanted: Prediction, findings: Findings) -> None:
    found = stored_prediction(document)
    if found.feature_version < wanted.feature_version:
        findings.add(
            Wrong.STALE, f"customers: {name} is of version {found.feature_version}, predicted {wanted.feature_version}"
        )
    elif found != wanted:
        differing = [each for each in Prediction.__struct_fields__ if getattr(found, each) != getattr(wanted, each)]
        findings.add(Wrong.MISMATCH, f"customers: {name} differs from its newest prediction in {', '.join(differing)}")


def _history(evidence: Evidence, who: Identities, findings: Findings) -> None:
    """Every prediction that was ever published of customers who are still there is in the history, once."""
    made: dict[str, tuple[str, int]] = {}
    for record in evidence.predictions:
        if record.value:
            prediction = decode_prediction_head(record.value)
            if prediction.customer_id in who.gone:
                continue
            made[prediction.prediction_id] = (prediction.customer_id, prediction.feature_version)
    kept: dict[str, tuple[str, int]] = defaultdict(lambda: ("", 0))
    for document in evidence.history:
        kept[str(document["_id"])] = (document["customer_id"], document["feature_version"])
    for prediction_id in made.keys() - kept.keys():
        findings.add(Wrong.MISMATCH, f"prediction_history: {made[prediction_id]} is missing")
    for prediction_id in kept.keys() - made.keys():
        findings.add(Wrong.MISMATCH, f"prediction_history: {kept[prediction_id]} was never published")
    for prediction_id in kept.keys() & made.keys():
        if kept[prediction_id] != made[prediction_id]:
            findings.add(Wrong.MISMATCH, f"prediction_history: {prediction_id} is another customer's or version's")
    again = [key for key, count in Counter(str(each["_id"]) for each in evidence.history).items() if count > 1]
    for key in again:
        findings.add(Wrong.DOUBLE_COUNTED, f"prediction_history: {key} is there twice")
