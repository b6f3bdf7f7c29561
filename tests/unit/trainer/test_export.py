"""The graph against the Python original: every kind of model, absurd rows, batches, and a gate that does refuse."""

from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from sklearn.ensemble import HistGradientBoostingRegressor

from domain.btyd import BgNbd, GammaGamma, MbgNbd, ParetoNbd, SecondClass
from domain.features import ENGINEERED, FEATURE_NAMES
from domain.season import BINS, NO_SEASON, Season
from services.inference import graph_rows
from services.runtime.shutdown import KnownProblem
from services.trainer import export
from services.trainer import train as gated
from services.trainer.calibration import Curve
from services.trainer.corrections import TARGETS, Corrections, fit_exactly, fitting_features, new_trees
from services.trainer.export import (
    PARITY_ERROR_MAX,
    GraphDiffers,
    absurd_rows,
    build_graph,
    check_parity,
    run_graph,
)
from services.trainer.fitting import FittedModel
from services.trainer.intervals import LEVELS, SPREAD_LEVELS, Intervals, rising_from_nothing
from services.trainer.regression import Regression
from services.trainer.signals import NAMES, Scale, signals
from services.trainer.sources.orders import from_table
from services.trainer.spend_shrinkage import SpendShrinkage
from services.trainer.structural import MeanRates, Structural, TwoClocks
from services.trainer.value_model import ValueModel
from tests.unit.trainer.shops import FIRST_DAY, shop, table

Floats = NDArray[np.float64]
SPEND = GammaGamma(p=6.0, q=4.0, gamma_money=15.0)
SPREAD = tuple(np.linspace(0.0, 3.0, len(SPREAD_LEVELS)) ** 1.5)
ONE_GROUP = Intervals((0.0,), (SPREAD,))
THREE_SPREADS = (SPREAD, tuple(0.7 * each for each in SPREAD), tuple(np.sqrt(SPREAD)))
THREE_GROUPS = Intervals((0.1, 0.5, 1.4), THREE_SPREADS, upper_level=0.88)
CURVE = Curve((-4.0, 0.0, 1.0, 4.0), (0.9, 0.2, 0.25, -0.1))
NO_CURVES = dict.fromkeys(TARGETS)
_WAVE = 1 + 0.6 * np.sin(2 * np.pi * (np.arange(BINS) + 0.5) / BINS)
SEASON = Season(tuple((_WAVE / _WAVE.mean()).tolist()))


PARETO = Structural(ParetoNbd(0.6, 81.0, 0.55, 68.0), SPEND, 30.0, 1.02, name="Pareto/NBD")
BY_CLOCK = ParetoNbd(0.7, 70.0, 0.6, 60.0)
STRUCTURALS = {
    "BG/NBD": Structural(BgNbd(0.25, 33.0, 0.75, 2.2), SPEND, 30.0, 1.02, name="BG/NBD"),
    "MBG/NBD": Structural(MbgNbd(0.6, 51.0, 0.8, 1.3), SPEND, 30.0, 1.02, name="MBG/NBD"),
    "Pareto/NBD": PARETO,
    "Pareto/NBD, s = 1": Structural(ParetoNbd(0.6, 81.0, 1.0, 68.0), SPEND, 30.0, 1.02, name="Pareto/NBD"),
    "Pareto/NBD by the season": replace(PARETO, clocks=TwoClocks(SEASON, BY_CLOCK, 300.0), activity=0.0),
    "two classes": replace(
        PARETO, clocks=TwoClocks(NO_SEASON, BY_CLOCK, 300.0, SecondClass(0.05, 3.0, 4.0)), paid_share=0.9
    ),
    "two classes by the season": replace(
        PARETO, clocks=TwoClocks(SEASON, BY_CLOCK, 300.0, SecondClass(0.2, 1.5, 0.4)), activity=0.5
    ),
    "without a spend model": Structural(MbgNbd(0.6, 51.0, 0.8, 1.3), None, 30.0, 1.0, name="MBG/NBD"),
    "mean": Structural(None, None, 0.0, 1.0, mean=MeanRates(30, 0.2, 5.0, 0.15)),
}


