"""Fitting the whole model from a history that ends at a cutoff: which windows of the past teach it, which one chooses,
and what it falls back to. It must never look at anything from the cutoff on, and never hide a fallback.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.btyd import NotEnoughRepeatBuyers
from domain.metrics import mean_absolute_error, root_mean_squared_error
from domain.rfm_scores import Quintiles
from services.runtime.shutdown import KnownProblem
from services.trainer import corrections, intervals
from services.trainer.corrections import NO_CORRECTION, TARGETS, Correction, Window, log_loss
from services.trainer.history import History, TrainingSet
from services.trainer.intervals import Intervals, choose_interval_weight, fit_quantile_trees, fit_spread
from services.trainer.structural import FITS, Structural, fit_structural, mean_structural
from services.trainer.value_model import ValueModel

Floats = NDArray[np.float64]
Progress = Callable[[str], None]

WINDOW_SHARE = 5
"""A window of the past is at most one part in so many of the training period, so that several fit into it."""
WINDOW_DAYS_MIN = 7
FIT_WINDOWS_MAX = 3
FIT_WINDOWS_MIN = 2
"""From a single window, trees cannot tell what lasts from what was peculiar to its days: on CDNOW their corrections
then passed the next window and spoilt the one after it (RMSE +10 %)."""
LATER_ACTIVE_ROWS_MIN = 150
"""Fewest customers who order in the window that chooses a weight."""
ALMOST_NEVER = (0.0,) * len(intervals.SPREAD_LEVELS)


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A model, the population it was fitted on, and how it came about."""

    model: ValueModel
    known: TrainingSet
    """The customers as of the cutoff, scores included."""
    quintiles: Quintiles
    choices: dict[str, Any] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Windows:
    """Origins in days since 1970; every window is `days` long and ends at the cutoff or before."""

    days: int
    later: int | None
    """The window that chooses: the last that fits."""
    fitted: tuple[int, ...]
    """Windows that end where the later one begins, or before; ascending."""


