"""What is said of a form: sound for every form, by that form alone, and by the day that it describes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.features import ENGINEERED, FEATURE_NAMES, INPUT_NAMES, day_of, engineer, features_of_inputs
from domain.segments import ASCENDING, STRATEGY, Thresholds
from schemas.http_api.predict import WhatIf, WhatIfPrediction
from services.api.forms.what_if import Answered, NoPrediction, Serving, answers, inputs_of, matrix_of, ranges_of
from services.inference.model import Outcomes
from services.inference.ranking import bundle_ranking
from tests.bundles import HORIZON_DAYS, QUINTILES
from tests.effort import tries
from tests.unit.api.forms import FORM, INVALID, serving_in, valid_forms

DAY = 20_000


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return serving_in(tmp_path_factory.mktemp("models"))


def answered(serving: Serving, *forms: dict, day: int = DAY) -> list[Answered]:
    found = answers(inputs_of([WhatIf.model_validate(each) for each in forms]), serving, day)
    assert all(isinstance(each, Answered) for each in found)
    return found  # type: ignore[return-value]


@settings(max_examples=tries(300), deadline=None)
@given(forms=st.lists(valid_forms(), min_size=1, max_size=20))
def test_every_valid_form_gets_a_sound_prediction(serving, forms):
    for form, reply in zip(forms, answered(serving, *forms), strict=True):
        found = WhatIfPrediction.model_validate(
            json.loads(json.dumps({**reply.fields, "prediction_id": "p", "stored": False}, allow_nan=False))
        )
        assert 0 <= found.value_p10 <= found.value_p50 <= found.value_p90
        assert 0 <= found.p_active <= 1
        assert found.churn_risk == 1 - found.p_active
        assert 0 <= found.percentile <= 100
        assert found.expected_value >= 0
        assert found.historical_value == form["total_orders"] * form["average_order_value"]
        assert found.total_value == found.historical_value + found.expected_value
        band = sum(found.expected_value >= border for border in found.segment_thresholds)
        assert found.segment == ASCENDING[band].value
        assert found.strategy == STRATEGY[ASCENDING[band]]
        assert found.horizon_days == HORIZON_DAYS
        assert found.model_version == serving.model.version


@settings(max_examples=tries(50), deadline=None)
@given(forms=st.lists(valid_forms(), min_size=2, max_size=30))
def test_an_answer_is_the_same_alone_and_in_company_to_the_last_bit(serving, forms):
    together = answered(serving, *forms)
    alone = [answered(serving, form)[0] for form in forms]
    assert [each.fields for each in together] == [each.fields for each in alone]
    assert [each.outcomes for each in together] == [each.outcomes for each in alone]


@settings(max_examples=tries(200), deadline=None)
@given(data=st.data(), name=st.sampled_from(INPUT_NAMES))
def test_every_form_with_one_wrong_field_is_refused_and_the_field_named(data, name):
    wrong = data.draw(INVALID[name])
    with pytest.raises(ValidationError) as refused:
        WhatIf.model_validate_json(json.dumps({**FORM, name: wrong}))
    assert {each["loc"][0] for each in refused.value.errors()} >= {name}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"days_since_last_purchase": 341}, "days_since_last_purchase"),
        ({"total_orders": 1}, "days_since_last_purchase"),
        ({"shoe_size": 43}, "shoe_size"),
    ],
)
def test_forms_that_contradict_themselves_are_refused_naming_a_field(changes, field):
    with pytest.raises(ValidationError) as refused:
        WhatIf.model_validate({**FORM, **changes})
    assert [each["loc"] for each in refused.value.errors()] == [(field,)]


def test_the_model_is_given_the_engineered_features_the_day_of_the_year_and_nothing_it_cannot_know(serving):
    row = np.array([[41.0, 0.8, 59.9, 9.0, 340.0, 21.0, 5.0]])
    found = matrix_of(row, serving, day_of(__import__("datetime").date(2025, 2, 1)))
    np.testing.assert_array_equal(found[:, : len(ENGINEERED)], engineer(row, QUINTILES))
    extras = dict(zip(FEATURE_NAMES[len(ENGINEERED) :], found[0, len(ENGINEERED) :].tolist(), strict=True))
    assert extras.pop("as_of_year_day") == 32.0
    assert all(math.isnan(each) for each in extras.values())


def test_without_an_order_the_day_of_the_year_is_unknown_too_as_in_the_stream():
    row = np.array([[41.0, np.nan, np.nan, 0.0, np.nan, np.nan, np.nan]])
    assert np.isnan(features_of_inputs(row, QUINTILES, DAY)[0, FEATURE_NAMES.index("as_of_year_day")])


def test_rank_and_segment_follow_the_ranking_that_is_served(serving):
    (before,) = answered(serving, FORM)
    higher = bundle_ranking(Thresholds(1e6, 2e6, 3e6))
    (after,) = answered(serving._replace(ranking=higher, customers=500), FORM)
    assert (before.fields["segment"], after.fields["segment"]) == ("medium_high_value", "at_risk")
    assert before.fields["percentile"] > 50
    assert after.fields["percentile"] < 25
    assert before.fields["expected_value"] == after.fields["expected_value"]


def test_a_form_that_fits_has_no_warning_and_each_misfit_one(serving):
    fitting = {**FORM, "frequency_score": 5}
    assert answered(serving, fitting)[0].fields["warnings"] == []
    for changes, word in (
        ({"purchase_frequency": 4.0}, "purchase_frequency"),
        ({"frequency_score": 1}, "frequency_score"),
        ({"days_since_last_purchase": 340}, "days_since_last_purchase"),
    ):
        (warning,) = answered(serving, {**fitting, **changes})[0].fields["warnings"]
        assert warning.startswith(word)


def test_what_lies_beyond_the_training_population_is_said(tmp_path: Path):
    spread = {"deciles": [5.0, 20.0, 80.0]}
    reference = {"average_order_value": spread, "frequency": {"deciles": [0.0, 3.0]}, "customer_age": {"deciles": []}}
    serving = serving_in(tmp_path, reference=reference)
    within = {**FORM, "total_orders": 4, "purchase_frequency": 0.36, "frequency_score": 4, "customer_age": None}
    assert answered(serving, within)[0].fields["warnings"] == []
    beyond = {**within, "average_order_value": 80.5, "customer_age": 30}
    age, value = answered(serving, beyond)[0].fields["warnings"]
    assert age == "customer_age was unknown in training, so it makes no difference"
    assert value == "average_order_value is 80.5, beyond what the model was trained on: 5 to 80"
    (orders,) = [
        each
        for each in answered(serving, {**within, "total_orders": 5})[0].fields["warnings"]
        if each.startswith("total_orders")
    ]
    assert "1 to 4" in orders


@pytest.mark.parametrize("metadata", [{}, {"reference": None}, {"reference": {"frequency": {}}}, {"reference": []}])
def test_a_bundle_that_tells_no_ranges_gives_no_such_warnings(metadata):
    assert ranges_of(metadata) == {}


def test_a_form_for_which_the_model_has_no_finite_number_is_left_out_alone(serving):
    class Spotty:
        metadata, version = serving.model.metadata, "m"

        def predict(self, matrix):
            found = serving.model.predict(matrix)
            columns = [column.copy() for column in found]
            columns[0][1] = np.inf
            return Outcomes(*columns)

    found = answers(inputs_of([WhatIf.model_validate(FORM)] * 3), serving._replace(model=Spotty()), DAY)
    assert [type(each) for each in found] == [Answered, NoPrediction, Answered]
