"""The graph against the Python original: the engineering bit by bit, each kind of model, absurd input, and a gate that
does refuse."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from domain.features import ENGINEERED, INPUT_NAMES, engineer
from domain.rfm_scores import Quintiles
from schemas.profile_model import COLUMNS, ENGINEERED_NAMES, INPUT_NAME, VALUE_MAX
from services.trainer.graph import GraphBuilder
from services.trainer.profile import export as gate
from services.trainer.profile.candidates import BOOSTED_LINE, LINE, Candidate, ensembles
from services.trainer.profile.columns import SCALES, columns_of, scale_of
from services.trainer.profile.export import PARITY_ERROR_MAX, GraphDiffers, absurd_inputs, export, run_graph
from services.trainer.profile.network import Network
from services.trainer.profile.nodes import build_graph, column_nodes
from tests.effort import tries
from tests.unit.trainer.profile.small import candidates, graphs, scored

Floats = NDArray[np.float64]
QUINTILES = Quintiles((10.0, 50.0, 100.0, 400.0), (0.0, 0.0, 1.0, 4.0), (20.0, 50.0, 120.0, 500.0))
NAMES = [LINE, *ensembles(0)]

numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 5000),
    st.integers(0, 1000).map(float),
    st.sampled_from([0.0, 1.0, 10.0, 50.0, 120.0, 500.0, float("nan"), float("inf"), -1.0]),
)
rows_of_inputs = arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(7)), elements=numbers)


def columns_in_graph(inputs: Floats) -> Floats:
    builder = GraphBuilder(INPUT_NAME, len(INPUT_NAMES))
    columns = column_nodes(builder, QUINTILES)
    outputs = {name: columns.column(place) for place, name in enumerate(COLUMNS)}
    session = ort.InferenceSession(builder.model(outputs).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.column_stack(session.run(list(COLUMNS), {INPUT_NAME: inputs}))


def test_the_columns_are_the_inputs_and_all_engineered_features_each_once():
    assert COLUMNS[:7] == INPUT_NAMES
    assert set(COLUMNS) == set(INPUT_NAMES) | set(ENGINEERED_NAMES)
    assert len(set(COLUMNS)) == len(COLUMNS) == 21
    assert len(ENGINEERED) == 18


@settings(max_examples=tries(60), deadline=None)
@given(rows_of_inputs)
def test_the_graph_engineers_what_the_domain_does_to_the_last_bit(inputs: Floats):
    with np.errstate(all="ignore"):
        wanted = {name: engineer(inputs, QUINTILES)[:, place] for place, name in enumerate(ENGINEERED_NAMES)}
    wanted |= {name: inputs[:, place] for place, name in enumerate(INPUT_NAMES)}
    found = columns_in_graph(inputs)
    for place, name in enumerate(COLUMNS):
        np.testing.assert_array_equal(found[:, place], wanted[name], err_msg=name)


def test_the_python_columns_are_the_domains():
    inputs = scored()[0].inputs[:50]
    for place, name in enumerate(ENGINEERED_NAMES):
        column = columns_of(inputs, QUINTILES)[:, COLUMNS.index(name)]
        np.testing.assert_array_equal(column, engineer(inputs, QUINTILES)[:, place], err_msg=name)


@pytest.mark.parametrize(
    ("total", "scale"),
    [(0.0, SCALES[0]), (0.01, 2.0**-7), (0.999, 0.5), (1.0, 1.0), (1.999, 1.0), (2.0, 2.0), (1000.0, 512.0),
     (float("nan"), SCALES[0]), (-5.0, SCALES[0]), (float("inf"), 2.0**39)],
)  # fmt: skip
def test_the_scale_is_the_power_of_two_below_the_total(total: float, scale: float):
    columns = np.full((1, len(COLUMNS)), np.nan)
    columns[0, COLUMNS.index("total_spending")] = total
    assert scale_of(columns).tolist() == [scale]


@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_passes_the_gate_on_all_held_out_rows(name: str):
    table, split = scored()
    exported = export(candidates()[NAMES.index(name)], table.inputs[split.test])
    assert exported.parity_error_max <= PARITY_ERROR_MAX
    assert exported.parity_rows > split.test.sum()


@pytest.mark.parametrize("name", NAMES)
def test_absurd_input_gives_a_bounded_amount(name: str):
    random = np.random.default_rng(1)
    inputs = np.concatenate(
        [absurd_inputs(scored()[0].inputs[:5]), random.choice([0, -1, 1e300, -1e300, np.nan, np.inf, 3.7], (500, 7))]
    )
    found = run_graph(graphs()[name], inputs)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= VALUE_MAX).all()


def test_a_model_that_says_less_than_nothing_gives_nothing():
    candidate = candidates()[0]
    assert candidate.line is not None
    low = replace(candidate, line=replace(candidate.line, intercept=-9.0))
    inputs = scored()[0].inputs[:20]
    assert run_graph(build_graph(low).SerializeToString(), inputs).tolist() == [0.0] * 20
    assert low.predict(inputs).tolist() == [0.0] * 20


@pytest.mark.parametrize("name", NAMES)
def test_nothing_ordered_is_nothing_spent(name: str):
    inputs = np.repeat(scored()[0].inputs[:1], 4, axis=0)
    inputs[0, INPUT_NAMES.index("total_orders")] = 0
    inputs[1, INPUT_NAMES.index("average_order_value")] = 0
    inputs[2, INPUT_NAMES.index("average_order_value")] = np.nan
    inputs[3, INPUT_NAMES.index("total_orders")] = np.nan
    graph = graphs()[name]
    assert run_graph(graph, inputs).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", [LINE, BOOSTED_LINE])
def test_a_rows_value_does_not_depend_on_the_rows_beside_it(name: str):
    inputs = scored()[0].inputs[:37]
    graph = graphs()[name]
    together = run_graph(graph, inputs)
    alone = np.concatenate([run_graph(graph, inputs[row : row + 1]) for row in range(len(inputs))])
    np.testing.assert_array_equal(together, alone)


def test_a_customer_larger_than_any_seen_is_no_special_case():
    table, split = scored()
    inputs = table.inputs[split.test].copy()
    inputs[:, INPUT_NAMES.index("average_order_value")] *= 1024
    for candidate in candidates():
        ratio = candidate.predict(inputs) / (1024 * table.value[split.test])
        assert np.median(np.abs(ratio - 1)) < 0.01, candidate.name


def test_a_network_is_written_out_as_it_is():
    random = np.random.default_rng(2)
    base = candidates()[0]
    width = len(base.preparation.tree_names)
    first = random.normal(size=(width, 5)), random.normal(size=(1, 5))
    hidden = (first, (random.normal(size=(5, 4)), np.ones((1, 4))))
    last, beside = (random.normal(size=(4, 1)), np.array([[0.3]])), random.normal(size=(width, 1))

    def by_hand(rows: Floats) -> Floats:
        layer = rows
        for weights, biases in hidden:
            layer = np.maximum(layer @ weights + biases, 0)
        return (layer @ last[0] + last[1] + rows @ beside)[:, 0]

    candidate = replace(base, line=None, network=Network(by_hand, hidden, last, beside))
    assert not candidate.is_reference
    assert export(candidate, scored()[0].inputs[:300]).parity_error_max < 1e-9


def nudged(candidate: Candidate) -> Candidate:
    """The same, a little more than the gate allows beside it."""
    assert candidate.line is not None
    more = replace(candidate.line, weights=candidate.line.weights * 1.01)
    return replace(candidate, line=more)


def test_the_gate_refuses_a_graph_that_says_something_else(monkeypatch: pytest.MonkeyPatch):
    candidate = candidates()[0]
    monkeypatch.setattr(gate, "build_graph", lambda asked: build_graph(nudged(asked)))
    with pytest.raises(GraphDiffers, match="ridge regression: the ONNX graph gives"):
        export(candidate, scored()[0].inputs[:50])


def test_the_named_ensembles_are_the_ones_that_are_fitted():
    assert [each.name for each in candidates()] == NAMES
    assert [each.is_reference for each in candidates()] == [True, False, False, False, False]