def plan_windows(first_day: int, cutoff_day: int, horizon_days: int) -> Windows:
    """Windows as long as the horizon, or as a share of a short training period; none where even that is too short."""
    period = cutoff_day - first_day
    days = min(horizon_days, period // WINDOW_SHARE)
    if days < WINDOW_DAYS_MIN:
        return Windows(days, None, ())
    later = cutoff_day - days
    step = max(days // 2, 1)
    origins = [later - days - step * back for back in range(FIT_WINDOWS_MAX)]
    return Windows(days, later, tuple(sorted(origin for origin in origins if origin - first_day >= days)))


def fit_model(history: History, cutoff_day: int, horizon_days: int, progress: Progress) -> FittedModel:
    """Fit on what happened before cutoff_day (days since 1970, UTC). Raises KnownProblem if nobody had ordered then."""
    history = history.until(cutoff_day)
    fallbacks: list[str] = []
    if not len(history):
        raise KnownProblem("there is no valid order before the cutoff: choose a later --cutoff")
    plan = plan_windows(history.first_day, cutoff_day, horizon_days)
    origins = [*plan.fitted, *([] if plan.later is None else [plan.later])]
    progress(f"features as of {1 + len(origins)} days")
    sets = history.training_sets([(cutoff_day, 0), *((origin, plan.days) for origin in origins)])
    if not len(sets[0]):
        raise KnownProblem("there is no valid order before the cutoff: choose a later --cutoff")
    quintiles = sets[0].fit_quintiles()
    known, *windows = (each.with_quintiles(quintiles) for each in sets)
    if plan.later is None:
        fallbacks.append(f"only {cutoff_day - history.first_day} days of history: no earlier window to learn from")
    progress("purchase models")
    name, candidates = _choose_purchase_model(windows[-1] if plan.later is not None else None, known)
    structural = _structural(known, windows, name, fallbacks)
    choices: dict[str, Any] = {
        "structural": structural.name,
        "purchase_model_candidates": candidates,
        "window_days": plan.days,
        "fit_windows": len(plan.fitted),
    }
    usable = _windows(windows, structural, fallbacks)
    progress("corrections")
    fitted = _corrections(usable, choices, fallbacks)
    interval = _intervals(usable, plan.days == horizon_days, choices, fallbacks)
    model = ValueModel(horizon_days, structural, fitted, interval)
    return FittedModel(model, known, quintiles, choices, fallbacks)


def _choose_purchase_model(
    later: TrainingSet | None, known: TrainingSet
) -> tuple[str | None, dict[str, dict[str, float]]]:
    """The model whose fit at the later origin erred least in the window, and the errors of each.

    Least is the mean, over MAE and RMSE of the value and the log score of ordering, of the error relative to the best
    candidate's. Without such a window, the highest log-likelihood. None if no model can be fitted."""
    errors: dict[str, dict[str, float]] = {}
    for name in FITS:
        try:
            errors[name] = _in_sample(known, name) if later is None else _window_errors(later, name)
        except (NotEnoughRepeatBuyers, ValueError):
            continue
    if not errors:
        return (None, {}) if later is None else _choose_purchase_model(None, known)
    best = {kind: min(each[kind] for each in errors.values()) for kind in next(iter(errors.values()))}

    def relative(name: str) -> float:
        return float(np.mean([error - best[kind] if best[kind] < 0 else error / (best[kind] or 1.0)
                              for kind, error in errors[name].items()]))  # fmt: skip

    return min(errors, key=relative), errors


def _in_sample(known: TrainingSet, name: str) -> dict[str, float]:
    fit = fit_structural(known, name).fit
    assert fit is not None
    return {"negative_log_likelihood": -fit.log_likelihood / fit.customers}


def _window_errors(later: TrainingSet, name: str) -> dict[str, float]:
    expected = fit_structural(later, name).expect(later.features, later.horizon_days)
    value, active = later.known_targets.value, later.known_targets.active
    return {
        "mae": mean_absolute_error(value, expected.value),
        "rmse": root_mean_squared_error(value, expected.value),
        "log_score": log_loss(active, expected.p_active),
    }


def _structural(known: TrainingSet, windows: list[TrainingSet], name: str | None, fallbacks: list[str]) -> Structural:
    if name is not None:
        try:
            structural = fit_structural(known, name)
        except (NotEnoughRepeatBuyers, ValueError):
            pass
        else:
            if structural.spend is None:
                fallbacks.append("too few repeat buyers for a spend model: everybody is expected to spend the mean")
            return structural
    fallbacks.append(
        "too few repeat buyers for a purchase model: everybody is expected to do what the mean customer did"
    )
    return mean_structural(windows, known)


def without_trees(fitted: FittedModel, why: str) -> FittedModel:
    """The same model with nothing left of its trees, and a fallback that says why."""
    model = fitted.model
    plain = replace(
        model, corrections=dict.fromkeys(TARGETS, NO_CORRECTION), intervals=Intervals(model.intervals.spread)
    )
    choices = fitted.choices | {"correction_weights": dict.fromkeys(TARGETS, 0.0), "interval_tree_weight": 0.0}
    return replace(fitted, model=plain, choices=choices, fallbacks=[*fitted.fallbacks, why])


def _windows(windows: list[TrainingSet], structural: Structural, fallbacks: list[str]) -> list[Window]:
    """Each window with the structural model as it would have been fitted at its origin."""
    found = []
    for window in windows:
        if structural.orders is None:
            found.append(Window(window, structural))
            continue
        try:
            found.append(Window(window, fit_structural(window, structural.name)))
        except (NotEnoughRepeatBuyers, ValueError):
            fallbacks.append(
                f"too few repeat buyers {window.horizon_days} days or more before the end: a window left out"
            )
    return found


def _corrections(windows: list[Window], choices: dict[str, Any], fallbacks: list[str]) -> dict[str, Correction]:
    """Trees are fitted to the earlier windows, weighted by the last, and fitted again to all of them."""
    active = [int(window.happened("p_active").sum()) for window in windows]
    enough = (
        len(windows) > FIT_WINDOWS_MIN
        and windows[0].structural.orders is not None
        and sum(active[:-1]) >= corrections.ACTIVE_ROWS_MIN
        and active[-1] >= LATER_ACTIVE_ROWS_MIN
    )
    choices["correction_weights"] = dict.fromkeys(TARGETS, 0.0)
    if not enough:
        fallbacks.append("too little history for tree corrections: the structural model stands alone")
        return dict.fromkeys(TARGETS, NO_CORRECTION)
    weights, losses = {}, {}
    for target, trees in corrections.fit_trees(windows[:-1]).items():
        weights[target], losses[target] = corrections.choose_weight(trees, windows[-1], target)
    choices["correction_weights"] = weights
    fitted = corrections.fit_trees(windows, [target for target in TARGETS if weights[target]])
    found = {t: Correction(weights[t], fitted[t]) if t in fitted else NO_CORRECTION for t in TARGETS}
    choices["correction_losses_relative"] = losses
    return found


def _intervals(windows: list[Window], full_horizon: bool, choices: dict[str, Any], fallbacks: list[str]) -> Intervals:
    spread = fit_spread(windows)
    choices["interval_tree_weight"] = 0.0
    if spread is None:
        fallbacks.append("too few customers ordered in earlier windows: quantiles are those of a constant spread")
        return Intervals(
            intervals.rising_from_nothing(np.interp(intervals.SPREAD_LEVELS, (0, 0.5, 1), (0.25, 0.8, 3.0)))
        )
    earlier = fit_spread(windows[:-1])
    if not full_horizon or len(windows) < 2 or earlier is None or windows[0].structural.orders is None:
        fallbacks.append("the training period is too short for quantile trees: quantiles from the structural model and "
                         "the spread that was seen around it")  # fmt: skip
        return Intervals(spread)
    trees = fit_quantile_trees(windows[:-1])
    weight, losses = choose_interval_weight(earlier, trees, windows[-1])
    choices["interval_tree_weight"], choices["interval_losses_relative"] = weight, losses
    return Intervals(spread, weight, fit_quantile_trees(windows)) if weight else Intervals(spread)
