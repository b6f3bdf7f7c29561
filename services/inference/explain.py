"""Why a prediction is what it is: what each fact about the customer adds to what is expected of typical customers.

Base value + Σ contributions = the model's prediction, checked for every explanation. The facts are those of
domain.facts, their shares Owen's values (domain.attribution): no sampling, so the same row and bundle give the same
numbers. Knows nothing of the model but how to call it; must never explain a number that the model did not give.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain import facts
from domain.attribution import Attribution, owen_values
from domain.features import FEATURE_NAMES, FEATURES
from domain.rfm_scores import Quintiles, rfm_cell, score_high_is_good, score_low_is_good
from schemas.model_bundle import METADATA_FILE, OUTPUT_NAMES
from services.runtime.shutdown import KnownProblem

Floats = NDArray[np.float64]

SUM_TOLERANCE = 1e-9
"""Most that base and contributions may miss the prediction by, relative to the largest worth of a mix."""
_AT = {name: place for place, name in enumerate(FEATURE_NAMES)}
_UNIT = {feature.name: feature.unit for feature in FEATURES}


class _Words(NamedTuple):
    label: str
    shown: tuple[tuple[str, str], ...]
    """Features that tell the fact, the foremost first, each in plain words."""


UNION_LABELS = {
    facts.TIMING: "When and how often they buy",
    facts.MONEY: "What they spend",
    facts.PERSON: "Who they are",
    facts.REST: "Further features",
}
_WORDS = {
    facts.TENURE: _Words("Time as a customer", (("customer_lifetime_days", "days since the first order"),)),
    facts.ORDERS: _Words(
        "Number of orders", (("frequency", "orders after the first"), ("orders_per_month", "orders a month"))
    ),
    facts.LAST_ORDER: _Words("Time since the last order", (("recency_days", "days since the last order"),)),
    facts.PACE: _Words(
        "Recent pace, against before",
        (
            ("orders_365d", "orders in the last 365 days"),
            ("orders_90d", "orders in the last 90 days"),
            ("net_spend_365d", "net spend in the last 365 days"),
            ("net_spend_90d", "net spend in the last 90 days"),
        ),
    ),
    facts.RHYTHM: _Words(
        "Regularity of the gaps between orders",
        (("gap_std_days", "spread of the gaps"), ("last_gap_days", "last gap"), ("btyd_litt", "sum of log gaps")),
    ),
    facts.ORDER_VALUE: _Words("Average order value", (("average_order_value", "average order"),)),
    facts.ORDER_SPREAD: _Words(
        "Largest and last order, against the average",
        (
            ("largest_order_value", "largest order"),
            ("last_order_value", "last order"),
            ("order_value_std", "spread of order values"),
        ),
    ),
    facts.REFUNDS: _Words("Refunds", (("refund_share", "refunded share of spend"),)),
    facts.AGE: _Words("Age", (("customer_age", "years old"),)),
    facts.OTHER: _Words("Further features", tuple((name, name) for name in facts.LITERAL)),
}


class Shown(msgspec.Struct, frozen=True):
    """A feature that tells a fact: the customer's value, and the median of the typical customers'; None is unknown."""

    feature: str
    label: str
    unit: str
    value: float | None
    typical: float | None


class Contribution(msgspec.Struct, frozen=True):
    """What a fact adds to the prediction, in the explanation's unit; negative where it takes away."""

    fact: str
    label: str
    union: str
    amount: float
    features: list[Shown]


class UnionContribution(msgspec.Struct, frozen=True):
    """What the facts that speak of the same thing add together: by Shapley's rule between the unions."""

    union: str
    label: str
    amount: float


class Explanation(msgspec.Struct, frozen=True):
    """base + the sum of the contributions' amounts = prediction; also of the unions' amounts."""

    customer_id: str | None
    as_of: str | None
    """UTC date of the features, YYYY-MM-DD."""
    model_version: str
    horizon_days: int
    output: str
    """Which of the model's outputs."""
    unit: str
    """ISO 4217 code, "orders", "probability" or "days"."""
    prediction: float
    base: float
    """What the model says of typical customers, on average."""
    unions: list[UnionContribution]
    """The largest first, by size."""
    contributions: list[Contribution]
    """The largest first, by size."""
    sum_error: float
    """base + Σ contributions − prediction: rounding."""


