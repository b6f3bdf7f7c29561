"""From the seven inputs of a form to what is expected of such a customer: features, outcomes, rank, segment, warnings.

Pure but for the model, which is called once for all forms that are given together; a form's answer does not depend on
the others, to the last bit. The day is passed in. Must never tell a model what a form does not say: what would need the
orders one by one is unknown to it, as it was for half of the rows that it was trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.features import (
    DAYS_PER_MONTH,
    ENGINEERED,
    FEATURE_NAMES,
    INPUT_NAMES,
    date_of,
    features_of_inputs,
)
from domain.rfm_scores import score_high_is_good
from domain.segments import STRATEGY, classify
from schemas.http_api.predict import WhatIf
from services.inference.explain import Explainer
from services.inference.model import Model, Outcomes
from services.inference.outlook import next_order_at, usable
from services.inference.profile_model import ProfileModel
from services.inference.ranking import Ranking

Floats = NDArray[np.float64]

ENGINEERED_NAMES = FEATURE_NAMES[: len(ENGINEERED)]
_RATE_TOLERANCE = 0.1
"""Share by which purchase_frequency may miss what orders and lifetime say: people round."""
_RANGE_OF = {
    "customer_age": "customer_age",
    "purchase_frequency": "orders_per_month",
    "average_order_value": "average_order_value",
    "customer_lifetime_days": "customer_lifetime_days",
    "days_since_last_purchase": "recency_days",
    "total_orders": "frequency",
}
"""The feature whose range in training an input is held against; repeat orders are one fewer than orders."""

Ranges = Mapping[str, tuple[float, float] | None]
"""Least and greatest value in training by input; None where no customer of the training population had any."""


class Serving(NamedTuple):
    """What forms are answered with; replaced as a whole."""

    model: Model
    ranking: Ranking
    customers: int | None
    """How many the ranking is made of; None where it is that of the bundle's reference population."""
    ranges: Ranges
    explainer: Explainer | None
    """None where the bundle keeps nobody to compare with."""
    profile: ProfileModel | None


class Answered(NamedTuple):
    """The answer to one form: fields of WhatIfPrediction but prediction_id, stored and explanation."""

    fields: dict[str, Any]
    outcomes: dict[str, float]
    """What the model said, before anything was made of it."""
    row: Floats
    """The features that the model was given, (len(FEATURE_NAMES),)."""
    serving: Serving


class NoPrediction(Exception):
    """The model gives no finite number for a form."""


def inputs_of(forms: Sequence[WhatIf]) -> Floats:
    """The forms as rows, (n, 7), in INPUT_NAMES order; an unknown age is NaN."""
    return np.array([form_row(form) for form in forms], dtype=np.float64).reshape(len(forms), len(INPUT_NAMES))


def form_row(form: WhatIf) -> list[float]:
    """One form, in INPUT_NAMES order."""
    return [
        np.nan if form.customer_age is None else form.customer_age,
        form.purchase_frequency,
        form.average_order_value,
        float(form.total_orders),
        form.customer_lifetime_days,
        form.days_since_last_purchase,
        float(form.frequency_score),
    ]


def matrix_of(inputs: Floats, serving: Serving, as_of_day: int) -> Floats:
    """What the model is given, (n, len(FEATURE_NAMES)): scores are by its own borders."""
    return features_of_inputs(inputs, serving.model.metadata.quintiles, as_of_day)


def answers(inputs: Floats, serving: Serving, as_of_day: int) -> list[Answered | NoPrediction]:
    """The answers to forms, (n, 7) in INPUT_NAMES order, as of a day (days since 1970, UTC)."""
    matrix = matrix_of(inputs, serving, as_of_day)
    return list(told(inputs, matrix, serving.model.predict(matrix), serving, as_of_day))


