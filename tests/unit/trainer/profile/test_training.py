"""What is trained: accuracy that a shuffled target would not have, held-out customers without a say, the folder, the
card and the loader that refuses what does not belong to this code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from domain.features import INPUT_NAMES, engineer
from schemas.profile_model import (
    CANDIDATES_FOLDER,
    CARD_HTML_FILE,
    CARD_MARKDOWN_FILE,
    METADATA_FILE,
    MODEL_FILE,
    TIMINGS_FIELD,
    profile_version,
)
from services.inference.profile_model import input_row, load_profile, what_if
from services.runtime.shutdown import KnownProblem
from services.trainer.profile import network, train
from services.trainer.profile.candidates import BOOSTED_LINE, LINE, PRODUCT, ensembles
from services.trainer.profile.card import _with_code, money_text, r_squared_text
from services.trainer.profile.export import Exported, GraphDiffers
from services.trainer.profile.measures import importance, measure, r_squared
from services.trainer.profile.train import train_profile
from services.trainer.profile.writer import candidate_file
from tests.unit.trainer.profile.small import CUSTOMERS, SEED, candidates, graphs, profiles, scored, trained

FORM = {
    "customer_age": 41.0,
    "purchase_frequency": 0.75,
    "average_order_value": 50.0,
    "total_orders": 12.0,
    "customer_lifetime_days": 487.0,
    "days_since_last_purchase": 20.0,
    "frequency_score": 5.0,
}


@pytest.fixture
def without_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is trained for the record alone."""
    monkeypatch.setattr(train, "unscaled_trials", lambda *_: ())


def test_every_ensemble_learns_the_product():
    figures = trained().metadata["candidates"]
    assert set(figures) == {LINE, *ensembles(0)}
    assert all(each["r2"] > 0.999 for each in figures.values()), figures
    assert figures[BOOSTED_LINE]["r2"] > 0.99999


@pytest.mark.slow
@pytest.mark.usefixtures("without_trials")
def test_a_shuffled_target_is_seen_to_be_unlearnable(tmp_path: Path):
    random = np.random.default_rng(5)
    shuffled = replace(profiles(), value=random.permutation(profiles().value))
    figures = train_profile(shuffled, tmp_path, seed=SEED, with_network=False).metadata["candidates"]
    assert all(each["r2"] < 0.5 for each in figures.values()), figures


@pytest.mark.slow
@pytest.mark.usefixtures("without_trials")
def test_held_out_customers_have_no_say_in_what_is_fitted(tmp_path: Path):
    _, split = scored()
    other = replace(profiles(), value=np.where(split.training, profiles().value, 7 * profiles().value + 3))
    again = train_profile(other, tmp_path, seed=SEED, with_network=False)
    for name in trained().metadata["candidates"]:
        file = Path(CANDIDATES_FOLDER) / candidate_file(name)
        assert (tmp_path / file).read_bytes() == (trained().folder / file).read_bytes(), name
    assert again.metadata["candidates"][BOOSTED_LINE]["r2"] < 0.9


def test_tested_customers_have_no_say_in_what_is_chosen():
    """Where the test rows are told lies, the choice stays; where the validation rows are, it may not."""
    table, split = scored()
    fitted = [train._Fitted(each, Exported(graphs()[each.name], 0, 0.0, 0.0)) for each in candidates()]
    chosen = train._choose(fitted, table, split)
    second = min((each for each in fitted[1:] if each is not chosen), key=lambda each: each.candidate.name)
    lied = replace(table, value=np.where(split.test, second.predict(table.inputs), table.value))
    assert train._choose(fitted, lied, split) is chosen
    lied = replace(table, value=np.where(split.validation, second.predict(table.inputs), table.value))
    assert train._choose(fitted, lied, split) is second


