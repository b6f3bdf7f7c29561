"""Training on small, odd and hopeless shops: it falls back and says so, and never looks behind the cutoff."""

import shutil
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.training import score_customers
from domain.features import day_of
from schemas.model_bundle import OUTPUT_NAMES
from services.inference.model import load_model
from services.runtime.bundle import current_bundle
from services.runtime.shutdown import KnownProblem
from services.trainer.intervals import pinball
from services.trainer.sources.orders import from_table
from services.trainer.train import TrainedBundle, train
from services.trainer.windows import plan_windows
from tests.unit.trainer.shops import FIRST_DAY, order, shop, table


def trained(
    folder: Path, rows: list[dict[str, str]], days: int, horizon_days: int, currency: str = "USD"
) -> TrainedBundle:
    return train(from_table(table(rows), FIRST_DAY + timedelta(days=days), currency), horizon_days, folder)


def test_a_shop_where_nobody_comes_back_gets_the_mean(tmp_path: Path) -> None:
    bundle = trained(tmp_path, shop(300, 200, repeats=False), 200, 90)
    assert bundle.metadata["structural"]["name"] == "mean"
    assert any("purchase model" in each for each in bundle.metadata["fallbacks"])
    assert load_model(bundle.path, "USD").version == bundle.version


def test_one_order_is_enough_for_a_bundle(tmp_path: Path) -> None:
    bundle = trained(tmp_path, [order(1, "a", 0)], 1, 30)
    assert bundle.metadata["holdout"] == {}
    assert bundle.metadata["counts"] == {"customers": 1, "events": 1, "rejected": {}}
    assert load_model(bundle.path, "USD").predict(np.full((1, len(bundle.metadata["feature_names"])), np.nan))


@pytest.fixture(scope="module")
def bundle_of_600(tmp_path_factory: pytest.TempPathFactory) -> TrainedBundle:
    return trained(tmp_path_factory.mktemp("models"), shop(600, 200), 200, 60)


@pytest.mark.slow
def test_six_hundred_customers_fall_back_visibly(bundle_of_600: TrainedBundle) -> None:
    bundle = bundle_of_600
    assert bundle.metadata["structural"]["name"] in ("BG/NBD", "MBG/NBD", "Pareto/NBD")
    card = (bundle.path / "model_card.md").read_text()
    for fallback in bundle.metadata["fallbacks"]:
        assert fallback in card
    metrics = bundle.metadata["holdout"]["metrics"]
    assert metrics["model"]["rmse"] < metrics["past spend rate"]["rmse"]


@pytest.mark.slow
@pytest.mark.long
def test_enough_history_trains_and_tests_corrections_too(tmp_path: Path) -> None:
    bundle = trained(tmp_path, shop(800, 400), 400, 40)
    choices = bundle.metadata["choices"]
    assert choices["corrections"]["tested_windows"] == 2
    assert set(choices["corrections"]["gains"]) == {"value", "orders", "p_active"}
    assert choices["windows_as_long_as_the_horizon"]
    assert load_model(bundle.path, "USD").version == bundle.version


@pytest.fixture(scope="module")
def rows_of_300() -> list[dict[str, str]]:
    """Enough of them for corrections."""
    return [row for row in shop(300, 200) if row["occurred_at"] < (FIRST_DAY + timedelta(days=150)).isoformat()]


