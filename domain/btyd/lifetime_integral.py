"""One integral that Pareto/NBD needs twice (probability of having died, probability of a next order), by Gauss–Legendre
on a logarithmic time axis. It must use only operations that an ONNX graph has."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from domain.btyd.parameters import FloatArray

# 32 nodes: relative error ≤ 3e-9 for x ≤ 10,000 and 20 years (24: 3e-7; 40: 5e-11).
LIFETIME_NODES = 32


class LifetimeNodes(NamedTuple):
    """Arrays of shape (rows, nodes); Σ mass over the nodes is the integral."""

    tau: FloatArray  # time after the start of the integral
    log_a: FloatArray  # log(1 + tau/A)
    log_b: FloatArray  # log(1 + tau/B)
    mass: FloatArray


@cache
def unit_nodes(count: int = LIFETIME_NODES) -> tuple[FloatArray, FloatArray]:
    """Gauss–Legendre positions and weights on [0, 1], shape (count,) each."""
    position, weight = np.polynomial.legendre.leggauss(count)
    return (position + 1) / 2, weight / 2


def lifetime_nodes(
    scale_a: ArrayLike, scale_b: ArrayLike, power_a: ArrayLike, power_b: ArrayLike, length: ArrayLike
) -> LifetimeNodes:
    """∫_0^length (1 + τ/A)^−n (1 + τ/B)^−m dτ per row, as nodes; arguments broadcast to shape (rows,).

    The integrand falls from 1 at the rate H = n/A + m/B, at first as an exponential and later as a power. In
    θ = log(1 + Hτ) both are smooth, so one rule with fixed positions in θ/θ_max serves all rows.
    """
    a, b, n, m, end = (
        v[:, None] for v in np.broadcast_arrays(*map(np.atleast_1d, (scale_a, scale_b, power_a, power_b, length)))
    )
    position, weight = unit_nodes()
    rate = n / a + m / b
    theta_max = np.log(1 + rate * end)
    growth = np.exp(theta_max * position)
    tau = (growth - 1) / rate
    log_a, log_b = np.log(1 + tau / a), np.log(1 + tau / b)
    mass = np.exp(-n * log_a - m * log_b) * growth * weight * (theta_max / rate)
    return LifetimeNodes(tau, log_a, log_b, mass)