def test_the_choice_has_the_lowest_validation_error_and_is_no_reference():
    figures = trained().metadata["candidates"]
    standing = {name: each["validation_rmse"] for name, each in figures.items() if not each["is_reference"]}
    assert trained().metadata["chosen"] == min(standing, key=standing.__getitem__)
    assert figures[LINE]["is_reference"]


def test_a_reference_is_not_chosen_even_where_it_is_right():
    table, split = scored()
    fitted = [train._Fitted(each, Exported(graphs()[each.name], 0, 0.0, 0.0)) for each in candidates()]
    assert fitted[0].candidate.is_reference
    assert train._choose(fitted, replace(table, value=fitted[0].predict(table.inputs)), split) is not fitted[0]


@pytest.mark.slow
def test_the_same_table_and_seed_give_the_same_version(tmp_path: Path):
    again = train_profile(profiles(), tmp_path, seed=SEED, with_network=False)
    assert again.version == trained().version
    assert again.metadata[TIMINGS_FIELD] != trained().metadata[TIMINGS_FIELD]


def test_too_few_customers_are_refused(tmp_path: Path):
    with pytest.raises(KnownProblem, match="too few"):
        train_profile(train_table(100), tmp_path, seed=1, with_network=False)


def train_table(count: int) -> Any:
    known = profiles()
    return replace(known, customer_ids=known.customer_ids[:count])


@pytest.mark.slow
@pytest.mark.usefixtures("without_trials")
def test_a_candidate_that_fails_the_gate_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    honest = train.export

    def refusing(candidate: Any, inputs: Any) -> Any:
        if candidate.name == BOOSTED_LINE:
            raise GraphDiffers(f"{BOOSTED_LINE}: the ONNX graph is wrong")
        return honest(candidate, inputs)

    monkeypatch.setattr(train, "export", refusing)
    found = train_profile(profiles(), tmp_path, seed=SEED, with_network=False)
    assert found.metadata["chosen"] != BOOSTED_LINE
    assert BOOSTED_LINE not in found.metadata["candidates"]
    assert "the ONNX graph is wrong" in (tmp_path / CARD_MARKDOWN_FILE).read_text()


# ---------------------------------------------------------------- the folder and the card


def test_the_folder_holds_graph_metadata_card_and_every_candidate():
    folder, chosen = trained().folder, trained().metadata["chosen"]
    for name in (MODEL_FILE, METADATA_FILE, CARD_MARKDOWN_FILE, CARD_HTML_FILE):
        assert (folder / name).stat().st_size > 1000
    assert (folder / MODEL_FILE).read_bytes() == (folder / CANDIDATES_FOLDER / candidate_file(chosen)).read_bytes()
    assert json.loads((folder / METADATA_FILE).read_text()) == json.loads(json.dumps(trained().metadata))
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("file", [CARD_MARKDOWN_FILE, CARD_HTML_FILE])
def test_the_card_says_that_it_measures_arithmetic(file: str):
    text = (trained().folder / file).read_text()
    assert "Arithmetic, not foresight" in text
    assert "(almost) total_orders × average_order_value" in text
    assert "before refunds" in text
    assert f"{trained().metadata['references'][PRODUCT]['r2_of_net_value']:.4f}" in text
    for name in (PRODUCT, *trained().metadata["candidates"]):
        assert name in text
    for name in INPUT_NAMES:
        assert name in text


def test_the_trivial_product_stands_in_the_same_table_and_beats_or_equals_all():
    lines = (trained().folder / CARD_MARKDOWN_FILE).read_text().splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith(f"| {PRODUCT}"))
    assert lines[at + 1].startswith(f"| {LINE} (reference)")
    assert any(line.startswith(f"| **{trained().metadata['chosen']}**") for line in lines[at:])
    product = trained().metadata["references"][PRODUCT]
    assert product["r2"] >= max(each["r2"] for each in trained().metadata["candidates"].values())
    assert product["r2_of_net_value"] < product["r2"]


