"""The facts of a model card about quality, from backtests: each figure beside the baselines', how sure it is, and how
the intervals and probabilities fared. It must never leave a figure out because it is a bad one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.features import date_of
from domain.metrics import brier_score, calibration_table, coverage_by_band, pit_histogram, value_captured
from services.trainer.evaluation import MEAN, MODEL, Backtest, Guess, measure, model_guess
from services.trainer.importance import importance
from services.trainer.progress import Progress, silent
from services.trainer.resampling import FIGURES, HIGHER_IS_BETTER, REPLICATES, Resampled, resample

Floats = NDArray[np.float64]

SURE = 0.95
"""p_active from which on a customer counts as sure to order, so that value_p10 is no matter of ordering at all."""
OVERALL_BAND, DECILE_BAND = (0.08, 0.12), (0.05, 0.15)
"""What share of customers an honest value_p90 is exceeded by: of all, and of each decile of prediction."""
PIT_BORDERS = (0.0, 0.1, 0.5, 0.9, 1.0)
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
HEADINGS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "spearman": "Spearman",
    "ngini": "nGini",
    "bias": "bias",
    "decile_mape": "decile MAPE",
    "auc_active": "AUC active",
    "coverage_p10_p90": "p10–p90 covers",
    "share_above_p90": "above p90",
    "share_below_p10": "below p10",
}
"""Heading of each figure that a person is shown."""
GAIN_POINTS = 41
"""Of the lift curve that is kept: one each 2.5 % of the customers."""
DIGITS = 6
"""Of resampled figures: what lies behind them is noise."""
NOTHING = 1e-9
"""What is smaller is a rounding error of a sum."""


def is_honest(share_above_p90: float) -> bool:
    """Whether value_p90 is exceeded by as many of all customers as it should be."""
    return OVERALL_BAND[0] <= share_above_p90 <= OVERALL_BAND[1]


def quality(backtests: Sequence[Backtest], progress: Progress = silent) -> dict[str, Any]:
    """Fields of metadata.json: `backtests` by rising origin, `holdout` (the latest, in short), `importance`.

    All are there and empty without backtests. The same backtests give the same facts.
    """
    found = []
    ordered = sorted(backtests, key=lambda each: each.origin_day)
    for number, each in enumerate(ordered):
        progress("how sure the figures are", number, len(ordered))
        found.append(_facts(each))
    kept = ("from", "days", "customers", "choices", "fallbacks", "metrics")
    latest = ordered[-1] if ordered else None
    return {
        "holdout": {name: found[-1][name] for name in kept} if found else {},
        "backtests": found,
        "importance": _importance(latest) if latest else {},
    }


def _importance(latest: Backtest) -> dict[str, Any]:
    if latest.predict is None:
        return {}
    found: dict[str, Any] = _rounded(importance(latest.features, latest.targets, latest.predict, latest.origin_day))
    return found


def all_guesses(backtest: Backtest) -> dict[str, Guess]:
    """The model's, by the name MODEL, and those of the baselines."""
    return {MODEL: model_guess(backtest.outputs), **backtest.baselines}


def _facts(backtest: Backtest) -> dict[str, Any]:
    targets, guesses = backtest.targets, all_guesses(backtest)
    metrics = {name: measure(targets, guess) for name, guess in guesses.items()}
    resampled = resample(targets, guesses, seed=backtest.origin_day)
    return {
        "from": date_of(backtest.origin_day).isoformat(),
        "days": backtest.days,
        "customers": len(backtest),
        "active_share": float(targets.active.mean()),
        "value_total": float(targets.value.sum()),
        "choices": dict(backtest.choices),
        "fallbacks": list(backtest.fallbacks),
        "metrics": metrics,
        **_rounded(
            {
                "replicates": REPLICATES,
                "intervals": {
                    name: {figure: resampled.interval(name, figure) for figure in resampled.figures[name]}
                    for name in guesses
                },
                "differences": {name: _differences(metrics, resampled, name) for name in backtest.baselines},
                "deciles": _deciles(backtest, resampled.band_intervals[MODEL]),
                "gains": _gains(backtest),
                "sure": _sure(backtest),
                "probability": _probability(backtest),
                "pit": _pit(backtest),
            }
        ),
    }


def _differences(
    metrics: Mapping[str, Mapping[str, float | None]], resampled: Resampled, other: str
) -> dict[str, dict[str, Any]]:
    """Of each figure: the model's less the baseline's (of bias in size), its interval, and what that says."""
    found: dict[str, dict[str, Any]] = {}
    # The mean of the held-out days themselves is right about their total: nobody could win that.
    compared = [figure for figure in FIGURES if other != MEAN or figure not in ("bias", "decile_mape")]
    for figure in compared:
        pair = [metrics[name][figure] for name in (MODEL, other)]
        if pair[0] is None or pair[1] is None:
            continue
        a, b = (abs(each) if figure == "bias" else each for each in (pair[0], pair[1]))
        interval = resampled.difference(MODEL, other, figure)
        found[figure] = {"difference": a - b, "interval": interval, "verdict": _verdict(figure, interval)}
    return found


