"""Backtests made up for tests: a shop whose truth is known, and a model that tells it, or a crooked version of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.features import FEATURE_NAMES
from schemas.model_bundle import OUTPUT_NAMES
from services.trainer.evaluation import MEAN, Backtest, Guess
from services.trainer.history import Targets

Floats = NDArray[np.float64]
ORIGIN = 20_000
MEAN_ORDER = 20.0


def _model(features: Floats) -> dict[str, Floats]:
    """Exact for the shop of backtest(): it reads q from recency and the mean order from average_order_value."""
    p = 1 / (1 + features[:, FEATURE_NAMES.index("recency_days")] / 50)
    mean = features[:, FEATURE_NAMES.index("average_order_value")]
    found = {name: np.zeros(len(features)) for name in OUTPUT_NAMES}
    found |= {"expected_value": p * mean, "expected_orders": p, "p_active": p}
    for name, level in (("value_p10", 0.1), ("value_p50", 0.5), ("value_p90", 0.9)):
        found[name] = np.where(level > 1 - p, -mean * np.log(np.minimum((1 - level) / p, 1.0)), 0.0)
    return found


def backtest(customers: int = 3000, *, seed: int = 0, origin_day: int = ORIGIN, factor: float = 1.0) -> Backtest:
    """Customers who order once, or not, and spend an exponential amount. factor: what of the truth the model says."""
    chance = np.random.default_rng(seed)
    features = np.full((customers, len(FEATURE_NAMES)), np.nan)
    recency = chance.gamma(0.7, 60.0, customers)
    mean = MEAN_ORDER * chance.gamma(3.0, 1 / 3, customers)
    features[:, FEATURE_NAMES.index("recency_days")] = recency
    features[:, FEATURE_NAMES.index("average_order_value")] = mean
    features[:, FEATURE_NAMES.index("refund_share")] = chance.random(customers)  # noise that the model does not read
    truth = _model(features)
    active = chance.random(customers) < truth["p_active"]
    value = np.where(active, mean * chance.exponential(1.0, customers), 0.0)

    def predict(matrix: Floats) -> Mapping[str, Floats]:
        return {name: column * (1 if name == "p_active" else factor) for name, column in _model(matrix).items()}

    random = chance.gamma(1.0, 20.0, customers)
    return Backtest(
        origin_day=origin_day,
        days=90,
        customer_ids=tuple(f"c{number:06d}" for number in range(customers)),
        features=features,
        targets=Targets(active.astype(np.float64), value),
        outputs=predict(features),
        baselines={
            MEAN: Guess(np.full(customers, value.mean()), np.zeros(customers)),
            "past spend rate": Guess(random, random),
            "the truth": Guess(truth["expected_value"], truth["p_active"]),
        },
        choices={"structural": "exact", "weights": {"value": 0.5}},
        fallbacks=["too little history for <everything> | here"],
        predict=predict,
    )


def crooked(found: Backtest, **outputs: Any) -> Backtest:
    """The same backtest with other outputs."""
    return replace(found, outputs={**found.outputs, **outputs})
