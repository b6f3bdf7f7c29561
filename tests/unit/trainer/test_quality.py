"""The facts of a model card: an honest model is found honest, a crooked one crooked."""

from dataclasses import replace

import numpy as np
import pytest

from domain.features import FEATURE_NAMES, date_of
from domain.metrics import value_captured
from services.trainer.evaluation import MEAN, MODEL
from services.trainer.feature_groups import OTHER, feature_groups, group_of
from services.trainer.history import Targets
from services.trainer.importance import importance
from services.trainer.quality import BETTER, GAIN_POINTS, UNDECIDED, WORSE, forecast_levels, quality, share_interval
from tests.unit.trainer.backtests import ORIGIN, backtest, crooked


@pytest.fixture(scope="module")
def facts():
    return quality([backtest(), backtest(seed=1, origin_day=ORIGIN - 90, factor=0.5)])


def test_the_holdout_is_the_latest_backtest_in_short(facts):
    assert [each["from"] for each in facts["backtests"]] == [
        date_of(ORIGIN - 90).isoformat(),
        date_of(ORIGIN).isoformat(),
    ]
    assert set(facts["holdout"]) == {"from", "days", "customers", "choices", "fallbacks", "metrics"}
    assert facts["holdout"]["metrics"] == facts["backtests"][-1]["metrics"]
    assert set(facts["holdout"]["metrics"]) == {MODEL, MEAN, "past spend rate", "the truth"}


def test_a_model_that_tells_the_truth_is_calibrated_in_every_way(facts):
    latest = facts["backtests"][-1]
    assert latest["metrics"][MODEL]["bias"] == pytest.approx(0, abs=0.06)
    for row in latest["deciles"]:
        assert row["actual_interval"][0] * 0.8 <= row["predicted_mean"] <= row["actual_interval"][1] * 1.2
        assert row["above_interval"][0] <= 0.1 <= row["above_interval"][1] or abs(row["share_above_p90"] - 0.1) < 0.04
    assert latest["pit"]["shares"] == pytest.approx([0.1, 0.4, 0.4, 0.1], abs=0.025)
    for row in latest["probability"]["reliability"]:
        assert row["interval"][0] - 0.03 <= row["predicted"] <= row["interval"][1] + 0.03
    assert latest["probability"]["brier"] < latest["probability"]["brier_of_the_share"]


def test_the_lift_curve_is_that_of_value_captured(facts):
    latest = backtest()
    customers, value = value_captured(latest.targets.value, latest.outputs["expected_value"])
    points = facts["backtests"][-1]["gains"]
    assert points[0] == [0.0, 0.0]
    assert points[-1] == [1.0, pytest.approx(1.0)]
    assert [share for share, _ in points] == pytest.approx(np.linspace(0, 1, GAIN_POINTS))
    for share, gained in points:
        assert gained == pytest.approx(np.interp(share, customers, value), abs=1e-5)


def test_where_nobody_brought_anything_there_is_no_lift_curve():
    nothing = backtest()
    targets = replace(nothing, targets=replace(nothing.targets, value=np.zeros(len(nothing))))
    assert quality([targets])["backtests"][0]["gains"] == []


def test_a_model_that_says_half_is_found_out(facts):
    earlier = facts["backtests"][0]
    assert earlier["metrics"][MODEL]["bias"] < -0.4
    assert earlier["differences"]["the truth"]["bias"]["verdict"] == WORSE
    assert earlier["differences"]["the truth"]["decile_mape"]["verdict"] == WORSE
    assert earlier["pit"]["shares"][-1] > 0.15


def test_wins_are_certain_only_where_the_interval_says_so(facts):
    latest = facts["backtests"][-1]["differences"]
    assert latest["past spend rate"]["ngini"]["verdict"] == BETTER
    assert latest["past spend rate"]["mae"]["difference"] < 0
    for found in latest["the truth"].values():  # the model says the same
        assert (found["difference"], found["verdict"]) == (0.0, UNDECIDED)


