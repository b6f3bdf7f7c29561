"""The metrics against sklearn, scipy and naive oracles, with many ties. It must never use smooth data alone: ties
and skewed values are where implementations differ."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import mean_absolute_error as sklearn_mae
from sklearn.metrics import root_mean_squared_error as sklearn_rmse

from domain import metrics
from tests.effort import tries

tied = st.sampled_from([0.0, 1.0, 2.5, 2.5, 40.0])
pairs = st.lists(st.tuples(tied, tied), min_size=2, max_size=40).map(lambda rows: tuple(np.array(rows).T))
SMALL = st.lists(st.tuples(tied, tied), min_size=2, max_size=6).map(lambda rows: tuple(np.array(rows).T))


@settings(deadline=None)
@given(pairs)
def test_errors_equal_sklearn(pair):
    actual, predicted = pair
    assert metrics.mean_absolute_error(actual, predicted) == pytest.approx(sklearn_mae(actual, predicted))
    assert metrics.root_mean_squared_error(actual, predicted) == pytest.approx(sklearn_rmse(actual, predicted))


@settings(deadline=None)
@given(pairs)
def test_spearman_equals_scipy_and_is_nan_for_a_constant_side(pair):
    actual, predicted = pair
    got = metrics.spearman(actual, predicted)
    if len(set(actual)) == 1 or len(set(predicted)) == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(spearmanr(actual, predicted).statistic)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), tied), min_size=1, max_size=40))
def test_auc_equals_sklearn_and_is_nan_for_a_single_class(rows):
    active, score = (np.array(column) for column in zip(*rows, strict=True))
    got = metrics.area_under_roc(active, score)
    if active.all() or not active.any():
        assert math.isnan(got)
    else:
        assert got == pytest.approx(roc_auc_score(active, score))


def _gini_of_one_order(values) -> float:
    """Textbook form: Σ (2 i − n − 1) v_i / (n Σ v), for values in the order of the ranking."""
    n = len(values)
    return sum((2 * i - n - 1) * v for i, v in enumerate(values, 1)) / (n * sum(values))


@settings(max_examples=tries(60), deadline=None)
@given(SMALL)
def test_gini_is_the_mean_over_all_orders_of_tied_customers(pair):
    actual, predicted = pair
    got = metrics.gini(actual, predicted)
    if actual.sum() <= 0:
        assert math.isnan(got)
        return
    orders = [
        order
        for order in itertools.permutations(range(len(actual)))
        if all(predicted[i] <= predicted[j] for i, j in itertools.pairwise(order))
    ]
    assert got == pytest.approx(
        np.mean([_gini_of_one_order([actual[i] for i in order]) for order in orders]), abs=1e-12
    )


@settings(deadline=None)
@given(pairs, st.randoms())
def test_no_metric_depends_on_the_order_of_the_rows(pair, random):
    actual, predicted = pair
    order = list(range(len(actual)))
    random.shuffle(order)
    for metric in (
        metrics.mean_absolute_error,
        metrics.root_mean_squared_error,
        metrics.spearman,
        metrics.normalised_gini,
        metrics.total_bias,
        metrics.decile_mape,
    ):
        assert metric(actual[order], predicted[order]) == pytest.approx(metric(actual, predicted), nan_ok=True)


def test_normalised_gini_is_1_for_a_perfect_ranking_0_for_none_and_minus_1_upside_down():
    actual = np.array([0, 0, 0, 5, 7, 100.0])
    assert metrics.normalised_gini(actual, actual**2) == pytest.approx(1)
    assert metrics.normalised_gini(actual, np.full(6, 3.0)) == pytest.approx(0)
    assert metrics.normalised_gini(actual, -actual) == pytest.approx(-1)
    assert math.isnan(metrics.normalised_gini(np.full(6, 3.0), actual))


def test_total_bias_is_relative_to_what_happened():
    assert metrics.total_bias([10, 30], [10, 22]) == pytest.approx(-0.2)
    assert math.isnan(metrics.total_bias([0, 0], [1, 1]))


def test_calibration_bands_without_ties_are_plain_tenths():
    rng = np.random.default_rng(4)
    predicted, actual = rng.random(200), rng.exponential(10, 200)
    table = metrics.calibration_table(actual, predicted)
    parts = np.argsort(predicted).reshape(10, 20)
    np.testing.assert_allclose([row.predicted_mean for row in table], predicted[parts].mean(axis=1))
    np.testing.assert_allclose([row.actual_mean for row in table], actual[parts].mean(axis=1))
    assert [row.band for row in table] == list(range(1, 11))
    errors = np.abs(predicted[parts].mean(axis=1) - actual[parts].mean(axis=1)) / actual[parts].mean(axis=1)
    assert metrics.decile_mape(actual, predicted) == pytest.approx(errors.mean())


@settings(deadline=None)
@given(pairs, st.integers(1, 12))
def test_calibration_bands_share_ties_and_keep_the_totals(pair, bands):
    """Oracle: each customer copied once per band, so that borders fall between copies; ties hold their group's mean."""
    actual, predicted = pair
    shared = np.array([actual[predicted == guess].mean() for guess in predicted])
    order = np.argsort(predicted, kind="stable")
    parts = np.repeat(shared[order], bands).reshape(bands, len(actual))
    table = metrics.calibration_table(actual, predicted, bands)
    np.testing.assert_allclose([row.actual_mean for row in table], parts.mean(axis=1), atol=1e-9)
    assert sum(row.customers * row.actual_mean for row in table) == pytest.approx(actual.sum())
    assert sum(row.customers * row.predicted_mean for row in table) == pytest.approx(predicted.sum())


