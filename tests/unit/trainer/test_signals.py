"""Signals without a unit: they mean the same in another currency and for another age, and are never NaN or unbounded
where a regression uses them."""

from functools import cache

import numpy as np
import pytest

from domain.btyd import GammaGamma, ParetoNbd
from domain.features import FEATURE_NAMES
from services.trainer.export import absurd_rows
from services.trainer.regression import SIGNAL_MAX, Regression
from services.trainer.signals import NAMES, Scale, scale_of, signals
from services.trainer.structural import Expectation, Structural
from tests.unit.trainer.test_export import rows, what_if

HORIZON = 90
STRUCTURAL = Structural(ParetoNbd(0.6, 81.0, 0.55, 68.0), GammaGamma(6.0, 4.0, 15.0), 30.0, 1.0, name="Pareto/NBD")
MONEY = [place for place, name in enumerate(FEATURE_NAMES) if "value" in name or "spend" in name or name in (
    "monetary", "btyd_m", "total_spending", "spending_velocity")]  # fmt: skip


@cache
def told() -> np.ndarray:
    expected = STRUCTURAL.expect(rows(), HORIZON)
    return signals(rows(), expected, HORIZON, scale_of(rows(), expected, 200))


def of(name: str, values: np.ndarray) -> np.ndarray:
    return values[:, NAMES.index(name)]


def test_another_currency_gives_the_same_signals() -> None:
    rich = rows().copy()
    rich[:, MONEY] *= 100.0
    expected = STRUCTURAL.expect(rows(), HORIZON)
    richer = Expectation(expected.value * 100.0, expected.orders, expected.p_active)
    np.testing.assert_allclose(signals(rich, richer, HORIZON, scale_of(rich, richer, 200)), told(), atol=1e-9)


def test_signals_of_one_customer_are_what_their_names_say() -> None:
    place = int(np.flatnonzero(rows()[:, FEATURE_NAMES.index("btyd_x")] >= 3)[0])
    row = dict(zip(FEATURE_NAMES, rows()[place], strict=True))
    gap, recency = row["btyd_t_x"] / row["btyd_x"], row["btyd_T"] - row["btyd_t_x"]
    one = told()[place : place + 1]
    assert of("purchase days", one) == pytest.approx(np.log(row["btyd_x"] + 1))
    assert of("overdue: recency by usual gap", one) == pytest.approx(np.log((recency + 1) / (gap + 1)))
    assert of("last order by mean order", one) == pytest.approx(
        np.log(row["last_order_value"] / row["average_order_value"])
    )
    assert of("share of the lifetime since the last order", one) == pytest.approx(recency / row["btyd_T"])
    assert of("regularity of gaps", one) == pytest.approx(row["btyd_litt"] / row["btyd_x"] - np.log(gap))
    assert of("regularity of gaps", one) <= 1e-9, "the mean of logs is never above the log of the mean"


def test_what_a_form_does_not_know_is_unknown_and_counts_as_the_mean() -> None:
    masked = what_if(rows())
    expected = STRUCTURAL.expect(masked, HORIZON)
    found = signals(masked, expected, HORIZON, scale_of(masked, expected, 200))
    for name in ("last order by mean order", "regularity of gaps", "share refunded"):
        assert np.isnan(of(name, found)).all()
    regression = Regression(np.ones(len(NAMES)), np.ones(len(NAMES)), {})
    assert of("regularity of gaps", regression.standardised(found)).tolist() == [0.0] * len(found)


def test_absurd_rows_give_bounded_signals() -> None:
    absurd = absurd_rows(rows())
    expected = STRUCTURAL.expect(absurd, HORIZON)
    found = signals(absurd, expected, HORIZON, Scale(200.0, 28.0, 0.6, 18.0, 120.0))
    standardised = Regression(np.zeros(len(NAMES)), np.ones(len(NAMES)), {}).standardised(found)
    assert np.isfinite(standardised).all()
    assert np.abs(standardised).max() <= SIGNAL_MAX
