"""Loading bundles: what is refused and why, and outcomes against plain numpy. Uses a real ONNX graph."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from domain.customer import CustomerState
from domain.features import FEATURE_NAMES, features
from schemas.customer_features import feature_matrix
from schemas.model_bundle import METADATA_FILE, MODEL_FILE, OUTPUT_NAMES, bundle_version, metadata_without_version
from services.inference.graph_rows import ROWS_AT_ONCE
from services.inference.model import load_model
from services.runtime.shutdown import KnownProblem
from tests.bundles import QUINTILES, feature_messages, graph, metadata, write_bundle


def test_outcomes_equal_the_same_formula_in_numpy(tmp_path: Path) -> None:
    model = load_model(tmp_path / write_bundle(tmp_path), "USD")
    matrix = feature_matrix([message.features for message in feature_messages(500)])
    outcomes = model.predict(matrix)
    known = ~np.isnan(matrix[:, FEATURE_NAMES.index("monetary")])
    orders = np.where(known, 3 * matrix[:, FEATURE_NAMES.index("orders_per_month")], 0)
    value = np.where(known, orders * matrix[:, FEATURE_NAMES.index("average_order_value")], 0)
    assert 0 < np.count_nonzero(~known) < 500
    np.testing.assert_allclose(outcomes.expected_orders, orders, rtol=1e-14)
    np.testing.assert_allclose(outcomes.expected_value, value, rtol=1e-14)
    np.testing.assert_allclose(outcomes.p_active, 1 - np.exp(-orders), rtol=1e-6)  # a float32 output
    np.testing.assert_allclose(outcomes.value_p90, 2 * value, rtol=1e-14)
    assert all(column.dtype == np.float64 and column.shape == (500,) for column in outcomes)


def test_a_row_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    model = load_model(tmp_path / write_bundle(tmp_path), "USD")
    matrix = feature_matrix([message.features for message in feature_messages(100)])
    together = np.column_stack(model.predict(matrix))
    alone = np.vstack([np.column_stack(model.predict(matrix[row : row + 1])) for row in range(100)])
    np.testing.assert_array_equal(together, alone)


def test_many_customers_are_predicted_in_parts_that_change_nothing(tmp_path: Path) -> None:
    model = load_model(tmp_path / write_bundle(tmp_path), "USD")
    matrix = feature_matrix([message.features for message in feature_messages(100)])
    many = np.resize(np.arange(100), ROWS_AT_ONCE + 30)
    for whole, part in zip(model.predict(matrix[many]), model.predict(matrix), strict=True):
        np.testing.assert_array_equal(whole, part[many])


def test_no_customers_need_no_call(tmp_path: Path) -> None:
    model = load_model(tmp_path / write_bundle(tmp_path), "USD")
    assert [len(column) for column in model.predict(np.empty((0, len(FEATURE_NAMES))))] == [0] * len(OUTPUT_NAMES)
    with pytest.raises(ValueError, match="expected"):
        model.predict(np.zeros((3, 2)))


def test_a_customer_without_an_order_gets_zeros(tmp_path: Path) -> None:
    model = load_model(tmp_path / write_bundle(tmp_path), "USD")
    row = features([CustomerState()], [20_000], QUINTILES, 100).features
    assert [column.tolist() for column in model.predict(row)] == [[0.0]] * len(OUTPUT_NAMES)


def test_other_features_are_refused(tmp_path: Path) -> None:
    version = write_bundle(tmp_path, feature_names=[*FEATURE_NAMES[:-1], "shoe_size"])
    with pytest.raises(KnownProblem, match="shoe_size"):
        load_model(tmp_path / version, "USD")


def test_the_same_features_in_another_order_are_refused(tmp_path: Path) -> None:
    version = write_bundle(tmp_path, feature_names=list(reversed(FEATURE_NAMES)))
    with pytest.raises(KnownProblem, match="another order"):
        load_model(tmp_path / version, "USD")


def test_another_currency_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KnownProblem, match=r"is in USD, but CLV_CURRENCY is EUR"):
        load_model(tmp_path / write_bundle(tmp_path), "EUR")


@pytest.mark.parametrize("file", [MODEL_FILE, METADATA_FILE])
def test_a_bundle_changed_after_training_is_refused(tmp_path: Path, file: str) -> None:
    folder = tmp_path / write_bundle(tmp_path)
    if file == MODEL_FILE:
        (folder / file).write_bytes(graph(scale=2.0))
    else:
        (folder / file).write_bytes((folder / file).read_bytes().replace(b'"horizon_days":90', b'"horizon_days":91'))
    with pytest.raises(KnownProblem, match="changed after"):
        load_model(folder, "USD")


def test_formatting_of_the_metadata_is_not_content(tmp_path: Path) -> None:
    folder = tmp_path / write_bundle(tmp_path, note={"b": 1.0, "a": [1e-300, 2, None]})
    text = (folder / METADATA_FILE).read_bytes()
    (folder / METADATA_FILE).write_bytes(msgspec.json.format(text, indent=2))
    assert load_model(folder, "USD").version == folder.name


def test_the_version_covers_the_border_between_graph_and_metadata() -> None:
    assert bundle_version(b"ab", b"c") != bundle_version(b"a", b"bc")
    assert metadata_without_version({"b": (1, 2), "a": 1, "model_version": "x"}) == b'{"a":1,"b":[1,2]}'


def test_a_missing_output_is_named(tmp_path: Path) -> None:
    version = write_bundle(tmp_path, graph(outputs=OUTPUT_NAMES[:-1]))
    with pytest.raises(KnownProblem, match="no output next_order_days"):
        load_model(tmp_path / version, "USD")


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    version = write_bundle(tmp_path, b"not a graph")
    with pytest.raises(KnownProblem, match="ONNX Runtime"):
        load_model(tmp_path / version, "USD")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"segment_thresholds": (3.0, 2.0, 1.0)}, "not ascending"),
        ({"value_quantiles": [1.0, 2.0]}, "value_quantiles"),
        ({"horizon_days": 0}, "horizon_days"),
        ({"quintiles": {}}, "quintiles"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    with pytest.raises(KnownProblem, match=match):
        load_model(tmp_path / write_bundle(tmp_path, **changes), "USD")


def test_a_missing_bundle_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KnownProblem, match="cannot be read"):
        load_model(tmp_path / "none", "USD")
    assert "model_version" not in metadata()