@pytest.fixture(scope="module")
def bundle_of_300(rows_of_300: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> TrainedBundle:
    """Trained on the days before day 150 for the 60 days from it on."""
    bundle = trained(tmp_path_factory.mktemp("models"), rows_of_300, 150, 60)
    assert "corrections" in bundle.metadata["choices"]
    return bundle


@pytest.mark.slow
def test_nothing_from_the_cutoff_on_reaches_the_bundle(
    rows_of_300: list[dict[str, str]], bundle_of_300: TrainedBundle, tmp_path: Path
) -> None:
    future = [order(f"f{day}", "c00000", day, "500.00") for day in range(150, 190)] + [order("z", "c1", 199, "0.00")]
    other = trained(tmp_path, rows_of_300 + future, 150, 60)
    assert other.version == bundle_of_300.version
    assert other.metadata == bundle_of_300.metadata


@pytest.mark.slow
def test_the_same_rows_in_another_order_give_the_same_version(
    rows_of_300: list[dict[str, str]], bundle_of_300: TrainedBundle, tmp_path: Path
) -> None:
    assert trained(tmp_path, rows_of_300[::-1], 150, 60).version == bundle_of_300.version


@pytest.mark.slow
def test_another_horizon_is_another_version(
    rows_of_300: list[dict[str, str]], bundle_of_300: TrainedBundle, tmp_path: Path
) -> None:
    shutil.copytree(bundle_of_300.path.parent, tmp_path, dirs_exist_ok=True)
    other = trained(tmp_path, rows_of_300, 150, 61)
    assert other.version != bundle_of_300.version
    assert current_bundle(tmp_path) == other.path
    assert {path.name for path in tmp_path.iterdir()} == {bundle_of_300.version, other.version, "current"}


@pytest.mark.slow
def test_rejected_rows_are_counted_by_reason(tmp_path: Path) -> None:
    broken = [order("x", "c", 5, "-1"), order("y", "", 5), order("z", "c", 5, "a")]
    bundle = trained(tmp_path, shop(50, 100) + broken, 100, 30)
    assert bundle.metadata["counts"]["rejected"] == {
        "empty_customer_id": 1,
        "invalid_amount": 1,
        "non_positive_amount": 1,
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"days": 0}, "no valid order before"),
        ({"horizon_days": 0}, "horizon must be"),
        ({"currency": "XYZ"}, "no currency"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_line(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"days": 50, "horizon_days": 30, "currency": "USD"} | change
    with pytest.raises(KnownProblem, match=says) as problem:
        trained(tmp_path, shop(20, 50), **asked)
    assert "\n" not in str(problem.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_metadata_says_what_the_scorer_and_the_sink_need(bundle_of_600: TrainedBundle) -> None:
    metadata = bundle_of_600.metadata
    assert [output["name"] for output in metadata["outputs"]] == list(OUTPUT_NAMES)
    assert len(metadata["value_quantiles"]) == 101
    assert metadata["value_quantiles"] == sorted(metadata["value_quantiles"])
    assert metadata["segment_thresholds"] == [metadata["value_quantiles"][place] for place in (25, 50, 75)]
    assert set(metadata["reference"]) == set(metadata["feature_names"])


@pytest.mark.parametrize(("period", "horizon"), [(10, 5), (34, 30), (35, 30), (273, 273), (365, 90), (2000, 30)])
def test_windows_of_the_past_end_by_the_cutoff_and_have_history_before_them(period: int, horizon: int) -> None:
    first, cutoff = day_of(FIRST_DAY), day_of(FIRST_DAY) + period
    plan = plan_windows(first, cutoff, horizon)
    assert len(set(plan.windows)) == len(plan.windows)
    for origin, days in plan.windows:
        assert origin + days <= cutoff
        assert first + days // 2 <= origin
        assert days <= horizon
        assert not plan.full or days == horizon
        if not plan.full:  # as far ahead, for what is known, as after the cutoff
            assert days / (origin - first) == pytest.approx(horizon / period, rel=0.15)
    ends = [origin + days for origin, days in plan.windows]
    assert ends == sorted(ends)
    assert not ends or ends[-1] >= cutoff - 2


@pytest.mark.slow
@pytest.mark.long
def test_totals_add_up_where_they_are_asked_for(tmp_path: Path) -> None:
    data = from_table(table(shop(800, 300)), FIRST_DAY + timedelta(days=300), "USD")
    totals = train(data, 90, tmp_path / "totals", objective="totals").metadata
    balanced = train(data, 90, tmp_path / "balanced").metadata
    assert totals["expected_total"] == pytest.approx(totals["calibrated_total"], rel=1e-9)
    assert balanced["calibrated_total"] == pytest.approx(totals["calibrated_total"], rel=1e-9)
    assert balanced["choices"]["balance"]["share_of_calibrated_total"] >= 0.8
    assert totals["model_version"] != balanced["model_version"]


def test_pinball_loss_is_least_at_the_quantiles() -> None:
    values = np.random.default_rng(0).gamma(2.0, 10.0, 5000)
    true = np.quantile(values, [0.1, 0.5, 0.9])
    losses = [pinball(values, np.tile(true * factor, (len(values), 1))) for factor in (0.8, 1.0, 1.2)]
    assert losses[1] == min(losses)


def expected_total(folder: Path, rows: list[dict[str, str]], days: int, horizon_days: int) -> float:
    bundle = trained(folder, rows, days, horizon_days)
    found = score_customers(table(rows), FIRST_DAY + timedelta(days=days), bundle.path)
    return float(np.sum(found["expected_value"]))


@pytest.mark.slow
@pytest.mark.long
def test_a_shop_that_refunds_everything_is_expected_to_bring_little(tmp_path: Path) -> None:
    rows = shop(200, 200)
    kept = expected_total(tmp_path / "kept", rows, 200, 90)
    back = [
        {**row, "type": "refund", "refund_id": f"r{n}"}
        for n, row in enumerate(rows)
        if n % 10  # the tenth that is kept is what the spend model sees
    ]
    assert expected_total(tmp_path / "back", rows + back, 200, 90) < 0.2 * kept


def test_a_few_customers_who_come_daily_are_expected_again_after_a_week(tmp_path: Path) -> None:
    """Too few for a purchase model, too short for an earlier window: the rate so far is all there is."""
    rows = [order(7 * c + day, f"c{c}", day, "10.00") for c in range(3) for day in range(7)]
    assert 0.5 * 210 < expected_total(tmp_path, rows, 7, 7) < 1.2 * 210


def test_one_day_of_history_is_no_proof_that_nobody_comes_back(tmp_path: Path) -> None:
    rows = [order(c, f"c{c}", 0, "10.00") for c in range(4)]
    assert 0 < expected_total(tmp_path, rows, 1, 30) < 40


@pytest.mark.slow
def test_one_customer_who_skipped_the_last_weeks_is_not_given_up(tmp_path: Path) -> None:
    rows = [order(n, "c", 40 * n, "10.00") for n in range(10)]  # the last order is 30 days old
    assert expected_total(tmp_path, rows, 390, 30) > 2


@pytest.mark.slow
def test_repeated_rows_are_counted_in_the_card_and_change_nothing_else(tmp_path: Path) -> None:
    rows = shop(60, 100)
    once, twice = (trained(tmp_path / str(n), rows + again, 100, 30) for n, again in enumerate(([], rows[:7])))
    assert (once.metadata["data"]["duplicates"], twice.metadata["data"]["duplicates"]) == (0, 7)
    assert twice.metadata["data"]["rows_read"] == len(rows) + 7
    for name in ("counts", "backtests", "quintiles", "limits"):
        assert once.metadata[name] == twice.metadata[name]


@pytest.mark.slow
def test_the_bundle_has_a_card_with_plots_and_says_how_sure_each_figure_is(bundle_of_600: TrainedBundle) -> None:
    bundle = bundle_of_600
    page = unescape((bundle.path / "model_card.html").read_text())
    assert page.count("<img ") == len(list((bundle.path / "plots").glob("*.svg"))) >= 7
    for limit in bundle.metadata["limits"]:
        assert limit in page
    latest = bundle.metadata["backtests"][-1]
    assert latest["metrics"] == bundle.metadata["holdout"]["metrics"]
    low, high = latest["intervals"]["model"]["mae"]
    assert low < latest["metrics"]["model"]["mae"] < high