def test_nobody_can_win_against_the_total_of_the_held_out_days_themselves(facts):
    assert "mae" in facts["backtests"][-1]["differences"][MEAN]
    assert not {"bias", "decile_mape"} & facts["backtests"][-1]["differences"][MEAN].keys()


def test_those_who_are_sure_to_order_are_counted_below_their_p10():
    honest = backtest()
    p = np.where(np.arange(len(honest)) < 400, 0.97, 0.2)
    low = np.where(np.arange(len(honest)) < 100, honest.targets.value + 1, honest.targets.value - 1)
    found = quality([crooked(honest, p_active=p, value_p10=np.minimum(low, honest.outputs["value_p90"]))])
    above = np.sum(honest.outputs["value_p90"][:100] <= honest.targets.value[:100])
    sure = found["backtests"][0]["sure"]
    assert sure["customers"] == 400
    assert sure["share_below_p10"] == pytest.approx((100 - above) / 400)


def test_without_a_backtest_there_are_no_facts():
    assert quality([]) == {"holdout": {}, "backtests": [], "importance": {}}


def test_the_same_backtests_give_the_same_facts(facts):
    again = quality([backtest(seed=1, origin_day=ORIGIN - 90, factor=0.5), backtest()])
    assert again == facts


def test_a_period_in_which_nobody_spent_is_measured_all_the_same():
    found = backtest(50)
    nothing = replace(found, targets=Targets(np.zeros(50), np.zeros(50)), predict=None)
    facts = quality([nothing])["backtests"][0]
    assert facts["metrics"][MODEL]["ngini"] is None
    assert facts["intervals"][MODEL]["ngini"] is None
    assert "ngini" not in facts["differences"]["past spend rate"]


def test_levels_of_a_forecast_enclose_what_came():
    outputs = {"p_active": [0.3, 0.3, 0.95, 0.95, 0.95], "value_p10": [0.0, 0.0, 5.0, 5.0, 5.0],
               "value_p50": [0.0, 0.0, 9.0, 9.0, 9.0], "value_p90": [8.0, 8.0, 20.0, 20.0, 20.0]}  # fmt: skip
    below, at = forecast_levels(
        np.array([0.0, 3.0, 2.0, 12.0, 30.0]), {name: np.array(column) for name, column in outputs.items()}
    )
    np.testing.assert_allclose(below, [0.0, 0.7, 0.05, 0.5, 0.9])
    np.testing.assert_allclose(at, [0.7, 0.9, 0.1, 0.9, 1.0])


@pytest.mark.parametrize(("share", "customers"), [(0.0, 30), (0.1, 200), (1.0, 12), (0.5, 7.5)])
def test_the_interval_of_a_share_is_wilsons(share, customers):
    low, high = share_interval(share, customers)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):  # where |share − end| is 1.96 standard errors of a true share `end`
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / customers), rel=1e-6)


def test_importance_finds_what_the_model_reads_and_nothing_else():
    found = backtest()
    assert found.predict is not None
    facts = importance(found.features, found.targets, found.predict, seed=1)
    by_group = {group["group"]: group for group in facts["groups"]}
    assert set(by_group) == {"recency", "value of an order", "refunds"}, "what is unknown of everybody is left out"
    assert by_group["refunds"]["ngini_loss"] == by_group["refunds"]["mae_rise"] == 0
    assert by_group["recency"]["ngini_loss"] > 0.1
    assert by_group["value of an order"]["ngini_loss"] > 0.02
    ends = [by_group["recency"][f"ngini_loss_{end}"] for end in ("min", "max")]
    assert ends[0] < by_group["recency"]["ngini_loss"] < ends[1]
    assert [group["ngini_loss"] for group in facts["groups"]] == sorted(
        (group["ngini_loss"] for group in facts["groups"]), reverse=True
    )


def test_every_feature_is_in_exactly_one_group():
    groups = feature_groups()
    assert sorted(column for columns in groups.values() for column in columns) == list(range(len(FEATURE_NAMES)))
    assert group_of("a feature of tomorrow") == OTHER