def test_decile_mape_leaves_out_bands_where_nothing_was_bought():
    assert metrics.decile_mape([0, 0, 10, 10], [1, 1, 15, 15], bands=2) == pytest.approx(0.5)
    assert math.isnan(metrics.decile_mape([0, 0], [1, 2], bands=2))


def test_interval_coverage_counts_the_borders_as_covered():
    got = metrics.interval_coverage([0, 5, 10, 11, -1], [0, 0, 0, 0, 0], [10, 10, 10, 10, 20])
    assert (got.covered, got.below, got.above) == pytest.approx((0.6, 0.2, 0.2))
    assert got.width_mean == pytest.approx(12)


def test_crossed_intervals_are_refused():
    with pytest.raises(ValueError, match="low > high in row 1"):
        metrics.interval_coverage([1, 1], [0, 3], [2, 2])


@pytest.mark.parametrize("metric", [metrics.mean_absolute_error, metrics.spearman, metrics.normalised_gini])
@pytest.mark.parametrize(("actual", "predicted"), [([], []), ([1, 2], [1]), ([1, np.nan], [1, 2]), ([[1]], [[1]])])
def test_input_that_cannot_be_measured_is_refused(metric, actual, predicted):
    with pytest.raises(ValueError, match=r".+"):
        metric(actual, predicted)


@settings(deadline=None)
@given(pairs, st.integers(1, 5))
def test_band_means_share_a_tie_across_a_border(pair, bands):
    """Each customer cut into as many equal slices as there are bands, ties replaced by their mean."""
    values, predicted = pair
    smooth = np.array([values[predicted == each].mean() for each in predicted])
    slices = np.repeat(smooth[np.argsort(predicted, kind="stable")], bands)
    expected = slices.reshape(bands, len(values)).mean(axis=1)
    np.testing.assert_allclose(metrics.band_means(values, predicted, bands), expected, atol=1e-9)


@settings(deadline=None)
@given(pairs)
def test_coverage_by_band_adds_up_to_the_coverage_of_all(pair):
    actual, predicted = pair
    low, high = predicted - 1, predicted + 1
    rows = metrics.coverage_by_band(actual, low, high, predicted, bands=4)
    overall = metrics.interval_coverage(actual, low, high)
    assert np.mean([row.below for row in rows]) == pytest.approx(overall.below)
    assert np.mean([row.above for row in rows]) == pytest.approx(overall.above)
    assert [row.band for row in rows] == [1, 2, 3, 4]


def test_coverage_by_band_finds_the_band_that_is_not_covered():
    actual = np.array([1.0, 1.0, 5.0, 9.0])
    rows = metrics.coverage_by_band(actual, [0, 0, 6, 0], [2, 2, 8, 8], [1, 2, 3, 4], bands=2)
    assert [(row.below, row.above) for row in rows] == [(0.0, 0.0), (0.5, 0.5)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_brier_score_equals_sklearn(rows):
    active, probability = (np.array(column) for column in zip(*rows, strict=True))
    expected = brier_score_loss(active.astype(int), probability, pos_label=1)
    assert metrics.brier_score(active, probability) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(pairs)
def test_the_area_under_the_lift_curve_is_the_gini_index(pair):
    actual, predicted = pair
    customers, share = metrics.value_captured(actual, predicted)
    if actual.sum() <= 0:
        assert len(customers) == len(share) == 0
        return
    assert (customers[0], share[0], customers[-1], share[-1]) == pytest.approx((0, 0, 1, 1))
    assert 2 * np.trapezoid(share, customers) - 1 == pytest.approx(metrics.gini(actual, predicted), abs=1e-9)


def test_pit_of_a_calibrated_forecast_with_a_mass_at_zero_is_flat():
    """Spending is 0 with probability q, else exponential: F is known, and each bin has its width in customers."""
    chance = np.random.default_rng(0)
    q = chance.uniform(0.2, 0.9, 40_000)
    spent = np.where(chance.random(40_000) < q, 0.0, chance.exponential(1.0, 40_000))
    level = q + (1 - q) * (1 - np.exp(-spent))
    borders = [0, 0.1, 0.5, 0.9, 1]
    found = metrics.pit_histogram(np.where(spent > 0, level, 0.0), np.where(spent > 0, level, q), borders)
    np.testing.assert_allclose(found, np.diff(borders), atol=0.01)
    # The same customers under a forecast that promises half of what comes: too many at the upper end.
    low = q + (1 - q) * (1 - np.exp(-spent * 3))
    found = metrics.pit_histogram(np.where(spent > 0, low, 0.0), np.where(spent > 0, low, q), borders)
    assert found[-1] > 0.15


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_pit_shares_are_a_distribution_and_the_mean_of_each_customers_own(rows):
    lower, upper = (np.array(column) for column in zip(*(sorted(row) for row in rows), strict=True))
    borders = [0.0, 0.25, 0.5, 1.0]
    found = metrics.pit_histogram(lower, upper, borders)
    assert found.sum() == pytest.approx(1)
    alone = [metrics.pit_histogram([a], [b], borders) for a, b in zip(lower, upper, strict=True)]
    np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=1e-12)


def test_pit_refuses_levels_that_are_no_distribution():
    with pytest.raises(ValueError, match="F"):
        metrics.pit_histogram([0.5], [0.4], [0, 1])
    with pytest.raises(ValueError, match="F"):
        metrics.pit_histogram([0.5], [1.4], [0, 1])
