"""Fitting the whole model from a history that ends at a cutoff: what it is made of, what the windows of the past taught
it, and what it falls back to. It must never look at anything from the cutoff on, and never hide a fallback.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.btyd import NotEnoughRepeatBuyers, SecondClass
from domain.metrics import area_under_roc
from domain.rfm_scores import Quintiles
from domain.season import HISTORY_DAYS_MIN, Season
from services.runtime.shutdown import KnownProblem
from services.trainer.calibration import (
    PERSISTENCE,
    SEASONS_SEEN_DAYS,
    Curve,
    Sample,
    Trial,
    balance,
    curve,
    fit_log_factors,
    level,
)
from services.trainer.corrections import TARGETS, Corrections, Window, fit_corrections, log_loss, value_measures
from services.trainer.history import History, TrainingSet
from services.trainer.intervals import Intervals, Seen, assumed_intervals, fit_intervals, upper_level
from services.trainer.leakage import training_sets
from services.trainer.progress import Progress
from services.trainer.rolling_choice import CALM, HALF_WAY, choose
from services.trainer.signals import scale_of
from services.trainer.spend_shrinkage import Rule, shrinkage
from services.trainer.structural import (
    ACTIVITY,
    FITS,
    TWO_CLOCK_MODEL,
    Structural,
    find_season,
    find_second_class,
    fit_structural,
    mean_structural,
)
from services.trainer.value_model import Raw, ValueModel
from services.trainer.windows import WINDOW_DAYS_MIN, Plan, plan_windows

__all__ = ["WINDOW_DAYS_MIN", "FittedModel", "Objective", "fit_model", "without_corrections"]

Floats = NDArray[np.float64]
Objective = Literal["balanced", "totals"]
"""balanced: no measure behind Pareto/NBD's; totals: the expected values add up to what is expected of the shop."""