@cache
def rows() -> Floats:
    data = from_table(table(shop(400, 200)), FIRST_DAY + timedelta(days=200), "USD")
    (known,) = data.history.training_sets([(data.cutoff_day, 0)])
    return known.with_quintiles(known.fit_quintiles()).features


def what_if(matrix: Floats) -> Floats:
    masked = matrix.copy()
    masked[:, len(ENGINEERED) :] = np.nan
    return masked


SCALE = Scale(history_days=200.0, order_value=28.0, expected_orders=0.6, expected_value=18.0, large_value=30.0)
SHRINKAGE = SpendShrinkage(exponent=0.25, half_value=6.0, spend=24.0)


@cache
def corrections() -> Corrections:
    """A regression and a tree ensemble for each target, all followed."""
    chance = np.random.default_rng(1)
    matrix = np.concatenate([rows(), what_if(rows())])

    def trees() -> HistGradientBoostingRegressor:
        target = np.exp(0.4 * chance.standard_normal(len(matrix))) * (1 + (matrix[:, 0] > 60))
        return fit_exactly(new_trees(len(matrix)), fitting_features(matrix), target, np.ones(len(matrix)))

    told = signals(matrix, STRUCTURALS["MBG/NBD"].expect(matrix, 90), 90, SCALE)
    there = ~np.isnan(told)
    regression = Regression(
        np.where(there, told, 0.0).mean(axis=0),
        np.where(there, told, 0.0).std(axis=0) + 0.1,
        {target: chance.normal(0.0, 0.3, len(NAMES)) for target in TARGETS},
    )
    weights = {"value": 1.0, "orders": 0.5, "p_active": 1.0}
    return Corrections(regression, {target: trees() for target in TARGETS}, weights)


def with_corrections(name: str) -> ValueModel:
    """A model in which regression and every tree ensemble have their say."""
    curves = dict.fromkeys(TARGETS, CURVE)
    return ValueModel(90, STRUCTURALS[name], SCALE, corrections(), SHRINKAGE, curves, THREE_GROUPS)


def structural_only(name: str) -> ValueModel:
    return ValueModel(90, STRUCTURALS[name], SCALE, None, None, NO_CURVES, ONE_GROUP, factor=1.1)


@pytest.mark.parametrize("name", STRUCTURALS)
def test_the_graph_says_what_the_original_says(name: str) -> None:
    model = structural_only(name)
    parity = check_parity(model, build_graph(model).SerializeToString(), np.concatenate([rows(), what_if(rows())]))
    assert parity.error_max < 1e-7
    assert parity.rows > 2 * len(rows())


def test_many_rows_are_given_to_the_graph_in_parts_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build_graph(with_corrections("two classes by the season")).SerializeToString()
    whole, sizes = run_graph(graph, rows()), []
    session = export.ort.InferenceSession

    class Counting(session):  # type: ignore[misc,valid-type]
        def run(self, names, given):  # type: ignore[no-untyped-def]
            sizes.append(len(next(iter(given.values()))))
            return super().run(names, given)

    monkeypatch.setattr(export.ort, "InferenceSession", Counting)
    monkeypatch.setattr(graph_rows, "ROWS_AT_ONCE", 70)
    parts = run_graph(graph, rows())
    assert max(sizes) == 70
    assert sum(sizes) == len(rows())
    for name, column in whole.items():
        np.testing.assert_array_equal(column, parts[name])


@pytest.mark.parametrize("name", STRUCTURALS)
def test_the_whole_graph_says_what_the_original_says(name: str) -> None:
    model = with_corrections(name)
    every = np.concatenate([rows(), what_if(rows())])
    assert check_parity(model, build_graph(model).SerializeToString(), every).error_max <= PARITY_ERROR_MAX