class _Facts(Protocol):
    @property
    def model_version(self) -> str: ...
    @property
    def horizon_days(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def quintiles(self) -> Quintiles: ...


class Predicts(Protocol):
    """A model, as services.inference.model.Model: its outcomes are named as schemas.model_bundle.OUTPUT_NAMES."""

    @property
    def metadata(self) -> _Facts: ...

    def predict(self, matrix: Floats) -> object:
        """Outcomes of n customers, attributes of shape (n,)."""


class Explainer:
    """Explains predictions of one bundle. Immutable; may be called from several threads."""

    def __init__(self, model: Predicts, references: Floats) -> None:
        """references: (R, features) of typical customers; see references_of()."""
        if len(references) == 0:
            raise ValueError("an explanation needs somebody to compare with")
        self._model = model
        self._references = references

    def explain(
        self,
        row: Floats,
        outputs: Sequence[str] = ("expected_value",),
        *,
        customer_id: str | None = None,
        as_of: str | None = None,
    ) -> list[Explanation]:
        """One explanation an output, of one customer's features, (features,) in FEATURE_NAMES order; NaN is unknown.

        A row of a what-if call, without streaming extras, is compared with typical customers described as it is.
        One call of the model, however many outputs. Raises KnownProblem if the model gives no usable number.
        """
        worths = np.zeros((0, len(outputs)))

        def game(coalitions: NDArray[np.bool_]) -> Floats:
            nonlocal worths
            worths = self._worths(row, coalitions, outputs)
            return worths

        found = owen_values(game, _UNIONS)
        shown = self._shown(row)
        explanations = []
        for at, output in enumerate(outputs):
            of_output = Attribution(found.base[at], found.values[:, at], found.total[at])
            error = math.fsum([of_output.base, *of_output.values, -of_output.total])
            if abs(error) > SUM_TOLERANCE * np.abs(worths[:, at]).max():
                raise ArithmeticError(f"base and contributions miss the {output} of {of_output.total} by {error}")
            explanations.append(self._explanation(of_output, error, output, shown, customer_id, as_of))
        return explanations

    def _worths(self, row: Floats, coalitions: NDArray[np.bool_], outputs: Sequence[str]) -> Floats:
        """What the model says of each coalition, (m, outputs): the mean over the typical customers."""
        mixed = facts.mix(row, self._references, coalitions, self._model.metadata.quintiles)
        outcomes = self._model.predict(mixed.rows)
        columns = np.column_stack([np.asarray(getattr(outcomes, name), dtype=np.float64) for name in outputs])
        if not np.isfinite(columns).all():
            raise KnownProblem(f"model {self._model.metadata.model_version} gives no finite number for this customer")
        each: Floats = columns[mixed.place]  # (m, references, outputs)
        first = each[:, 0]
        # Around the first, so that the mean of equal numbers is that number, to the last bit.
        return np.asarray(first + (each - first[:, np.newaxis]).mean(axis=1))

    def _shown(self, row: Floats) -> dict[str, list[Shown]]:
        found = {}
        for fact in facts.FACT_NAMES:
            lines = []
            for feature, label in _WORDS[fact].shown:
                theirs = self._references[:, _AT[feature]]
                there = theirs[~np.isnan(theirs)]
                typical = float(np.median(there)) if len(there) else None
                value = float(row[_AT[feature]])
                unit = self._model.metadata.currency if _UNIT[feature] == "currency" else _UNIT[feature]
                lines.append(Shown(feature, label, unit, None if math.isnan(value) else value, typical))
            found[fact] = lines
        return found

    def _explanation(
        self,
        found: Attribution,
        error: float,
        output: str,
        shown: dict[str, list[Shown]],
        customer_id: str | None,
        as_of: str | None,
    ) -> Explanation:
        base, prediction = float(found.base), float(found.total)
        amounts = dict(zip(facts.FACT_NAMES, (float(amount) + 0.0 for amount in found.values), strict=True))
        contributions = [
            Contribution(fact, _WORDS[fact].label, union, amounts[fact], shown[fact])
            for union, members in facts.unions().items()
            for fact in members
        ]
        unions = [
            UnionContribution(union, UNION_LABELS[union], math.fsum(amounts[fact] for fact in members))
            for union, members in facts.unions().items()
        ]
        metadata = self._model.metadata
        return Explanation(
            customer_id=customer_id,
            as_of=as_of,
            model_version=metadata.model_version,
            horizon_days=metadata.horizon_days,
            output=output,
            unit=unit_of(output, metadata.currency),
            prediction=prediction,
            base=base,
            unions=sorted(unions, key=lambda each: -abs(each.amount)),
            contributions=sorted(contributions, key=lambda each: -abs(each.amount)),
            sum_error=error,
        )


_UNIT_OF_OUTPUT = {"expected_orders": "orders", "p_active": "probability", "next_order_days": "days"}
_UNIONS = [[facts.FACT_NAMES.index(fact) for fact in members] for members in facts.unions().values()]


def unit_of(output: str, currency: str) -> str:
    """The unit of one of the model's outputs."""
    if output not in OUTPUT_NAMES:
        raise ValueError(f"{output} is no output of the model: {', '.join(OUTPUT_NAMES)}")
    return _UNIT_OF_OUTPUT.get(output, currency)


def rescored(row: Floats, quintiles: Quintiles) -> Floats:
    """A customer's features with the four scores by these borders: those that are stored may be by another bundle's."""
    row = row.copy()
    recency = score_low_is_good(row[_AT["recency_days"]], quintiles.recency_days)
    frequency = score_high_is_good(row[_AT["frequency"]], quintiles.frequency)
    monetary = score_high_is_good(row[_AT["monetary"]], quintiles.monetary)
    row[_AT["recency_score"]], row[_AT["frequency_score"]] = recency, frequency
    row[_AT["monetary_score"]], row[_AT["rfm_score"]] = monetary, rfm_cell(recency, frequency, monetary)
    return row


# ---------------------------------------------------------------- the customers to compare with


class _Spread(msgspec.Struct, frozen=True):
    deciles: list[float | None] = []
    edges: list[float] = []
    """Upper edges of the bins but the last; `shares` of the customers in each."""
    shares: list[float] = []
    missing_share: float = 0.0

    @property
    def median(self) -> float | None:
        """About the median of those who have the feature; None where most have not."""
        if self.missing_share > 0.5:
            return None
        if self.deciles:
            return self.deciles[len(self.deciles) // 2]
        reached = np.cumsum(self.shares) >= sum(self.shares) / 2
        return self.edges[min(int(np.argmax(reached)), len(self.edges) - 1)] if self.edges and self.shares else None


class _Metadata(msgspec.Struct, frozen=True):
    explanation_reference: list[list[float | None]] | None = None
    reference: dict[str, _Spread] = {}


def references_of(bundle: Path) -> Floats:
    """The typical customers that a bundle's metadata keeps, (R, features); KnownProblem if it keeps none.

    Those of `explanation_reference` (domain.facts.reference_rows); in a bundle from before there was such a field, one
    customer with the median of each feature, from `reference`.
    """
    try:
        metadata = msgspec.json.decode((bundle / METADATA_FILE).read_bytes(), type=_Metadata)
    except (OSError, msgspec.DecodeError) as error:
        raise KnownProblem(f"{bundle / METADATA_FILE} holds nothing to compare a customer with: {error}") from None
    medians = [metadata.reference.get(name, _Spread()).median for name in FEATURE_NAMES]
    rows = metadata.explanation_reference or [medians]
    if any(len(row) != len(FEATURE_NAMES) for row in rows) or all(value is None for row in rows for value in row):
        raise KnownProblem(f"bundle {bundle} does not say what a typical customer is: train again with `./clv train`")
    found = np.array(rows, dtype=np.float64)
    return found if metadata.explanation_reference else facts.of_medians(found[0])