REFERENCE = "Pareto/NBD"
"""The purchase model that is used, and that the whole model is held against, unless another one errs clearly less."""
FAMILY_GAIN_MIN = 0.005
CALIBRATION_ACTIVE_ROWS_MIN = 100
"""Fewest customers who order in all windows together for factors on predictions to be read from them."""


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A model, the population it was fitted on, and how it came about."""

    model: ValueModel
    known: TrainingSet
    """The customers as of the cutoff, scores included."""
    quintiles: Quintiles
    choices: dict[str, Any] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)


def fit_model(
    history: History, cutoff_day: int, horizon_days: int, progress: Progress, objective: Objective = "balanced"
) -> FittedModel:
    """Fit on what happened before cutoff_day (days since 1970, UTC). Raises KnownProblem if nobody had ordered then."""
    history = history.until(cutoff_day)
    if not len(history):
        raise KnownProblem("there is no valid order before the cutoff: choose a later --cutoff")
    plan = plan_windows(history.first_day, cutoff_day, horizon_days)
    sets = training_sets(history, [(cutoff_day, 0), *plan.windows], progress)
    if not len(sets[0]):
        raise KnownProblem("there is no valid order before the cutoff: choose a later --cutoff")
    quintiles = sets[0].fit_quintiles()
    known, *past = (each.with_quintiles(quintiles) for each in sets)
    fitting = _Fitting(history, known, horizon_days, plan, progress, objective)
    model = fitting.fit([each for each in past if len(each)])
    return FittedModel(model, known, quintiles, fitting.choices, fitting.fallbacks)


def without_corrections(fitted: FittedModel, why: str) -> FittedModel:
    """The same model with nothing left of regression and trees, and a fallback that says why."""
    plain = replace(fitted.model, corrections=None)
    choices = fitted.choices | {"correction_weights": CALM}
    return replace(fitted, model=plain, choices=choices, fallbacks=[*fitted.fallbacks, why])


class _Fitting:
    """One fit, step by step; `choices` and `fallbacks` grow as it goes."""

    def __init__(
        self, history: History, known: TrainingSet, horizon_days: int, plan: Plan, progress: Progress, objective: str
    ) -> None:
        self._history, self._known, self._horizon_days = history, known, horizon_days
        self._plan, self._progress, self._objective = plan, progress, objective
        self.choices: dict[str, Any] = {
            "objective": objective,
            "window_days": [days for _, days in plan.windows],
            "windows_as_long_as_the_horizon": plan.full,
        }
        self.fallbacks: list[str] = []
        self._season: Season | None = None
        self._second: SecondClass | None = None

    def fit(self, past: list[TrainingSet]) -> ValueModel:
        if not past:
            self.fallbacks.append(
                f"only {self._known.origin_day - self._history.first_day} days of history: no earlier window to "
                "learn from"
            )
        self._progress("season")
        self._season = self._found_season()
        self._progress("classes of customers")
        self._second = self._found_second_class()
        self._progress("purchase models")
        structural, windows = self._structural(past)
        self._progress("corrections")
        fixes, rule = self._corrections(windows)
        self._progress("calibration")
        expected = structural.expect(self._known.features, self._horizon_days)
        model = ValueModel(
            self._horizon_days,
            structural,
            scale_of(self._known.features, expected, self._known.origin_day - self._history.first_day),
            fixes,
            None,
            dict.fromkeys(TARGETS),
            assumed_intervals(),
            factor=1.0,
        )
        population = model.raw(self._known.features)
        model = replace(model, shrinkage=shrinkage(rule, population.value, population.orders))
        return self._calibrated(model, windows, rule, model.shrunk(population))

    def _found_season(self) -> Season | None:
        found = find_season(self._history.daily(), self._known)
        self.choices["season"] = {
            "found": found.season is not None,
            "aic_gain": round(found.aic_gain, 1),
            "overdispersion": round(found.overdispersion, 2),
        }
        days = self._known.origin_day - self._history.first_day
        if days < HISTORY_DAYS_MIN:
            self.fallbacks.append(f"only {days} days of history: no season can be told from it")
        return found.season

    def _found_second_class(self) -> SecondClass | None:
        found = find_second_class(self._known, self._season)
        self.choices["second_class"] = {
            "found": found.second is not None,
            "log_likelihood_gain": round(found.gain, 1),
        } | ({} if found.second is None else {k: round(v, 4) for k, v in msgspec.to_builtins(found.second).items()})
        return found.second

    # ------------------------------------------------------------ the structural model

    def _structural(self, past: list[TrainingSet]) -> tuple[Structural, list[Window]]:
        """The model as of the cutoff, and each window with the same model as it would have been fitted at its origin.

        Season and second class are those known at the cutoff: a window is there to show what is left when they are.
        """
        names = tuple(FITS) if self._season is None and self._second is None else (TWO_CLOCK_MODEL,)
        errors = {name: found for name in names if (found := self._errors(past, name)) is not None}
        self.choices["purchase_model_candidates"] = {name: round(error, 5) for name, error in errors.items()}
        name = _best(errors)
        structural = None if name is None else self._fitted(self._known, name)
        if structural is None:
            self.fallbacks.append(
                "too few repeat buyers for a purchase model: everybody is expected to do what the mean customer did"
            )
            structural = mean_structural(past, self._known)
            self.choices["structural"] = structural.name
            return structural, [self._window(each, structural) for each in past]
        self.choices["structural"] = structural.name
        if structural.spend is None:
            self.fallbacks.append("too few repeat buyers for a spend model: everybody is expected to spend the mean")
        windows = []
        for each in past:
            fitted = self._fitted(each, structural.name)
            if fitted is None:
                self.fallbacks.append(
                    f"too few repeat buyers before the window of {each.horizon_days} days from day "
                    f"{each.origin_day - self._history.first_day} of the history: left out"
                )
            else:
                windows.append(self._window(each, fitted))
        return self._with_activity(structural, windows)

    def _window(self, known: TrainingSet, structural: Structural) -> Window:
        return Window(known, structural, known.origin_day - self._history.first_day)

    def _fitted(self, known: TrainingSet, name: str) -> Structural | None:
        return _fitted(known, name, self._season, self._second)

    def _errors(self, past: list[TrainingSet], name: str) -> float | None:
        """Mean logarithm of all measures over the windows; without any, the negative log-likelihood per customer."""
        found = []
        for each in past:
            fitted = self._fitted(each, name)
            if fitted is None:
                continue
            expected, targets = fitted.expect(each.features, each.horizon_days), each.known_targets
            measures = [
                *value_measures(targets.value, expected.value),
                log_loss(targets.active, expected.p_active),
            ]
            found.append(float(np.log(np.maximum(np.nan_to_num(measures, nan=1.0), 1e-9)).mean()))
        if found:
            return float(np.mean(found))
        fitted = self._fitted(self._known, name)
        return None if fitted is None or fitted.fit is None else -fitted.fit.log_likelihood / fitted.fit.customers

    def _with_activity(self, structural: Structural, windows: list[Window]) -> tuple[Structural, list[Window]]:
        """Both with the reading of p_active that told best, over the windows, who ordered."""
        scores = {}
        for activity in ACTIVITY:
            read = [replace(each, structural=replace(each.structural, activity=activity)) for each in windows]
            ranks = [area_under_roc(each.happened("p_active"), each.expected.p_active) for each in read]
            known = [(rank, self._weight(each)) for rank, each in zip(ranks, read, strict=True) if rank == rank]
            if known:
                scores[activity] = sum(rank * weight for rank, weight in known) / sum(weight for _, weight in known)
        best = max(scores, key=lambda each: scores[each]) if scores else 1.0
        self.choices["activity"] = {f"{name:g}": round(score, 5) for name, score in scores.items()}
        return replace(structural, activity=best), [
            replace(each, structural=replace(each.structural, activity=best)) for each in windows
        ]

    def _weight(self, window: Window) -> float:
        """Of a window: the more history it had before it, the more it is like the whole."""
        first = self._history.first_day
        return (window.known.origin_day - first + 1) / (self._known.origin_day - first + 1)

    # ------------------------------------------------------------ corrections

    def _corrections(self, windows: list[Window]) -> tuple[Corrections | None, Rule | None]:
        """Fitted to all windows, followed as far as choose() says, and the rule by which spend is shrunk."""
        references = [self._reference(window.known, window.structural) for window in windows]
        choice = choose(windows, references, 1.0 if self._plan.full else HALF_WAY)
        self.choices["correction_weights"] = dict(choice.weights)
        self.choices["spend_shrinkage"] = choice.rule and choice.rule._asdict()
        self.choices["corrections"] = choice.facts
        if choice.fallback is not None:
            self.fallbacks.append(choice.fallback)
        if not any(choice.weights.values()):
            return None, choice.rule
        return fit_corrections(windows, choice.weights), choice.rule

    def _reference(self, known: TrainingSet, otherwise: Structural) -> Floats:
        """What the model that the whole one is held against expects of the value of a set's customers, (n,)."""
        days = known.horizon_days or self._horizon_days
        return (_fitted(known, REFERENCE) or otherwise).expect(known.features, days).value

    def _raw_as_of(self, model: ValueModel, window: Window, rule: Rule | None) -> Raw:
        """What the model would have said of a window's customers at its origin, for the window's days."""
        days = window.known.horizon_days
        plain = replace(model, structural=window.structural, scale=window.scale, horizon_days=days, shrinkage=None)
        raw = plain.raw(window.known.features)
        return replace(plain, shrinkage=shrinkage(rule, raw.value, raw.orders)).shrunk(raw)

    # ------------------------------------------------------------ calibration

    def _calibrated(self, model: ValueModel, windows: list[Window], rule: Rule | None, population: Raw) -> ValueModel:
        """population: what the model says of the customers as of the cutoff, not calibrated."""
        active = sum(float(window.happened("p_active").sum()) for window in windows)
        raws = [self._raw_as_of(model, window, rule) for window in windows]
        if not windows or active < CALIBRATION_ACTIVE_ROWS_MIN:
            self.fallbacks.append(
                "too few customers ordered in earlier windows: predictions are as the purchase model has them"
            )
            return replace(model, intervals=self._intervals(windows, list(raws)))
        persistence = self._persistence()
        factors = {target: fit_log_factors(self._samples(windows, raws, target), persistence) for target in TARGETS}
        own = [{t: curve(factors[t], getattr(raw, t)) for t in TARGETS} for raw in raws]
        known = [replace(model, curves=each).calibrated(raw) for each, raw in zip(own, raws, strict=True)]
        intervals = self._intervals(windows, known)
        curves: dict[str, Curve | None] = {t: curve(factors[t], getattr(population, t)) for t in TARGETS}
        p_active = replace(model, curves=curves).calibrated(population).p_active
        intervals = replace(intervals, upper_level=upper_level(p_active))
        self.choices["upper_level"] = round(intervals.upper_level, 3)
        self.choices["log_factors"] = {t: [round(float(each), 4) for each in factors[t]] for t in TARGETS}
        return replace(model, curves=curves, intervals=intervals, factor=self._factor(model, windows, raws, population))

    def _persistence(self) -> float:
        """How much of the windows' level is expected of the days to come."""
        days = self._known.origin_day - self._history.first_day
        return 0.0 if self._season is not None and days < SEASONS_SEEN_DAYS else PERSISTENCE

    def _samples(self, windows: list[Window], raws: list[Raw], target: str) -> list[Sample]:
        return [
            Sample(getattr(raw, target), window.happened(target), self._weight(window))
            for window, raw in zip(windows, raws, strict=True)
        ]

    def _intervals(self, windows: list[Window], known: list[Raw]) -> Intervals:
        seen = [
            Seen(raw.value, raw.orders, raw.p_active, window.happened("value"), window.happened("p_active"))
            for window, raw in zip(windows, known, strict=True)
        ]
        found = fit_intervals(seen)
        if found is None:
            self.fallbacks.append("too few customers ordered in earlier windows: quantiles are those of a usual spread")
            return assumed_intervals()
        return found

    def _factor(self, model: ValueModel, windows: list[Window], raws: list[Raw], population: Raw) -> float | None:
        """What expected_value is the raw value times: see calibration.balance(). None: the calibrated curve itself."""
        found = level(self._samples(windows, raws, "value"), self._persistence())
        self.choices["level"] = {
            "ratio": round(float(np.exp(found.log_ratio)), 4),
            "of_each_window": [round(float(np.exp(each)), 4) for each in found.log_ratios],
            "believed": round(found.kept, 4),
        }
        if self._objective == "totals":
            return None
        of_baseline = float(self._reference(self._known, model.structural).sum())
        calibrated = float(population.value.sum()) * float(np.exp(found.log_ratio))
        above = calibrated / of_baseline if of_baseline > 0 else 1.0
        chosen = balance([self._trial(window, raw) for window, raw in zip(windows, raws, strict=True)], above)
        self.choices["balance"] = {
            "calibrated_total_by_baseline": round(above, 4),
            "share_of_calibrated_total": round(chosen.share, 4),
            "mae_change": round(chosen.mae_change, 5),
            "rmse_change": round(chosen.rmse_change, 5),
        }
        return float(np.exp(found.log_ratio) * chosen.share)

    def _trial(self, window: Window, raw: Raw) -> Trial:
        expected = self._reference(window.known, window.structural)
        return Trial(expected, raw.value, window.happened("value"), self._weight(window))


def _fitted(
    known: TrainingSet, name: str, season: Season | None = None, second: SecondClass | None = None
) -> Structural | None:
    try:
        return fit_structural(known, name, season, second)
    except (NotEnoughRepeatBuyers, ValueError):
        return None


def _best(errors: dict[str, float]) -> str | None:
    """REFERENCE, unless another errs less by FAMILY_GAIN_MIN (of the logarithm, so about half a percent)."""
    if not errors:
        return None
    best = min(errors, key=lambda name: errors[name])
    if REFERENCE in errors and errors[REFERENCE] - errors[best] < FAMILY_GAIN_MIN:
        return REFERENCE
    return best
