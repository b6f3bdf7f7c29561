"""From features and the model's outcomes to predictions: ranks, segments, ids. Shared by the stream and by batch use.

Pure but for the model, which is called with a matrix. The same features, model, thresholds and previous segment always
give the same bytes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.features import FEATURE_NAMES
from domain.rfm_scores import Quintiles, rfm_cell, score_high_is_good, score_low_is_good
from domain.segments import STRATEGY, Segment, classify
from schemas.customer_features import Values, decode_values, feature_matrix
from schemas.predictions import PredictionToSend, prediction_id
from services.inference.outlook import OutcomeColumns, next_order_at
from services.inference.ranking import Ranking
from services.scorer.intake import Candidate

Floats = NDArray[np.float64]

_COLUMN = {name: index for index, name in enumerate(FEATURE_NAMES)}
_MONETARY = _COLUMN["monetary"]
_SCORES = ("recency_score", "frequency_score", "monetary_score", "rfm_score")


class ModelFacts(NamedTuple):
    """What a prediction says of its model."""

    model_version: str
    horizon_days: int
    currency: str


class Row(msgspec.Struct, frozen=True, gc=False):
    """One customer to score: the message, and its maps as they are passed on."""

    candidate: Candidate
    inputs: msgspec.Raw
    features: msgspec.Raw


def prepare(candidates: Sequence[Candidate], quintiles: Quintiles) -> tuple[list[Row], Floats]:
    """Rows and their matrix (n, len(FEATURE_NAMES)), with all scores by the model's own quintiles.

    A feature worker that follows the pointer a moment later still sends scores by the former model's borders.
    """
    matrix = feature_matrix([candidate.features for candidate in candidates])
    fingerprint = quintiles.fingerprint
    differing = [at for at, candidate in enumerate(candidates) if candidate.view.quintiles != fingerprint]
    rows = [Row(each, each.view.inputs, each.view.features) for each in candidates]
    if differing:
        scores = _scores(matrix[differing], quintiles)
        matrix[np.ix_(differing, [_COLUMN[name] for name in _SCORES])] = scores
        for at, row_scores in zip(differing, scores.tolist(), strict=True):
            rows[at] = _rescored(candidates[at], dict(zip(_SCORES, row_scores, strict=True)))
    return rows, matrix


def _scores(matrix: Floats, quintiles: Quintiles) -> Floats:
    recency = score_low_is_good(matrix[:, _COLUMN["recency_days"]], quintiles.recency_days)
    frequency = score_high_is_good(matrix[:, _COLUMN["frequency"]], quintiles.frequency)
    monetary = score_high_is_good(matrix[:, _MONETARY], quintiles.monetary)
    return np.column_stack([recency, frequency, monetary, rfm_cell(recency, frequency, monetary)])


def _rescored(candidate: Candidate, scores: dict[str, float]) -> Row:
    """The row with its scores replaced; NaN is written as null."""
    features: Values = {**candidate.features, **scores}
    inputs: Values = {**decode_values(candidate.view.inputs), "frequency_score": scores["frequency_score"]}
    return Row(candidate, msgspec.Raw(msgspec.json.encode(inputs)), msgspec.Raw(msgspec.json.encode(features)))


def predictions(
    rows: Sequence[Row],
    matrix: Floats,
    outcomes: OutcomeColumns,
    previous: Sequence[Segment | None],
    *,
    ranking: Ranking,
    model: ModelFacts,
) -> list[PredictionToSend]:
    """The messages of n customers whose outcomes are usable.

    previous: each customer's segment by older features, or None; the segment keeps to it within the hysteresis, so that
    near a threshold it may differ from the band of `percentile`.
    """
    columns = [
        outcomes.expected_value.tolist(),
        outcomes.expected_orders.tolist(),
        outcomes.p_active.tolist(),
        outcomes.value_p10.tolist(),
        outcomes.value_p50.tolist(),
        outcomes.value_p90.tolist(),
        outcomes.next_order_days.tolist(),
        ranking.percentile(outcomes.expected_value).tolist(),
        matrix[:, _MONETARY].tolist(),
    ]
    found = []
    for row, was, value, orders, active, p10, p50, p90, next_days, percentile, monetary in zip(
        rows, previous, *columns, strict=True
    ):
        view = row.candidate.view
        segment = classify(value, ranking.thresholds, was)
        found.append(
            PredictionToSend(
                prediction_id=prediction_id(view.customer_id, view.feature_version, model.model_version),
                customer_id=view.customer_id,
                feature_version=view.feature_version,
                as_of=view.as_of,
                horizon_days=model.horizon_days,
                currency=model.currency,
                expected_value=value,
                expected_orders=orders,
                p_active=active,
                value_p10=p10,
                value_p50=p50,
                value_p90=p90,
                historical_value=None if monetary != monetary else monetary,
                expected_next_order_at=next_order_at(view.as_of, active, next_days),
                percentile=percentile,
                segment=segment.value,
                previous_segment=None if was is None else was.value,
                strategy=STRATEGY[segment],
                segment_thresholds=ranking.thresholds,
                model_version=model.model_version,
                inputs=row.inputs,
                features=row.features,
                ledger=view.ledger,
            )
        )
    return found
