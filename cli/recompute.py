"""Is what MongoDB holds what the orders file says? Every customer, feature by feature and prediction by prediction.

A batch recomputation from the file, through the same domain code but none of the streaming path: fold all events of a
customer, compute the features as of the stored day, run the model, and compare.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.customer import Event, fold, has_ordered
from domain.features import FEATURE_NAMES, INPUT_NAMES, day_of, features
from domain.segments import STRATEGY, Segment, Thresholds, classify
from schemas.currencies import minor_per_major
from schemas.model_bundle import OUTPUT_NAMES
from services.inference.model import Model, Outcomes
from services.inference.outlook import next_order_at

RELATIVE_TOLERANCE = 1e-9
"""Features and predictions come from the same arithmetic: only a JSON or BSON round trip lies between."""
CHUNK_CUSTOMERS = 5000
PUBLISHED_OUTPUTS = tuple(name for name in OUTPUT_NAMES if name != "next_order_days")
"""Outputs of the model that a prediction holds as they are. The remaining one becomes its expected_next_order_at."""


@dataclass
class Comparison:
    """Outcome of the comparison."""

    customers: int = 0
    missing: list[str] = field(default_factory=list)
    mismatches: int = 0
    examples: list[str] = field(default_factory=list)

    def differs(self, customer: str, what: str, stored: object, wanted: object) -> None:
        """Count a difference and keep the first few to show."""
        self.mismatches += 1
        if len(self.examples) < 10:
            self.examples.append(f"customer {customer}: {what} is {stored!r}, recomputed {wanted!r}")


def compare(events: Mapping[str, list[Event]], documents: Iterable[dict[str, Any]], model: Model) -> Comparison:
    """Compare the documents of `customers` with a recomputation from all valid events, by customer.

    Customers in MongoDB that have no event in the file are not looked at. A customer of the file that MongoDB lacks is
    a mismatch.
    """
    outcome = Comparison()
    unseen = set(events)
    chunk: list[dict[str, Any]] = []
    for document in documents:
        if document["_id"] not in events:
            continue
        unseen.discard(document["_id"])
        chunk.append(document)
        if len(chunk) == CHUNK_CUSTOMERS:
            _compare_chunk(chunk, events, model, outcome)
            chunk = []
    _compare_chunk(chunk, events, model, outcome)
    outcome.missing = sorted(customer for customer in unseen if has_ordered(fold(events[customer])))
    outcome.mismatches += len(outcome.missing)
    return outcome


def _compare_chunk(
    documents: list[dict[str, Any]], events: Mapping[str, list[Event]], model: Model, outcome: Comparison
) -> None:
    if not documents:
        return
    states = [fold(events[document["_id"]]) for document in documents]
    days = [day_of_iso(document["as_of"]) for document in documents]
    wanted = features(states, days, model.metadata.quintiles, minor_per_major(model.metadata.currency))
    predicted = model.predict(wanted.features)
    for row, document in enumerate(documents):
        customer = document["_id"]
        outcome.customers += 1
        _compare_values(outcome, customer, "input", INPUT_NAMES, wanted.inputs[row].tolist(), document["inputs"])
        _compare_values(
            outcome, customer, "feature", FEATURE_NAMES, wanted.features[row].tolist(), document["features"]
        )
        outputs = [float(getattr(predicted, name)[row]) for name in PUBLISHED_OUTPUTS]
        _compare_values(outcome, customer, "prediction", PUBLISHED_OUTPUTS, outputs, document["prediction"])
        stored, expected = (
            document["prediction"]["expected_next_order_at"],
            next_order_of(predicted, row, document["as_of"]),
        )
        if stored != expected:
            outcome.differs(customer, "prediction expected_next_order_at", stored, expected)
        _compare_segment(outcome, customer, document["prediction"], model)


def day_of_iso(date: str) -> int:
    """Days since 1970 of YYYY-MM-DD."""
    from datetime import date as Date  # noqa: N812

    return day_of(Date.fromisoformat(date))


def next_order_of(outcomes: Outcomes, row: int, as_of: str) -> str | None:
    """The expected_next_order_at, YYYY-MM-DD, that a prediction as of a day must have by the model's outcomes of a row.

    None where no order is to be expected.
    """
    return next_order_at(as_of, float(outcomes.p_active[row]), float(outcomes.next_order_days[row]))


def _compare_values(
    outcome: Comparison,
    customer: str,
    kind: str,
    names: tuple[str, ...],
    wanted: list[float],
    stored: Mapping[str, float | None],
) -> None:
    for name, value in zip(names, wanted, strict=True):
        found = stored.get(name)
        same = math.isnan(value) if found is None else math.isclose(found, value, rel_tol=RELATIVE_TOLERANCE)
        if not same:
            outcome.differs(customer, f"{kind} {name}", found, value)


def _compare_segment(outcome: Comparison, customer: str, prediction: Mapping[str, Any], model: Model) -> None:
    previous = prediction["previous_segment"]
    segment = classify(
        prediction["expected_value"],
        Thresholds(*prediction["segment_thresholds"]),
        None if previous is None else Segment(previous),
    )
    for name, value in (
        ("segment", segment.value),
        ("strategy", STRATEGY[segment]),
        ("model_version", model.version),
        ("horizon_days", model.metadata.horizon_days),
    ):
        if prediction[name] != value:
            outcome.differs(customer, name, prediction[name], value)
