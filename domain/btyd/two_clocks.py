"""Pareto/NBD on two clocks: customers buy by the season, and leave by the calendar. It must use only operations that an
ONNX graph has, for what is predicted.

Pareto/NBD (Schmittlein, Morrison & Colombo 1987) with purchases on operational time (domain.season; the time change of
Poisson processes, Daley & Vere-Jones 2003, §7.4): λ ~ Gamma(r, α) by operational day, μ ~ Gamma(s, β) by calendar day.
With Λ(τ) the operational days in the first τ calendar days of a customer, Λ_x at the last purchase and k = r + x, let

    u(τ) = ((α + Λ_x) / (α + Λ(τ)))^k     (no purchase until τ, if alive), and
    S(τ) = ((β + t_x) / (β + τ))^s        (alive at τ, if at t_x).

The likelihood is that of Fader & Hardie (2005, eq. 15) with both; integrated by parts it is, up to what no parameter
moves, Γ(k)/Γ(r) α^r (α + Λ_x)^−k (β/(β + t_x))^s · D, D = u(T) + ∫_{u(T)}^1 (1 − S(τ(u))) du. So

    P(alive) = u(T) S(T) / D,
    P(order until T + t | alive) = ∫_{u'}^1 S(τ(u))/S(T) du, with u from T on and u' its value at T + t, and
    E[orders until T + t | alive] = k/(α + Λ(T)) ∫_{Λ(T)}^{Λ(T+t)} S(τ(Λ))/S(T) dΛ.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln

from domain.btyd.histories import evenly
from domain.btyd.lifetime_integral import unit_nodes
from domain.btyd.parameters import FloatArray, Outlook, ParetoNbd
from domain.btyd.quadrature import EXPONENT_MAX
from domain.season import Season

ROWS_AT_ONCE = 1024
"""Each takes a hundred numbers many times over: so many stay within the cache."""
DIED_MIN = 1e-300
"""Of D, where neither silence nor leaving leaves any: its logarithm stays finite."""


class TwoClockHistories(NamedTuple):
    """Purchase histories of n customers as of one instant, each array (n,)."""

    x: FloatArray
    """Repeat purchase days."""
    t_x_days: FloatArray
    """Calendar days from the first purchase to the last."""
    age_days: FloatArray
    """Calendar days since the first purchase."""
    t_x_operational: FloatArray
    age_operational: FloatArray
    ahead_operational: FloatArray
    """The horizon; above 0."""
    now_operational: FloatArray
    """Operational days since the year began."""

    def thinned(self, rows_max: int) -> "TwoClockHistories":
        """At most so many of them, evenly spread."""
        return TwoClockHistories(*(each[evenly(len(self.x), rows_max)] for each in self))


def two_clocks_loglik(params: ParetoNbd, season: Season, histories: TwoClockHistories) -> tuple[FloatArray, FloatArray]:
    """Of each customer, (n,), without the terms that no parameter moves, and its gradient in (r, α, s, β), (4, n).

    D is differentiated as ∫ S f(Λ) dΛ with f the law of u, so that each derivative is a mean over the same nodes."""
    values, gradients = zip(*(_loglik(params, season, block) for block in _blocks(histories)), strict=True)
    return np.concatenate(values), np.concatenate(gradients, axis=1)


def _blocks(histories: TwoClockHistories) -> list[TwoClockHistories]:
    starts = range(0, max(len(histories.x), 1), ROWS_AT_ONCE)
    return [TwoClockHistories(*(each[start : start + ROWS_AT_ONCE] for each in histories)) for start in starts]


def _loglik(params: ParetoNbd, season: Season, histories: TwoClockHistories) -> tuple[FloatArray, FloatArray]:
    r, alpha, s, beta = params.r, params.alpha_days, params.s, params.beta_days
    n, last_b = r + histories.x, beta + histories.t_x_days
    last_a, age_a = alpha + histories.t_x_operational, alpha + histories.age_operational
    silent = _unbought(n, last_a, age_a)
    log_u = np.log(_between(silent))
    waited = np.exp(-log_u / n[:, None])
    ahead = last_a[:, None] * waited - age_a[:, None]
    lived, log_lived, survived = _survival(params, season, histories, last_b, ahead)
    mass = survived * unit_nodes()[1] * (1 - silent)[:, None]
    died = np.maximum(silent + ((1 - survived) * unit_nodes()[1]).sum(axis=1) * (1 - silent), DIED_MIN)
    value = gammaln(n) - gammaln(r) + r * np.log(alpha) - n * np.log(last_a)
    value += s * (np.log(beta) - np.log(last_b)) + np.log(died)
    by = (
        (mass * (1 + log_u)).sum(axis=1) / n,
        (mass * (n[:, None] - (n[:, None] + 1) / waited)).sum(axis=1) / last_a,
        (mass * (np.log(last_b)[:, None] - log_lived)).sum(axis=1),
        s * (mass * (1 / last_b[:, None] - 1 / lived)).sum(axis=1),
    )
    direct = (
        digamma(n) - digamma(r) + np.log(alpha) - np.log(last_a),
        r / alpha - n / last_a,
        np.log(beta) - np.log(last_b),
        s / beta - s / last_b,
    )
    return value, np.array([one - each / died for one, each in zip(direct, by, strict=True)])


class Told(NamedTuple):
    """An outlook, and how likely each history was."""

    outlook: Outlook
    log_evidence: FloatArray
    """Log-likelihood without the terms that are the same for every α, (n,)."""


def predict_two_clocks(params: ParetoNbd, season: Season, histories: TwoClockHistories) -> Outlook:
    """Over each row's horizon; the ONNX graph repeats it operation by operation. params: as fit_two_clocks() gives."""
    return predict_with_evidence(params, season, histories).outlook


