"""From candidates to prediction messages: every field against the message it was made from, and determinism."""

import msgspec
import numpy as np
import pytest

from domain.features import FEATURE_NAMES, engineer
from domain.segments import ASCENDING, STRATEGY, Segment, Thresholds, classify
from schemas.customer_features import CustomerFeatures, Ledger, decode_features_view, encode_features
from schemas.predictions import Prediction, decode_prediction, encode_prediction, prediction_id
from services.inference.model import Model, Outcomes, load_model
from services.inference.outlook import next_order_at, usable
from services.inference.ranking import bundle_ranking
from services.scorer.intake import Candidate
from services.scorer.scoring import ModelFacts, predictions, prepare
from tests.bundles import HORIZON_DAYS, OTHER_QUINTILES, QUINTILES, feature_messages, write_bundle

RANKING = bundle_ranking(Thresholds(40.0, 90.0, 200.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models")
    return load_model(folder / write_bundle(folder), "USD")


def candidates(messages: list[CustomerFeatures]) -> list[Candidate]:
    return [Candidate(decode_features_view(encode_features(each)), each.features, 0, 0, 0) for each in messages]


def score(model: Model, messages: list[CustomerFeatures], previous: list[Segment | None] | None = None) -> list[bytes]:
    rows, matrix = prepare(candidates(messages), model.metadata.quintiles)
    facts = ModelFacts(model.version, model.metadata.horizon_days, model.metadata.currency)
    found = predictions(
        rows, matrix, model.predict(matrix), previous or [None] * len(rows), ranking=RANKING, model=facts
    )
    return [encode_prediction(each) for each in found]


def test_a_prediction_says_what_it_was_made_from_and_by(model: Model) -> None:
    messages = feature_messages(200)
    for message, value in zip(messages, score(model, messages), strict=True):
        made: Prediction = decode_prediction(value)
        assert made.prediction_id == prediction_id(message.customer_id, message.feature_version, model.version)
        assert (made.customer_id, made.feature_version, made.as_of) == (
            message.customer_id,
            message.feature_version,
            message.as_of,
        )
        assert (made.inputs, made.features) == (message.inputs, message.features)
        assert made.historical_value == message.features["monetary"]
        assert (made.model_version, made.horizon_days, made.currency) == (model.version, HORIZON_DAYS, "USD")
        assert made.segment == classify(made.expected_value, RANKING.thresholds).value
        assert made.strategy == STRATEGY[Segment(made.segment)]
        assert made.segment_thresholds == RANKING.thresholds
        assert made.percentile == RANKING.percentile(np.array([made.expected_value]))[0]
        assert 0 <= made.value_p10 <= made.value_p50 <= made.value_p90


def test_a_prediction_passes_on_the_ledger_of_its_features(model: Model) -> None:
    known, unknown = feature_messages(2)
    ledger = Ledger(3, 120.5, 80.0, refunded=40.5, waiting_refunds=9.99, waiting_refund_count=1)
    with_ledger = msgspec.structs.replace(known, ledger=ledger)
    first, second = (decode_prediction(value) for value in score(model, [with_ledger, unknown]))
    assert first.ledger == ledger
    assert second.ledger is None


def test_the_same_input_gives_the_same_bytes_in_any_batch(model: Model) -> None:
    messages = feature_messages(60)
    assert score(model, messages) == [value for message in messages for value in score(model, [message])]


def test_a_previous_segment_is_named_and_kept_within_the_hysteresis(model: Model) -> None:
    messages = feature_messages(100)
    for was in ASCENDING:
        for value in score(model, messages, [was] * 100):
            made = decode_prediction(value)
            assert made.previous_segment == was.value
            assert made.segment == classify(made.expected_value, RANKING.thresholds, was).value


def test_scores_by_other_quintiles_are_made_anew_everywhere(model: Model) -> None:
    messages = feature_messages(120)
    foreign = feature_messages(120, quintiles=OTHER_QUINTILES)
    assert any(a.features["rfm_score"] != b.features["rfm_score"] for a, b in zip(messages, foreign, strict=True))
    mixed = [pair[row % 2] for row, pair in enumerate(zip(messages, foreign, strict=True))]
    rows, matrix = prepare(candidates(mixed), QUINTILES)
    by_name = dict(zip(FEATURE_NAMES, matrix.T, strict=True))
    np.testing.assert_array_equal(
        by_name["rfm_score"], [np.nan if (cell := m.features["rfm_score"]) is None else cell for m in messages]
    )
    for message, row in zip(messages, rows, strict=True):
        assert msgspec.json.decode(row.features) == message.features
        assert msgspec.json.decode(row.inputs) == message.inputs


def test_rescoring_agrees_with_the_definition_in_the_domain(model: Model) -> None:
    foreign = [
        each for each in feature_messages(50, quintiles=OTHER_QUINTILES) if each.features["monetary"] is not None
    ]
    _, matrix = prepare(candidates(foreign), QUINTILES)
    names = list(foreign[0].inputs)
    inputs = np.array([[np.nan if each.inputs[n] is None else each.inputs[n] for n in names] for each in foreign])
    inputs[:, names.index("frequency_score")] = matrix[:, FEATURE_NAMES.index("frequency_score")]
    monetary = matrix[:, FEATURE_NAMES.index("monetary")]
    np.testing.assert_allclose(matrix[:, :18], engineer(inputs, QUINTILES, monetary), rtol=1e-12)


def test_rows_without_a_finite_outcome_are_not_usable() -> None:
    columns = [np.array([0.0, 1.0, 2.0]) for _ in range(7)]
    columns[2][1], columns[5][2] = np.nan, np.inf
    assert usable(Outcomes(*columns)).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("p_active", "days", "expected"),
    [(0.2, 45.0, "2024-04-13"), (1.0, 0.4, "2024-02-28"), (0.199, 45.0, None), (0.0, 0.0, None)],
)
def test_the_next_order_has_a_date_only_where_one_is_likely(p_active: float, days: float, expected: str | None) -> None:
    assert next_order_at("2024-02-28", p_active, days) == expected


def test_the_next_order_of_the_last_year_there_is_has_no_date() -> None:
    assert next_order_at("9999-12-31", 0.9, 90.0) is None
