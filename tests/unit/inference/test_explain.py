"""Explanations add up to the model's own numbers, give idle facts nothing, and agree with orders walked by hand."""

from itertools import permutations, product
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import facts
from domain.features import DAYS_PER_MONTH, ENGINEERED, FEATURE_NAMES, engineer
from schemas.customer_features import feature_matrix
from schemas.model_bundle import OUTPUT_NAMES
from services.inference.explain import Explainer, Explanation, references_of, rescored, unit_of
from services.inference.model import Model, Outcomes, ScorerMetadata, load_model
from services.runtime.shutdown import KnownProblem
from tests.bundles import OTHER_QUINTILES, QUINTILES, feature_messages, metadata, write_bundle
from tests.effort import tries

MESSAGES = feature_messages(60, seed=3)
ROWS = feature_matrix([message.features for message in MESSAGES])
BUYERS = [at for at, message in enumerate(MESSAGES) if message.features["monetary"] is not None]
AT = {name: place for place, name in enumerate(FEATURE_NAMES)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Value = 3 × orders_per_month × average_order_value, as a real ONNX graph."""
    folder = tmp_path_factory.mktemp("models")
    return load_model(folder / write_bundle(folder), "USD")


@pytest.fixture(scope="module")
def references(model: Model) -> np.ndarray:
    return facts.reference_rows(ROWS[BUYERS], model.predict(ROWS[BUYERS]).expected_value)


@pytest.fixture(scope="module")
def explainer(model: Model, references: np.ndarray) -> Explainer:
    return Explainer(model, references)


def amounts(explanation: Explanation) -> dict[str, float]:
    return {each.fact: each.amount for each in explanation.contributions}


def what_if(row: np.ndarray) -> np.ndarray:
    names = ("customer_age", "orders_per_month", "average_order_value", "frequency", "customer_lifetime_days",
             "recency_days", "frequency_score")  # fmt: skip
    inputs = np.array([[row[AT[name]] + (name == "frequency") for name in names]])
    made = engineer(inputs, QUINTILES)[0]
    return np.concatenate([made, np.full(len(FEATURE_NAMES) - len(ENGINEERED), np.nan)])


def by_hand(row: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """The same game in plain Python: three facts matter to the model, and every order of the unions is walked."""

    def worth(taken: frozenset[str]) -> float:
        total = 0.0
        for reference in references:
            orders, tenure, mean = (
                (row if fact in taken else reference)[AT[column]] + plus
                for fact, column, plus in (
                    (facts.ORDERS, "frequency", 1.0),
                    (facts.TENURE, "customer_lifetime_days", 0.0),
                    (facts.ORDER_VALUE, "average_order_value", 0.0),
                )
            )
            total += 3 * orders * DAYS_PER_MONTH / max(tenure, DAYS_PER_MONTH) * mean
        return total / len(references)

    found = dict.fromkeys(facts.FACT_NAMES, 0.0)
    unions = ((facts.TENURE, facts.ORDERS), (facts.ORDER_VALUE,))
    walks = [
        [fact for union in order for fact in union]
        for unions_in_order in permutations(unions)
        for order in product(*(list(permutations(union)) for union in unions_in_order))
    ]
    for walk in walks:
        taken: frozenset[str] = frozenset()
        for fact in walk:
            found[fact] += (worth(taken | {fact}) - worth(taken)) / len(walks)
            taken |= {fact}
    return found


@pytest.mark.parametrize("at", BUYERS[:12])
def test_contributions_are_those_of_walking_every_order(explainer: Explainer, references: np.ndarray, at: int):
    (found,) = explainer.explain(ROWS[at])
    assert amounts(found) == pytest.approx(by_hand(ROWS[at], references), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("row", [*ROWS[:25], *(what_if(ROWS[at]) for at in BUYERS[:10])])
def test_base_and_contributions_add_up_to_the_models_own_number(model: Model, explainer: Explainer, row: np.ndarray):
    outcomes = model.predict(row[np.newaxis])
    for found, name in zip(explainer.explain(row, OUTPUT_NAMES), OUTPUT_NAMES, strict=True):
        assert found.prediction == getattr(outcomes, name)[0]
        assert found.base + sum(amounts(found).values()) == pytest.approx(found.prediction, rel=1e-12, abs=1e-9)
        assert sum(union.amount for union in found.unions) == pytest.approx(sum(amounts(found).values()), abs=1e-9)
        for union in found.unions:
            parts = [each.amount for each in found.contributions if each.union == union.union]
            assert union.amount == pytest.approx(sum(parts), rel=1e-12, abs=1e-9)


def test_what_the_model_does_not_use_gets_exactly_nothing(explainer: Explainer):
    for row in ROWS:
        if np.isnan(row[AT["monetary"]]):
            continue
        for found in explainer.explain(row, OUTPUT_NAMES):
            idle = {fact: amount for fact, amount in amounts(found).items()
                    if fact not in (facts.TENURE, facts.ORDERS, facts.ORDER_VALUE)}  # fmt: skip
            assert idle == dict.fromkeys(idle, 0.0)


def test_the_base_is_the_same_for_everybody_and_the_mean_of_the_typical(
    model: Model, explainer: Explainer, references: np.ndarray
):
    bases = {explainer.explain(ROWS[at])[0].base for at in BUYERS}
    mean = model.predict(references).expected_value.mean()
    assert all(base == pytest.approx(mean, rel=1e-12) for base in bases)


def test_a_typical_customer_alone_explains_itself_by_nothing(model: Model, references: np.ndarray):
    for row in references:
        (found,) = Explainer(model, row[np.newaxis]).explain(row)
        assert set(amounts(found).values()) == {0.0}
        assert found.base == found.prediction


def every_output(value: np.ndarray) -> Outcomes:
    return Outcomes(*(value * factor for factor in 1.0 + np.arange(len(Outcomes._fields))))


class Tangled:
    """A model that uses every column, with thresholds and products, as trees would."""

    def __init__(self, like: Model) -> None:
        self.metadata = like.metadata

    def predict(self, matrix: np.ndarray) -> Outcomes:
        filled = np.where(np.isnan(matrix), -1.0, matrix)
        weights = np.sin(1.0 + np.arange(matrix.shape[1]))
        value = np.abs(np.tanh(filled * weights / 30.0).sum(axis=1)) * np.where(filled[:, 0] > 60, 40.0, 110.0)
        value = np.where(np.isnan(matrix[:, AT["monetary"]]), 0.0, value)
        return every_output(value)


@settings(max_examples=tries(40), deadline=None)
@given(st.integers(0, len(ROWS) - 1), st.booleans())
def test_it_adds_up_whatever_the_model_is(at: int, without_extras: bool):
    model = Tangled(Model(tangled_metadata(), None))  # type: ignore[arg-type]
    row = ROWS[at]
    if without_extras and not np.isnan(row[AT["monetary"]]):
        row = what_if(row)
    values = model.predict(ROWS[BUYERS]).expected_value
    (found,) = Explainer(model, facts.reference_rows(ROWS[BUYERS], values)).explain(row)
    assert found.prediction == model.predict(row[np.newaxis]).expected_value[0]
    assert found.base + sum(amounts(found).values()) == pytest.approx(found.prediction, rel=1e-12, abs=1e-9)
    assert abs(found.sum_error) < 1e-9
    if without_extras:
        assert all(amounts(found)[fact] == 0.0 for fact in (facts.PACE, facts.RHYTHM, facts.REFUNDS, facts.ORDER_SPREAD)
                   if not np.isnan(row[AT["monetary"]]))  # fmt: skip


def tangled_metadata() -> ScorerMetadata:
    return msgspec.convert({"model_version": "tangled", **metadata()}, ScorerMetadata)


def test_who_has_no_order_lacks_orders(explainer: Explainer):
    (row,) = (row for row in ROWS[:20] if np.isnan(row[AT["monetary"]]))
    (found,) = explainer.explain(row)
    assert found.prediction == 0.0
    assert found.contributions[0].fact == facts.ORDERS
    assert found.contributions[0].amount == pytest.approx(-found.base)
    assert {each.amount for each in found.contributions[1:]} == {0.0}


def test_the_largest_comes_first_and_is_told_in_words_and_units(explainer: Explainer):
    (found,) = explainer.explain(ROWS[BUYERS[0]], customer_id="c0", as_of="2024-03-18")
    sizes = [abs(each.amount) for each in found.contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert [abs(each.amount) for each in found.unions] == sorted((abs(u.amount) for u in found.unions), reverse=True)
    by_fact = {each.fact: each for each in found.contributions}
    assert set(by_fact) == set(facts.FACT_NAMES)
    (mean,) = by_fact[facts.ORDER_VALUE].features
    assert (mean.feature, mean.unit, mean.value) == ("average_order_value", "USD", ROWS[BUYERS[0], AT[mean.feature]])
    (age,) = by_fact[facts.AGE].features
    assert (age.value, age.typical, age.unit) == (None, None, "years")
    assert (found.unit, found.horizon_days, found.customer_id, found.as_of) == ("USD", 90, "c0", "2024-03-18")
    again = msgspec.json.decode(msgspec.json.encode(found), type=Explanation)
    assert again == found


def test_units_of_outputs():
    assert [unit_of(name, "EUR") for name in OUTPUT_NAMES] == [
        "EUR",
        "orders",
        "probability",
        "EUR",
        "EUR",
        "EUR",
        "days",
    ]
    with pytest.raises(ValueError, match="no output"):
        unit_of("value", "EUR")


def test_a_model_without_a_number_is_not_explained(model: Model, references: np.ndarray):
    class Broken(Tangled):
        def predict(self, matrix: np.ndarray) -> Outcomes:
            return every_output(np.full(len(matrix), np.nan))

    with pytest.raises(KnownProblem, match="no finite number"):
        Explainer(Broken(model), references).explain(ROWS[BUYERS[0]])


def test_a_model_that_contradicts_itself_is_no_error_of_the_sum(model: Model, references: np.ndarray):
    """Huge numbers that nearly cancel: rounding is measured against them, not against what is left."""

    class Huge(Tangled):
        def predict(self, matrix: np.ndarray) -> Outcomes:
            value = np.where(matrix[:, AT["recency_days"]] > 50, 1e15, 1.0) * matrix[:, AT["average_order_value"]]
            return every_output(value)

    for at in BUYERS[:10]:
        (found,) = Explainer(Huge(model), references).explain(ROWS[at])
        assert abs(found.sum_error) < 1e4


def test_scores_by_other_borders_are_made_by_the_models_own():
    theirs = feature_matrix([each.features for each in feature_messages(60, seed=3, quintiles=OTHER_QUINTILES)])
    assert not np.array_equal(theirs, ROWS, equal_nan=True)
    for row, wanted in zip(theirs, ROWS, strict=True):
        assert np.array_equal(rescored(row, QUINTILES), wanted, equal_nan=True)


# ---------------------------------------------------------------- what a bundle keeps of typical customers


def test_typical_customers_come_from_the_bundle(tmp_path: Path, references: np.ndarray):
    kept = [[None if value != value else value for value in row] for row in references.tolist()]
    version = write_bundle(tmp_path, explanation_reference=kept)
    assert np.array_equal(references_of(tmp_path / version), references, equal_nan=True)


@pytest.mark.parametrize("shape", ["deciles", "edges"])
def test_a_bundle_without_them_gives_one_customer_of_medians(tmp_path: Path, shape: str):
    spread = {}
    for name, column in zip(FEATURE_NAMES, ROWS[BUYERS].T, strict=True):
        there = column[~np.isnan(column)]
        missing = 1 - len(there) / len(column)
        deciles = [float(each) for each in np.quantile(there, np.linspace(0, 1, 11))] if len(there) else []
        if shape == "deciles":
            spread[name] = {"deciles": deciles, "missing_share": missing}
        else:
            spread[name] = {"edges": deciles[1:-1], "shares": [0.1] * 10 if deciles else [], "missing_share": missing}
    (row,) = references_of(tmp_path / write_bundle(tmp_path, reference=spread))
    for name in ("customer_lifetime_days", "frequency"):
        assert row[AT[name]] == np.rint(np.median(ROWS[BUYERS, AT[name]]))
    assert row[AT["average_order_value"]] == pytest.approx(np.median(ROWS[BUYERS, AT["average_order_value"]]))
    assert np.isnan(row[AT["customer_age"]])


def test_an_age_that_most_do_not_tell_is_unknown_of_the_typical_customer(tmp_path: Path):
    spread = {name: {"deciles": [40.0] * 11, "missing_share": 0.1} for name in FEATURE_NAMES}
    (row,) = references_of(tmp_path / write_bundle(tmp_path, reference=spread))
    assert row[AT["customer_age"]] == 40
    spread["customer_age"]["missing_share"] = 0.6
    (row,) = references_of(tmp_path / write_bundle(tmp_path, reference=spread))
    assert np.isnan(row[AT["customer_age"]])


@pytest.mark.parametrize(
    "changes", [{}, {"explanation_reference": [[1.0]]}, {"explanation_reference": "x"}, {"reference": {}}]
)
def test_a_bundle_that_knows_nobody_is_refused(tmp_path: Path, changes: dict[str, object]):
    with pytest.raises(KnownProblem, match=r"train again|nothing to compare"):
        references_of(tmp_path / write_bundle(tmp_path, **changes))


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path):
    with pytest.raises(KnownProblem, match="nothing to compare"):
        references_of(tmp_path)


def test_nobody_to_compare_with_is_refused(model: Model):
    with pytest.raises(ValueError, match="somebody"):
        Explainer(model, np.zeros((0, len(FEATURE_NAMES))))