def predict_with_evidence(params: ParetoNbd, season: Season, histories: TwoClockHistories) -> Told:
    """predict_two_clocks(), and what tells how likely these parameters are against others with the same r, s and β."""
    parts = [_told(params, season, block) for block in _blocks(histories)]
    outlook = Outlook(*map(np.concatenate, zip(*(part.outlook for part in parts), strict=True)))
    return Told(outlook, np.concatenate([part.log_evidence for part in parts]))


def _told(params: ParetoNbd, season: Season, histories: TwoClockHistories) -> Told:
    n = params.r + histories.x
    last_a, age_a = (params.alpha_days + each for each in (histories.t_x_operational, histories.age_operational))
    last_b, age_b = (params.beta_days + each for each in (histories.t_x_days, histories.age_days))
    silent, unbought = _unbought(n, last_a, age_a), _unbought(n, age_a, age_a + histories.ahead_operational)
    to_died, to_order = (
        since[:, None] * np.exp(-np.log(_between(u_end)) / n[:, None]) - age_a[:, None]
        for since, u_end in ((last_a, silent), (age_a, unbought))
    )
    meanwhile = histories.ahead_operational[:, None] * unit_nodes()[0]
    while_silent, until_order, ahead = (
        _mean_survival(params, season, histories, since, nodes)
        for since, nodes in ((last_b, to_died), (age_b, to_order), (age_b, meanwhile))
    )
    died = np.maximum(silent + (1 - silent) * (1 - while_silent), DIED_MIN)
    alive = np.minimum(silent * np.exp(-params.s * (np.log(age_b) - np.log(last_b))) / died, 1.0)
    if_alive = n / age_a * histories.ahead_operational * ahead
    evidence = params.r * np.log(params.alpha_days) - n * np.log(last_a) + np.log(died)
    return Told(Outlook(alive, alive * if_alive, alive * (1 - unbought) * until_order), evidence)


def _unbought(n: FloatArray, since: FloatArray, until: FloatArray) -> FloatArray:
    """u at `until`, of what is 1 at `since`: operational ages plus α, (n,)."""
    return np.asarray(np.exp(-np.minimum(n * (np.log(until) - np.log(since)), EXPONENT_MAX)), dtype=np.float64)


def _between(u_end: FloatArray) -> FloatArray:
    """Nodes of u from u_end to 1, (n, nodes)."""
    return u_end[:, None] + (1 - u_end)[:, None] * unit_nodes()[0]


def _mean_survival(
    params: ParetoNbd, season: Season, histories: TwoClockHistories, since: FloatArray, ahead: FloatArray
) -> FloatArray:
    """Mean of (since / (β + τ))^s over the nodes, (n,)."""
    *_, survived = _survival(params, season, histories, since, ahead)
    return np.asarray((survived * unit_nodes()[1]).sum(axis=1), dtype=np.float64)


def _survival(
    params: ParetoNbd, season: Season, histories: TwoClockHistories, since: FloatArray, ahead: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """β + τ, its logarithm and (since / (β + τ))^s at nodes `ahead` operational days from now, (n, nodes) each."""
    now = histories.now_operational[:, None]
    days = season.calendar(now + ahead) - season.calendar(now)
    lived = np.maximum((params.beta_days + histories.age_days)[:, None] + days, since[:, None])
    log_lived = np.log(lived)
    return lived, log_lived, np.exp(-params.s * (log_lived - np.log(since)[:, None]))