@pytest.mark.parametrize("name", ["Pareto/NBD by the season", "two classes by the season"])
def test_the_graph_knows_every_day_of_the_year(name: str) -> None:
    model, each = structural_only(name), np.repeat(rows()[:3], 366, axis=0)
    each[:, FEATURE_NAMES.index("as_of_year_day")] = np.tile(np.arange(1, 367), 3)
    assert check_parity(model, build_graph(model).SerializeToString(), each).error_max < 1e-7
    by_day = model.predict(each)["expected_orders"].reshape(3, 366)
    assert (by_day.max(axis=1) > 1.5 * by_day.min(axis=1)).all(), "the season ahead must make a difference"


def test_trees_say_the_same_in_the_graph_even_at_a_threshold() -> None:
    model = with_corrections("MBG/NBD")
    thresholds = [t for tree in corrections().trees["value"]._predictors for t in tree[0].nodes["num_threshold"]]
    at_threshold = np.repeat(rows()[:1], len(thresholds), axis=0)
    at_threshold[:, FEATURE_NAMES.index("recency_days")] = thresholds
    every = np.concatenate([rows(), what_if(rows()), at_threshold, at_threshold * (1 + 1e-8)])
    assert check_parity(model, build_graph(model).SerializeToString(), every).error_max <= PARITY_ERROR_MAX


@pytest.mark.parametrize("name", STRUCTURALS)
def test_absurd_rows_give_bounded_ordered_answers(name: str) -> None:
    found = run_graph(build_graph(with_corrections(name)).SerializeToString(), absurd_rows(rows()))
    for column in found.values():
        assert np.isfinite(column).all()
        assert (column >= 0).all()
        assert (column <= 1e12).all()
    assert (found["p_active"] <= 1).all()
    assert (found["value_p10"] <= found["value_p50"]).all()
    assert (found["value_p50"] <= found["value_p90"]).all()


def test_a_customer_without_an_order_has_nothing_expected() -> None:
    nobody = rows()[:2].copy()
    nobody[0] = np.nan
    nobody[1, FEATURE_NAMES.index("frequency")] = -1.0  # a what-if call with 0 orders
    for column in run_graph(build_graph(with_corrections("MBG/NBD")).SerializeToString(), nobody).values():
        assert column.tolist() == [0.0, 0.0]


def test_what_if_rows_of_plain_customers_are_answered_as_streaming_rows() -> None:
    """With one order a day and no refund, the seven inputs say all that the structural model asks."""
    found, masked = (structural_only("MBG/NBD").predict(each) for each in (rows(), what_if(rows())))
    one_a_day = rows()[:, FEATURE_NAMES.index("btyd_x")] == rows()[:, FEATURE_NAMES.index("frequency")]
    assert one_a_day.mean() > 0.5
    for name, column in found.items():
        np.testing.assert_allclose(column[one_a_day], masked[name][one_a_day], rtol=1e-12)


@pytest.mark.parametrize("name", ["MBG/NBD", "Pareto/NBD", "Pareto/NBD by the season"])
def test_a_row_has_the_same_bits_in_every_batch(name: str) -> None:
    graph = build_graph(with_corrections(name)).SerializeToString()
    whole = run_graph(graph, rows())
    for size in (1, 3, 64):
        for start in range(0, 192, size):
            part = run_graph_cached(graph, rows()[start : start + size])
            for output, column in part.items():
                assert column.tobytes() == whole[output][start : start + size].tobytes(), (output, size, start)


@cache
def _session(graph: bytes) -> object:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options)


def run_graph_cached(graph: bytes, matrix: Floats) -> dict[str, Floats]:
    session = _session(graph)
    names = [output.name for output in session.get_outputs()]  # type: ignore[attr-defined]
    found = session.run(names, {"features": np.ascontiguousarray(matrix)})  # type: ignore[attr-defined]
    return {name: column.reshape(-1) for name, column in zip(names, found, strict=True)}


def test_the_gate_refuses_a_graph_that_is_slightly_wrong() -> None:
    model = structural_only("MBG/NBD")
    slightly = replace(model, structural=replace(model.structural, orders_per_day=1.02 * 1.0002))
    with pytest.raises(KnownProblem, match="expected_orders of row"):
        check_parity(model, build_graph(slightly).SerializeToString(), rows())


