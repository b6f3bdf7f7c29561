"""How far corrections are followed and how spend is shrunk, chosen by windows that they were not fitted to, in the
order of time. It must never look at a window that it also fits to."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.trainer.corrections import TARGETS, Window, fit_corrections, log_measures, weighed
from services.trainer.spend_shrinkage import RULES, USUAL, Rule, shrinkage

Floats = NDArray[np.float64]

WEIGHTS = (0.0, 0.5, 1.0)
HALF_WAY = 0.5
"""How far corrections are followed at most where nothing says how good they are, because there is one window only, or
where all windows are shorter than the horizon: then they were learnt from younger customers than those who are
predicted."""
TESTED_WINDOWS_MAX = 2
"""The latest ones."""
ACTIVE_ROWS_MIN = 150
"""Fewest customers who order in the windows that corrections are fitted to; below, they learn noise."""
HARM_WEIGHT = 1.0
"""How many times over the measure that suffers most counts against a choice once more: none should fall behind."""
CALM = dict.fromkeys(TARGETS, 0.0)

Option = tuple[float, Rule | None]
"""(weight, rule)"""


class Choice(NamedTuple):
    """What was chosen, and why."""

    weights: Mapping[str, float]
    rule: Rule | None
    facts: dict[str, Any]
    """For the model card: gains of the weights over none, by target, and how many windows were tested on."""
    fallback: str | None
    """What an operator should know of it, if anything."""


def choose(windows: Sequence[Window], references: Sequence[Floats], weight_max: float) -> Choice:
    """Fit to the windows before each of the latest ones, and see which weights and rule would have been best there.

    windows: by time. references: the reference model's expected value of each one's customers, (n,). weight_max: how
    far corrections may be followed. The gain of an option is the mean fall of the logarithms of all measures against
    the reference, less HARM_WEIGHT times what the worst of them grows; totals are made equal first, as they are set
    elsewhere."""
    if not windows or windows[0].structural.orders is None:
        return Choice(CALM, None, {}, None)
    active = np.cumsum([float(window.happened("p_active").sum()) for window in windows])
    if active[-1] < ACTIVE_ROWS_MIN:
        return Choice(
            CALM, USUAL, {}, "too few customers ordered in earlier windows: nothing corrects the purchase model"
        )
    tested = [place for place in range(1, len(windows)) if active[place - 1] >= ACTIVE_ROWS_MIN][-TESTED_WINDOWS_MAX:]
    if not tested:
        return Choice(
            dict.fromkeys(TARGETS, min(weight_max, HALF_WAY)),
            USUAL,
            {"tested_windows": 0},
            "too few earlier windows to test corrections of the purchase model on: they are followed half way",
        )
    values: list[dict[Option, Floats]] = []
    others: list[dict[tuple[str, float], Floats]] = []
    for place in tested:
        by_value, by_other = _tried(windows[:place], windows[place], references[place])
        values.append(by_value)
        others.append(by_other)
    allowed = [weight for weight in WEIGHTS if weight <= weight_max]
    gains = {option: _gain([each[option] for each in values]) for option in values[0] if option[0] in allowed}
    weight, rule = max(gains, key=lambda option: gains[option])
    weights, facts = {"value": weight}, {"value": {f"{w:g}": round(gains[w, rule], 6) for w in allowed}}
    for target in ("orders", "p_active"):
        found = {w: _gain([each[target, w] for each in others]) for w in allowed}
        weights[target] = max(allowed, key=lambda w: found[w])
        facts[target] = {f"{w:g}": round(gain, 6) for w, gain in found.items()}
    return Choice(weights, rule, {"tested_windows": len(tested), "gains": facts}, None)


def _tried(
    earlier: Sequence[Window], later: Window, reference: Floats
) -> tuple[dict[Option, Floats], dict[tuple[str, float], Floats]]:
    """Log measures of each option for value, less the reference's; and of each (target, weight), less the
    expectation's."""
    fitted = fit_corrections(earlier, CALM)
    expected, days = later.expected, later.known.horizon_days
    opinions = fitted.opinions(later.known.features, expected, days, later.scale)
    happened = {target: later.happened(target) for target in TARGETS}
    of_reference = log_measures("value", happened["value"], reference)
    by_value: dict[Option, Floats] = {}
    by_other: dict[tuple[str, float], Floats] = {}
    for weight in WEIGHTS:
        each = weighed(expected, opinions, dict.fromkeys(TARGETS, weight))
        for target in ("orders", "p_active"):
            base = log_measures(target, happened[target], getattr(expected, target))
            by_other[target, weight] = log_measures(target, happened[target], getattr(each, target)) - base
        for rule in RULES:
            shrunk = shrinkage(rule, each.value, each.orders)
            value = each.value if shrunk is None else shrunk(each.value, each.orders)
            by_value[weight, rule] = log_measures("value", happened["value"], value) - of_reference
    return by_value, by_other


def _gain(changes: Sequence[Floats]) -> float:
    change = np.mean(changes, axis=0)
    return float(-change.mean() - HARM_WEIGHT * max(0.0, float(change.max())))
