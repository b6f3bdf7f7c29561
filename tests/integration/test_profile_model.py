"""The classic profile model as an operator makes it: 20,000 customers, three years, every candidate. What the folder
holds is measured again here, on values added up from the orders without the product's own folding."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from domain.features import INPUT_NAMES
from schemas.profile_model import CANDIDATES_FOLDER, CARD_MARKDOWN_FILE, INPUT_NAME, MODEL_FILE, OUTPUT_NAME
from services.inference.profile_model import load_profile, what_if
from services.trainer.judged_rows import judge
from services.trainer.profile.candidates import NETWORK, PRODUCT, ensembles
from services.trainer.profile.table import ProfileTable, Split, generated_shop, generated_table, split_customers
from services.trainer.profile.writer import candidate_file

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
CUSTOMERS, YEARS, SEED = 20_000, 3, 11
R_SQUARED_MIN = 0.9999
Floats = NDArray[np.float64]


class Made(NamedTuple):
    """What the command made, and the table it was made from."""

    folder: Path
    metadata: dict[str, Any]
    said: str
    table: ProfileTable
    split: Split


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("profile")
    done = subprocess.run(
        [
            sys.executable, "-m", "cli", "train-profile", "--customers", str(CUSTOMERS), "--years", str(YEARS),
            "--seed", str(SEED), "--output", folder, "--with-keras", "--json", folder / "said.json",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = generated_table(CUSTOMERS, YEARS, SEED)
    split = split_customers(table.customer_ids, SEED)
    table = table.with_quintiles(table.fit_quintiles(split.training))
    return Made(folder, json.loads((folder / "said.json").read_text()), done.stdout, table, split)


@pytest.fixture(scope="module")
def spent(made: Made) -> Floats:
    """Each customer's money by adding up the file's valid orders, each id once."""
    rows = judge(generated_shop(CUSTOMERS, YEARS, SEED)[0].table, made.table.currency)
    kept = np.flatnonzero(rows.valid & ~rows.is_refund)
    amounts: dict[tuple[str, str], tuple[int, int]] = {}
    for customer, order, at, minor in zip(
        rows.customer_ids[kept].tolist(), rows.order_ids[kept].tolist(), rows.at_ms[kept].tolist(),
        rows.amount_minor[kept].tolist(), strict=True,
    ):  # fmt: skip
        amounts[customer, order] = max(amounts.get((customer, order), (0, 0)), (at, minor))
    totals: dict[str, int] = {}
    for (customer, _), (_, minor) in amounts.items():
        totals[customer] = totals.get(customer, 0) + minor
    return np.array([totals[customer] / 100 for customer in made.table.customer_ids])


def answers(graph: Path, inputs: Floats) -> Floats:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: inputs})[0])[:, 0]


def r_squared(actual: Floats, predicted: Floats) -> float:
    return float(1 - np.square(predicted - actual).sum() / np.square(actual - actual.mean()).sum())


def test_the_table_is_of_twenty_thousand_customers_and_three_years(made: Made, spent: Floats) -> None:
    assert made.metadata["customers"]["all"] == len(made.table) == CUSTOMERS
    assert made.metadata["customers"]["test"] == made.split.test.sum() > 3500
    assert made.metadata["data_fingerprint"] == made.table.fingerprint
    assert made.table.inputs[:, INPUT_NAMES.index("customer_lifetime_days")].max() >= 3 * 365
    np.testing.assert_allclose(made.table.value, spent, rtol=1e-12)


@pytest.mark.parametrize("name", [*ensembles(0), NETWORK])
def test_every_candidate_explains_all_but_a_ten_thousandth_on_held_out_customers(
    made: Made, spent: Floats, name: str
) -> None:
    test = made.split.test
    found = r_squared(
        spent[test], answers(made.folder / CANDIDATES_FOLDER / candidate_file(name), made.table.inputs[test])
    )
    assert found >= R_SQUARED_MIN
    assert made.metadata["candidates"][name]["r2"] == pytest.approx(found, abs=1e-9)


def test_the_chosen_model_is_the_one_that_is_served(made: Made, spent: Floats) -> None:
    test, model = made.split.test, load_profile(made.folder, "USD")
    inputs = made.table.inputs[test]
    assert r_squared(spent[test], model.predict(inputs)) >= R_SQUARED_MIN
    np.testing.assert_allclose(model.predict(inputs), answers(made.folder / MODEL_FILE, inputs), rtol=1e-9)
    form = dict(zip(INPUT_NAMES, inputs[0].tolist(), strict=True))
    assert what_if(model, {**form, "customer_age": None}) == pytest.approx(spent[test][0], rel=1e-4)


def test_each_graph_says_what_its_original_says(made: Made) -> None:
    for name, figures in made.metadata["candidates"].items():
        assert figures["parity_rows"] > made.split.test.sum(), name
        assert figures["parity_error_max"] <= 1e-4, name


def test_the_card_puts_the_product_beside_the_candidates(made: Made) -> None:
    card = (made.folder / CARD_MARKDOWN_FILE).read_text()
    assert "arithmetic, not foresight" in made.said
    assert "(almost) total_orders × average_order_value" in card
    assert f"| {PRODUCT} (reference) | 1.0" in card
    assert all(name in card and name.split()[0] in made.said for name in (*ensembles(0), NETWORK))
    assert 0.9 < made.metadata["references"][PRODUCT]["r2_of_net_value"] < R_SQUARED_MIN, "refunds are not foreseen"


def test_trees_without_the_scale_fall_short(made: Made) -> None:
    """The finding that the design rests on: if it no longer holds, the scale is needless."""
    assert {each["target"] for each in made.metadata["unscaled"]} == {"money", "log of money"}
    assert max(each["r2"] for each in made.metadata["unscaled"]) < R_SQUARED_MIN