def test_the_page_needs_nothing_from_elsewhere():
    page = (trained().folder / CARD_HTML_FILE).read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page


def test_what_stands_in_backticks_is_code_on_the_page():
    assert "<code>./clv train</code>" in (trained().folder / CARD_HTML_FILE).read_text()
    assert _with_code("a < b, `c & d`") == "a &lt; b, <code>c &amp; d</code>"


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.00000000"), (1 - 1e-12, "0.99999999"), (0.5, "0.50000000"), (float("nan"), "–")]
)
def test_only_what_is_perfect_reads_as_perfect(value: float, text: str):
    assert r_squared_text(value) == text


def test_small_errors_in_money_are_not_shown_as_none():
    assert money_text(0.00031) == "3.1e-04"
    assert money_text(1234.5) == "1,234.50"


def test_only_orders_and_their_average_matter():
    lost = trained().metadata["importance"]["inputs"]
    assert set(lost) == set(INPUT_NAMES)
    assert min(lost["total_orders"], lost["average_order_value"]) > 0.05
    assert max(value for name, value in lost.items() if name not in ("total_orders", "average_order_value")) < 1e-6


# ---------------------------------------------------------------- measures


def test_measures_by_hand():
    found = measure(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert found == pytest.approx({"r2": 0.5, "mae": 1 / 3, "mape": 1 / 9, "rmse": (1 / 3) ** 0.5})
    assert np.isnan(r_squared(np.ones(3), np.ones(3)))


def test_importance_is_what_shuffling_loses():
    rows = np.random.default_rng(1).normal(size=(400, 2))
    found = importance(lambda asked: asked[:, 0], rows, rows[:, 0], ("first", "second"), 1)
    assert found["first"] == pytest.approx(2.0, abs=0.3)  # a difference of two draws varies twice as much as one
    assert found["second"] == 0


# ---------------------------------------------------------------- loading and the form


def test_the_form_gets_orders_times_average():
    model = load_profile(trained().folder, "USD")
    assert what_if(model, FORM) == pytest.approx(600.0, rel=1e-4)
    assert what_if(model, {**FORM, "total_orders": 3}) == pytest.approx(150.0, rel=1e-4)


def test_the_age_may_be_missing_and_nothing_else():
    model = load_profile(trained().folder)
    without = {name: value for name, value in FORM.items() if name != "customer_age"}
    assert what_if(model, without) == what_if(model, {**FORM, "customer_age": None}) > 0
    for name in INPUT_NAMES[1:]:
        with pytest.raises(ValueError, match=f"{name} is missing"):
            what_if(model, {**FORM, name: None})
        with pytest.raises(ValueError, match=f"{name} is no number"):
            what_if(model, {**FORM, name: float("nan")})
    with pytest.raises(ValueError, match="no input shoe_size"):
        what_if(model, {**FORM, "shoe_size": 43.0})


def test_the_model_engineers_with_its_own_quintiles():
    model = load_profile(trained().folder)
    row = input_row(FORM)
    np.testing.assert_array_equal(model.engineered(row), engineer(row, model.head.quintiles))
    assert model.engineered(row).shape == (1, 18)


def test_other_shapes_are_refused_and_no_rows_are_none():
    model = load_profile(trained().folder)
    assert model.predict(np.empty((0, 7))).shape == (0,)
    with pytest.raises(ValueError, match="expected \\(n, 7\\) inputs"):
        model.predict(np.ones((2, 18)))


def changed_copy(folder: Path, **fields: Any) -> Path:
    """The trained folder with other metadata, and a version that fits it."""
    metadata = json.loads((trained().folder / METADATA_FILE).read_text()) | fields
    onnx_bytes = (trained().folder / MODEL_FILE).read_bytes()
    metadata["model_version"] = profile_version(onnx_bytes, metadata)
    (folder / MODEL_FILE).write_bytes(onnx_bytes)
    (folder / METADATA_FILE).write_text(json.dumps(metadata))
    return folder


def test_a_model_of_other_features_is_refused(tmp_path: Path):
    names = list(INPUT_NAMES)
    assert load_profile(changed_copy(tmp_path)).head.input_names == names
    with pytest.raises(KnownProblem, match=r"other inputs than this version has \(customer_age, shoe_size\)"):
        load_profile(changed_copy(tmp_path, input_names=["shoe_size", *names[1:]]))
    with pytest.raises(KnownProblem, match="the same names in another order"):
        load_profile(changed_copy(tmp_path, input_names=names[::-1]))
    with pytest.raises(KnownProblem, match="other engineered features"):
        load_profile(changed_copy(tmp_path, engineered_names=trained().metadata["engineered_names"][:-1]))


def test_a_model_that_was_changed_after_training_is_refused(tmp_path: Path):
    changed_copy(tmp_path)
    (tmp_path / METADATA_FILE).write_text((tmp_path / METADATA_FILE).read_text().replace('"USD"', '"EUR"'))
    with pytest.raises(KnownProblem, match="changed after training"):
        load_profile(tmp_path)


def test_timings_are_no_part_of_the_content(tmp_path: Path):
    metadata = json.loads((changed_copy(tmp_path) / METADATA_FILE).read_text())
    metadata[TIMINGS_FIELD] = {}
    (tmp_path / METADATA_FILE).write_text(json.dumps(metadata))
    assert load_profile(tmp_path).head.model_version == trained().version


def test_a_model_in_another_currency_is_refused():
    with pytest.raises(KnownProblem, match="in USD, not in EUR"):
        load_profile(trained().folder, "EUR")


def test_no_model_at_all_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(KnownProblem, match="clv train-profile"):
        load_profile(tmp_path)


def test_another_graph_is_refused(tmp_path: Path):
    changed_copy(tmp_path)
    (tmp_path / MODEL_FILE).write_bytes(b"no graph")
    metadata = json.loads((tmp_path / METADATA_FILE).read_text())
    metadata["model_version"] = profile_version(b"no graph", metadata)
    (tmp_path / METADATA_FILE).write_text(json.dumps(metadata))
    with pytest.raises(KnownProblem, match="no model that ONNX Runtime can load"):
        load_profile(tmp_path)


# ---------------------------------------------------------------- the command


@pytest.mark.slow
@pytest.mark.usefixtures("without_trials")
def test_without_keras_the_command_says_how_to_get_it_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "keras_is_installed", lambda: False)
    done = CliRunner().invoke(
        app, ["train-profile", "--customers", "600", "--years", "1", "--output", str(tmp_path), "--with-keras"]
    )
    assert done.exit_code == 0, done.output
    assert done.output.count("Keras") == 1
    assert "locks/keras.txt" in done.output
    assert "arithmetic, not foresight" in done.output
    assert what_if(load_profile(tmp_path), FORM) == pytest.approx(600.0, rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("without_trials")
def test_the_command_takes_a_shops_own_orders(tmp_path: Path):
    rows = ["order_id,customer_id,occurred_at,amount"]
    random = np.random.default_rng(1)
    for customer in range(CUSTOMERS):
        for place in range(int(random.geometric(0.4))):
            day = f"2024-{random.integers(1, 13):02d}-{random.integers(1, 29):02d}"
            rows.append(f"o{customer}-{place},c{customer},{day},{random.lognormal(3.5, 0.8):.2f}")
    (tmp_path / "orders.csv").write_text("\n".join(rows) + "\n")
    done = CliRunner().invoke(
        app,
        ["train-profile", "--orders", str(tmp_path / "orders.csv"), "--without-keras", "--output", str(tmp_path /
        "out"), "--json", str(tmp_path / "metadata.json")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["orders"] == len(rows) - 1
    assert metadata["age_missing_share"] == 1.0
    assert metadata["candidates"][metadata["chosen"]]["r2"] > 0.9999