def test_the_gate_refuses_a_graph_whose_trees_lost_a_leaf() -> None:
    model = with_corrections("MBG/NBD")
    graph = build_graph(model)
    (ensemble, *_) = [node for node in graph.graph.node if node.op_type == "TreeEnsembleRegressor"]
    (weights,) = [each for each in ensemble.attribute if each.name == "target_weights"]
    weights.floats[0] += 1.0
    with pytest.raises(KnownProblem, match="differs from the model"):
        check_parity(model, graph.SerializeToString(), rows())


def test_the_gate_refuses_nan() -> None:
    model = structural_only("mean")
    graph = build_graph(model)
    for constant in graph.graph.initializer:
        numbers = numpy_helper.to_array(constant)
        if numbers.reshape(-1)[0] == model.structural.mean.over(90)[0]:  # type: ignore[union-attr]
            constant.CopyFrom(numpy_helper.from_array(numbers * [np.nan, 1.0, 1.0], constant.name))
    onnx.checker.check_model(graph)
    with pytest.raises(KnownProblem, match="gives expected_value = nan"):
        check_parity(model, graph.SerializeToString(), rows())


def test_trees_of_wild_ratios_are_the_same_in_the_graph_to_the_last_bits() -> None:
    """A wholesale buyer's ratio is a thousand times the next one's: 32-bit sums must not be rounded all the same."""
    matrix = np.concatenate([rows(), what_if(rows())])
    ratio = np.exp(np.random.default_rng(2).normal(0.0, 3.0, len(matrix)))
    model = with_corrections("MBG/NBD")
    value_trees = fit_exactly(new_trees(len(matrix)), fitting_features(matrix), ratio, np.ones(len(matrix)))
    wild = replace(corrections(), trees={**corrections().trees, "value": value_trees})
    model = replace(model, corrections=wild, curves=NO_CURVES)
    assert check_parity(model, build_graph(model).SerializeToString(), matrix).error_max < 1e-9


def test_quantiles_rise_steadily_where_the_probability_of_ordering_passes_a_level() -> None:
    """Without that, a last bit of p_active would decide between 0 and much, and the gate refuse a right graph."""
    spread = rising_from_nothing(np.linspace(0.5, 3.0, len(SPREAD_LEVELS)))
    interval, value = Intervals((0.0,), (spread,)), np.full(2, 100.0)
    for level in LEVELS:
        near = 1 - level + np.array([-1e-12, 1e-12])
        found = interval.quantiles(value, near, near)[:, LEVELS.index(level)]
        assert abs(found[1] - found[0]) < 1e-6


def test_corrections_that_do_not_pass_the_gate_are_left_out_visibly(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = FittedModel(with_corrections("MBG/NBD"), None, None, {}, ["something else"])  # type: ignore[arg-type]

    def spoilt(model: ValueModel) -> onnx.ModelProto:
        graph = build_graph(model)
        for node in graph.graph.node:
            for attribute in node.attribute:
                if attribute.name == "target_weights":
                    attribute.floats[0] += 1.0
        return graph

    monkeypatch.setattr(gated, "build_graph", spoilt)
    plain, onnx_bytes, parity = gated.export(fitted, rows())
    assert plain.model.corrections is None
    assert plain.fallbacks[0] == "something else"
    assert plain.fallbacks[1].startswith("corrections of the purchase model were left out: the ONNX graph differs")
    assert set(plain.choices["correction_weights"].values()) == {0.0}
    assert parity.error_max < 1e-7
    assert b"TreeEnsemble" not in onnx_bytes


def test_a_structural_graph_that_does_not_pass_is_refused_still(monkeypatch: pytest.MonkeyPatch) -> None:
    model = structural_only("MBG/NBD")
    other = replace(model, structural=STRUCTURALS["mean"])
    monkeypatch.setattr(gated, "build_graph", lambda _: build_graph(other))
    with pytest.raises(GraphDiffers):
        gated.export(FittedModel(model, None, None), rows())  # type: ignore[arg-type]
