"""The candidates: how each is fitted, and what it says of prepared rows. They must never be fitted to a row that
validates or tests, and none stops early on any row.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import Ridge

from domain.rfm_scores import Quintiles
from schemas.profile_model import COLUMNS, VALUE_MAX
from services.trainer.profile.columns import (
    SIGNIFICAND_MEAN,
    SIGNIFICAND_STD,
    Preparation,
    Prepared,
    columns_of,
)
from services.trainer.profile.network import Network, train_network

Floats = NDArray[np.float64]

RATIO_MAX = 4.0
"""Largest value ÷ scale that is believed; the true one is below 2."""
RIDGE_PENALTY = 1.0
LEAVES_MAX = 2048

PRODUCT = "orders × average order value"
LINE = "ridge regression"
BOOSTED_LINE = "gradient boosting from the line"
NETWORK = "neural network (Keras)"


@dataclass(frozen=True, eq=False)
class Line:
    """A linear function of smooth rows."""

    weights: Floats
    """(columns,)"""
    intercept: float

    def predict(self, smooth: Floats) -> Floats:
        """(n,)"""
        return np.asarray(smooth @ self.weights + self.intercept, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fitted model of value ÷ scale: the sum of its parts."""

    name: str
    preparation: Preparation
    quintiles: Quintiles
    line: Line | None = None
    trees: Any | None = None
    """A fitted scikit-learn ensemble."""
    network: Network | None = None
    fit_seconds: float = 0.0
    """Of processor time, over all threads."""

    @property
    def is_reference(self) -> bool:
        """Stands in the table for comparison and is never chosen."""
        return self.trees is None and self.network is None

    def predict(self, inputs: Floats) -> Floats:
        """Monetary value (n,) from the inputs (n, 7), major units."""
        return self.predict_columns(columns_of(inputs, self.quintiles))

    def predict_columns(self, columns: Floats) -> Floats:
        """The same from the columns, (n, 21)."""
        rows = self.preparation.apply(columns)
        value = np.minimum(rows.scale * np.clip(self._ratio(rows), 0.0, RATIO_MAX), VALUE_MAX)
        return np.where(rows.has_spent, value, 0.0)

    def _ratio(self, rows: Prepared) -> Floats:
        ratio = np.zeros(len(rows.scale))
        if self.line is not None:
            ratio += self.line.predict(rows.smooth)
        if self.trees is not None:
            ratio += self.trees.predict(rows.trees)
        if self.network is not None:
            ratio += SIGNIFICAND_MEAN + SIGNIFICAND_STD * self.network.predict(rows.smooth)
        return ratio


def ensembles(seed: int) -> dict[str, Any]:
    """The scikit-learn ensembles, not yet fitted, by name. One thread each: the same numbers on any machine."""
    return {
        "random forest": RandomForestRegressor(
            10, max_leaf_nodes=LEAVES_MAX, max_features=0.7, random_state=seed, n_jobs=1
        ),
        "extra trees": ExtraTreesRegressor(
            15, max_leaf_nodes=LEAVES_MAX, max_features=1.0, random_state=seed, n_jobs=1
        ),
        "histogram gradient boosting": HistGradientBoostingRegressor(
            max_iter=100, learning_rate=0.2, max_leaf_nodes=31, early_stopping=False, random_state=seed
        ),
        BOOSTED_LINE: GradientBoostingRegressor(
            n_estimators=40, learning_rate=0.2, max_depth=3, subsample=0.5, max_features=0.5, random_state=seed
        ),
    }


class TrainingRows(NamedTuple):
    """What candidates are fitted to."""

    prepared: Prepared
    value: Floats
    preparation: Preparation
    quintiles: Quintiles

    @property
    def ratio(self) -> Floats:
        """The target: value ÷ scale, (n,)."""
        return np.asarray(self.value / self.prepared.scale, dtype=np.float64)


def fit_candidates(
    rows: TrainingRows, seed: int, with_network: bool, progress: Callable[[str], None]
) -> Iterator[Candidate]:
    """Each candidate in turn, the reference line first."""
    made = partial(Candidate, preparation=rows.preparation, quintiles=rows.quintiles)
    ratio, prepared = rows.ratio, rows.prepared
    start = time.process_time()
    line = _fit_line(prepared.smooth, ratio)
    line_seconds = time.process_time() - start
    yield made(LINE, line=line, fit_seconds=line_seconds)
    for name, trees in ensembles(seed).items():
        progress(f"fitting: {name}")
        first = line if name == BOOSTED_LINE else None
        left = ratio if first is None else ratio - first.predict(prepared.smooth)
        start = time.process_time()
        trees.fit(prepared.trees, left)
        seconds = time.process_time() - start + (line_seconds if first else 0.0)
        yield made(name, line=first, trees=trees, fit_seconds=seconds)
    if with_network:
        progress(f"fitting: {NETWORK}")
        start = time.process_time()
        network = train_network(prepared.smooth, (ratio - SIGNIFICAND_MEAN) / SIGNIFICAND_STD, seed)
        yield made(NETWORK, network=network, fit_seconds=time.process_time() - start)


def _fit_line(smooth: Floats, ratio: Floats) -> Line:
    fitted = Ridge(alpha=RIDGE_PENALTY).fit(smooth, ratio)
    return Line(np.asarray(fitted.coef_, dtype=np.float64), float(fitted.intercept_))


def unscaled_trials(rows: TrainingRows, asked: Prepared, seed: int) -> Iterator[tuple[str, str, Floats]]:
    """What trees say without the scale: (ensemble, target, value (n,) of the asked rows). For the record: these are
    what the scale is there for, and are not exported."""
    for name, trees in ensembles(seed).items():
        if name == BOOSTED_LINE:
            continue
        columns = rows.prepared.trees[:, : len(COLUMNS)]
        for target in ("money", "log of money"):
            is_log = target != "money"
            trees.fit(columns, np.log(np.maximum(rows.value, 0.01)) if is_log else rows.value)
            found = np.asarray(trees.predict(asked.trees[:, : len(COLUMNS)]), dtype=np.float64)
            yield name, target, np.exp(found) if is_log else found