def _verdict(figure: str, interval: list[float] | None) -> str:
    if interval is None or interval[0] <= 0 <= interval[1]:
        return UNDECIDED
    return BETTER if (interval[0] > 0) == (figure in HIGHER_IS_BETTER) else WORSE


def _deciles(backtest: Backtest, intervals: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    actual, out = backtest.targets.value, backtest.outputs
    value = out["expected_value"]
    outside = coverage_by_band(actual, out["value_p10"], out["value_p90"], value)
    return [
        {
            "band": band.band,
            "customers": band.customers,
            "predicted_mean": band.predicted_mean,
            "actual_mean": band.actual_mean,
            "actual_interval": list(interval),
            "share_below_p10": beyond.below,
            "below_interval": share_interval(beyond.below, band.customers),
            "share_above_p90": beyond.above,
            "above_interval": share_interval(beyond.above, band.customers),
        }
        for band, interval, beyond in zip(calibration_table(actual, value), intervals, outside, strict=True)
    ]


def _gains(backtest: Backtest) -> list[list[float]]:
    """The lift curve at even shares: [share of customers, the best predicted first; share of all value that they
    brought]. Empty where nobody brought anything."""
    customers, value = value_captured(backtest.targets.value, backtest.outputs["expected_value"])
    if not len(customers):
        return []
    shares = np.linspace(0.0, 1.0, GAIN_POINTS)
    return np.column_stack([shares, np.interp(shares, customers, value)]).tolist()  # type: ignore[no-any-return]


def share_interval(share: float, customers: float) -> list[float]:
    """95 % interval of a share (Wilson 1927)."""
    z, n = 1.96, max(customers, 1.0)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n))
    return [max(centre - half, 0.0), min(centre + half, 1.0)]


def _sure(backtest: Backtest) -> dict[str, Any]:
    """How many of those who are sure to order fall below their value_p10."""
    rows = backtest.outputs["p_active"] >= SURE
    customers = int(rows.sum())
    if not customers:
        return {"p_active_min": SURE, "customers": 0, "share_below_p10": None, "interval": None}
    share = float(np.mean(backtest.targets.value[rows] < backtest.outputs["value_p10"][rows]))
    return {
        "p_active_min": SURE,
        "customers": customers,
        "share_below_p10": share,
        "interval": share_interval(share, customers),
    }


def _probability(backtest: Backtest) -> dict[str, Any]:
    active, p = backtest.targets.active, backtest.outputs["p_active"]
    share = float(active.mean())
    return {
        "brier": brier_score(active, p),
        "brier_of_the_share": share * (1 - share),
        "expected_active": float(p.sum()),
        "active": float(active.sum()),
        "reliability": [
            {
                "customers": band.customers,
                "predicted": band.predicted_mean,
                "actual": band.actual_mean,
                "interval": share_interval(band.actual_mean, band.customers),
            }
            for band in calibration_table(active, p)
        ],
    }


def _pit(backtest: Backtest) -> dict[str, Any]:
    """What share of customers came out in each part of their own forecast distribution; calibrated, as wide as it."""
    below, at = forecast_levels(backtest.targets.value, backtest.outputs)
    return {"borders": list(PIT_BORDERS), "shares": pit_histogram(below, at, PIT_BORDERS).tolist()}


def forecast_levels(actual: Floats, outputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """(F(y-), F(y)) at what came, as coarsely as a model says: the mass 1 - p_active at 0 or less, and the quantiles.

    Between two levels it is not known where a customer lies: they are the two borders.
    """
    nothing = np.clip(1.0 - outputs["p_active"], 0.0, 1.0)
    lower, upper = np.zeros(len(actual)), np.ones(len(actual))
    for name, level in (("value_p90", 0.9), ("value_p50", 0.5), ("value_p10", 0.1)):
        upper = np.where(actual <= outputs[name], level, upper)
    for name, level in (("value_p10", 0.1), ("value_p50", 0.5), ("value_p90", 0.9)):
        lower = np.where(actual > outputs[name], level, lower)
    lower = np.minimum(np.maximum(lower, nothing), upper)
    return np.where(actual > 0, lower, 0.0), np.where(actual > 0, upper, nothing)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return 0.0 if abs(value) < NOTHING else float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