def told(
    inputs: Floats, matrix: Floats, outcomes: Outcomes, serving: Serving, as_of_day: int
) -> Iterator[Answered | NoPrediction]:
    """What is said of each form, by the outcomes that the model gave for the matrix."""
    metadata, ranking = serving.model.metadata, serving.ranking
    as_of = date_of(as_of_day).isoformat()
    good = usable(outcomes)
    percentiles = ranking.percentile(outcomes.expected_value)
    profile = None if serving.profile is None else serving.profile.predict(inputs)
    scores = score_high_is_good(inputs[:, INPUT_NAMES.index("total_orders")] - 1.0, metadata.quintiles.frequency)
    columns = zip(*(column.tolist() for column in outcomes), strict=True)
    rows = zip(inputs.tolist(), matrix[:, : len(ENGINEERED)].tolist(), columns, strict=True)
    for at, (given, engineered, (value, orders, active, p10, p50, p90, next_days)) in enumerate(rows):
        if not good[at]:
            yield NoPrediction(f"model {serving.model.version} gives no finite prediction for this form")
            continue
        segment = classify(value, ranking.thresholds)
        historical = engineered[_MONETARY]
        yield Answered(
            {
                "as_of": as_of,
                "horizon_days": metadata.horizon_days,
                "currency": metadata.currency,
                "expected_value": value,
                "value_p10": p10,
                "value_p50": p50,
                "value_p90": p90,
                "expected_orders": orders,
                "p_active": active,
                "churn_risk": 1.0 - active,
                "historical_value": historical,
                "total_value": historical + value,
                "expected_next_order_at": next_order_at(as_of, active, next_days),
                "percentile": float(percentiles[at]),
                "segment": segment.value,
                "strategy": STRATEGY[segment],
                "segment_thresholds": list(ranking.thresholds),
                "model_version": serving.model.version,
                "inputs": _known(INPUT_NAMES, given),
                "features": _known(ENGINEERED_NAMES, engineered),
                "profile_value": None if profile is None else max(0.0, float(profile[at])),
                "profile_model_version": None if serving.profile is None else serving.profile.head.model_version,
                "warnings": list(_warnings(given, float(scores[at]), serving)),
            },
            {
                "expected_value": value,
                "expected_orders": orders,
                "p_active": active,
                "value_p10": p10,
                "value_p50": p50,
                "value_p90": p90,
                "next_order_days": next_days,
            },
            matrix[at],
            serving,
        )


_MONETARY = ENGINEERED_NAMES.index("monetary")


def _known(names: Sequence[str], values: list[float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in zip(names, values, strict=True)}


def _warnings(given: list[float], score: float, serving: Serving) -> Iterator[str]:
    """What does not fit together in a form, or is unlike what the model has seen. score: that its orders have."""
    _, per_month, _, orders, lifetime, since_last, frequency_score = given
    expected = orders * DAYS_PER_MONTH / max(lifetime, DAYS_PER_MONTH)
    if abs(per_month - expected) > max(_RATE_TOLERANCE * expected, 0.005):
        yield f"purchase_frequency is {per_month:g}, but {orders:g} orders in {lifetime:g} days are {expected:.3g}"
    if frequency_score != score:
        yield f"frequency_score is {frequency_score:g}, but {orders:g} orders score {score:g} among all customers"
    if orders > 1 and since_last == lifetime:
        yield "days_since_last_purchase equals customer_lifetime_days: all orders were on one day"
    for name, value in zip(INPUT_NAMES, given, strict=True):
        if value != value or name not in serving.ranges:
            continue
        within = serving.ranges[name]
        if within is None:
            yield f"{name} was unknown in training, so it makes no difference"
        elif not within[0] <= value <= within[1]:
            yield f"{name} is {value:g}, beyond what the model was trained on: {within[0]:g} to {within[1]:g}"


def ranges_of(metadata: Mapping[str, Any]) -> Ranges:
    """The ranges of inputs in training, as a bundle's metadata tells them; inputs that it does not tell of are left
    out."""
    reference = metadata.get("reference")
    found: dict[str, tuple[float, float] | None] = {}
    for name, feature in _RANGE_OF.items():
        spread = reference.get(feature) if isinstance(reference, Mapping) else None
        deciles = spread.get("deciles") if isinstance(spread, Mapping) else None
        if not isinstance(deciles, Sequence) or isinstance(deciles, str):
            continue
        more = 1.0 if name == "total_orders" else 0.0
        known = [float(each) + more for each in deciles if each is not None]
        found[name] = (min(known), max(known)) if known else None
    return found
