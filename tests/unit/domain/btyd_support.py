"""Models that several tests share, and customers simulated from a model's own story, which share no code with the
formulas under test. It must never take its values from the code."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from domain.btyd import BgNbd, MbgNbd, OrderModel, ParetoNbd

BG = BgNbd(r=0.243, alpha_days=30.9, a=0.793, b=2.426)
MBG = MbgNbd(r=0.525, alpha_days=43.3, a=0.891, b=1.614)
PARETO = ParetoNbd(r=0.553, alpha_days=74.0, s=0.606, beta_days=81.7)
MODELS = (BG, MBG, PARETO)
by_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


class Simulated(NamedTuple):
    x: np.ndarray
    t_x: np.ndarray
    age: np.ndarray
    alive: np.ndarray
    future: np.ndarray


@cache
def simulated(model: OrderModel, customers: int, seed: int, horizon: float) -> Simulated:
    """Customers drawn from the model's story, purchase by purchase, over [0, age] and the horizon after it."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(100, 500, customers)
    rate = rng.gamma(model.r, 1 / model.alpha_days, customers)
    clock, x, t_x, future = (np.zeros(customers) for _ in range(4))
    if isinstance(model, ParetoNbd):
        death = rng.exponential(1, customers) / rng.gamma(model.s, 1 / model.beta_days, customers)
        drop = np.zeros(customers)
    else:
        drop = rng.beta(model.a, model.b, customers)
        gone_at_once = rng.random(customers) < drop if isinstance(model, MbgNbd) else np.zeros(customers, dtype=bool)
        death = np.where(gone_at_once, 0.0, np.inf)
    active = np.ones(customers, dtype=bool)
    while active.any():
        clock[active] += rng.exponential(1, int(active.sum())) / rate[active]
        active &= (clock <= death) & (clock <= age + horizon)
        past = active & (clock <= age)
        x[past] += 1
        t_x[past] = clock[past]
        future[active & (clock > age)] += 1
        dropped = active & (rng.random(customers) < drop)
        death[dropped] = clock[dropped]
    return Simulated(x, t_x, age, death > age, future)


SIMULATED_MODELS = (BgNbd(0.6, 40.0, 0.9, 3.0), MbgNbd(0.8, 40.0, 0.9, 3.0), ParetoNbd(0.8, 40.0, 0.9, 150.0))
by_simulated_model = pytest.mark.parametrize("model", SIMULATED_MODELS, ids=lambda model: type(model).__name__)
