"""Corrections are followed where later windows say that they are right, and left alone where they are not."""

from dataclasses import replace

import numpy as np
import pytest

from domain.btyd import GammaGamma, ParetoNbd
from domain.features import FEATURE_NAMES
from services.trainer import rolling_choice
from services.trainer.corrections import TARGETS, Window
from services.trainer.history import Targets, TrainingSet
from services.trainer.rolling_choice import CALM, HALF_WAY, choose
from services.trainer.spend_shrinkage import USUAL
from services.trainer.structural import MeanRates, Structural
from tests.unit.trainer.test_export import rows

STRUCTURAL = Structural(ParetoNbd(0.6, 81.0, 0.55, 68.0), GammaGamma(6.0, 4.0, 15.0), 30.0, 1.0, name="Pareto/NBD")
ONCE = FEATURE_NAMES.index("frequency")


def window(seed: int, right: float, structural: Structural = STRUCTURAL) -> Window:
    """Customers who do what is expected, but one-time buyers `right` times as much."""
    chance = np.random.default_rng(seed)
    matrix = np.repeat(rows(), 6, axis=0)
    expected = STRUCTURAL.expect(matrix, 90)
    rate = expected.orders * np.where(matrix[:, ONCE] == 0, right, 1.0)
    orders = chance.poisson(rate).astype(float)
    value = orders * expected.value / np.maximum(expected.orders, 1e-9)
    names = tuple(f"c{place:05d}" for place in range(len(matrix)))
    known = TrainingSet(200 + seed, 90, names, np.zeros((len(matrix), 7)), matrix, Targets(orders, value))
    return Window(known, structural, 200)


def chosen(windows: list[Window], weight_max: float = 1.0) -> rolling_choice.Choice:
    return choose(windows, [each.expected.value for each in windows], weight_max)


def test_what_every_window_says_is_followed() -> None:
    choice = chosen([window(1, 3.0), window(2, 3.0), window(3, 3.0)])
    assert choice.weights["orders"] == choice.weights["p_active"] == 1.0
    assert choice.facts["tested_windows"] == 2
    assert choice.facts["gains"]["orders"]["1"] > choice.facts["gains"]["orders"]["0.5"] > 0
    assert choice.fallback is None


def test_what_the_next_window_denies_is_not_followed() -> None:
    choice = chosen([window(1, 4.0), window(2, 0.25)])
    assert choice.weights == CALM


def test_it_is_followed_no_further_than_allowed() -> None:
    choice = chosen([window(1, 3.0), window(2, 3.0), window(3, 3.0)], HALF_WAY)
    assert choice.weights["orders"] == HALF_WAY
    assert max(choice.weights.values()) <= HALF_WAY


def test_one_window_is_followed_half_way_and_few_buyers_not_at_all() -> None:
    alone = chosen([window(1, 3.0)])
    assert alone.weights == dict.fromkeys(TARGETS, HALF_WAY)
    assert alone.rule == USUAL
    assert alone.fallback is not None
    assert "half way" in alone.fallback
    quiet = window(1, 3.0)
    nobody = Targets(np.zeros(len(quiet.known)), np.zeros(len(quiet.known)))
    few = chosen([replace(quiet, known=replace(quiet.known, targets=nobody))])
    assert few.weights == CALM
    assert few.fallback is not None
    assert chosen([]).weights == CALM
    nobody_returns = Structural(None, None, 0.0, 1.0, mean=MeanRates(90, 0.1, 2.0, 0.1))
    assert chosen([window(1, 3.0, nobody_returns)]).rule is None


def test_a_tested_window_is_never_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, fitted = [window(seed, 2.0) for seed in (1, 2, 3)], []
    honest = rolling_choice.fit_corrections
    monkeypatch.setattr(rolling_choice, "fit_corrections", lambda each, w: fitted.append(list(each)) or honest(each, w))
    chosen(windows)
    assert fitted == [windows[:1], windows[:2]]
