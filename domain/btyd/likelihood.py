"""Log-likelihoods and their gradients, per history, of BG/NBD, MBG/NBD, Pareto/NBD and Gamma-Gamma. Time and money may
be in any unit, as long as histories and parameters agree. It must never penalise, clip or skip a history."""

import numpy as np
from scipy.special import betaln, digamma, gammaln

from domain.btyd.histories import PurchaseHistories
from domain.btyd.lifetime_integral import lifetime_nodes
from domain.btyd.parameters import FloatArray

# Rows per block: 32 nodes x 4096 rows x 8 bytes stays within the cache.
BLOCK_ROWS = 4096


def bg_loglik(theta: FloatArray, histories: PurchaseHistories) -> tuple[float, FloatArray]:
    """BG/NBD: Σ log L and its gradient in (r, α, a, b). Fader, Hardie, Lee (2005), eq. 6."""
    return _beta_geometric_loglik(theta, histories, draws_before_first_repeat=0)


def mbg_loglik(theta: FloatArray, histories: PurchaseHistories) -> tuple[float, FloatArray]:
    """MBG/NBD: Σ log L and its gradient in (r, α, a, b). Batislam, Denizel, Filiztekin (2007).

    Given p, surviving x repeats costs (1−p)^(x+1), as the first purchase is followed by a draw too; so BG/NBD's form
    holds with x + 1 draws.
    """
    return _beta_geometric_loglik(theta, histories, draws_before_first_repeat=1)


def _beta_geometric_loglik(
    theta: FloatArray, histories: PurchaseHistories, draws_before_first_repeat: int
) -> tuple[float, FloatArray]:
    """log L = log(alive part) + log(1 + D), with D = P(dead)/P(alive): no sum of two tiny numbers is ever formed."""
    r, alpha, a, b = theta
    x, weight = histories.x, histories.customers
    n = r + x
    draws = x + draws_before_first_repeat
    log_age, log_last = np.log(alpha + histories.age_days), np.log(alpha + histories.t_x_days)
    keeps = np.where(draws > 0, b + draws - 1, 1.0)
    log_odds = np.where(draws > 0, np.log(a / keeps) + n * (log_age - log_last), -np.inf)
    p_dead = 1 / (1 + np.exp(np.minimum(-log_odds, 700.0)))
    value = (
        gammaln(n) - gammaln(r) + r * np.log(alpha) - n * log_age
        + betaln(a, b + draws) - betaln(a, b) + np.logaddexp(0, log_odds)
    )  # fmt: skip
    gradient = (
        digamma(n) - digamma(r) + np.log(alpha) - log_age + p_dead * (log_age - log_last),
        r / alpha - n / (alpha + histories.age_days)
        + p_dead * n * (1 / (alpha + histories.age_days) - 1 / (alpha + histories.t_x_days)),
        digamma(a + b) - digamma(a + b + draws) + p_dead / a,
        digamma(b + draws) - digamma(a + b + draws) - digamma(b) + digamma(a + b) - p_dead / keeps,
    )  # fmt: skip
    return float(weight @ value), np.array([weight @ part for part in gradient])


def pareto_loglik(theta: FloatArray, histories: PurchaseHistories) -> tuple[float, FloatArray]:
    """Pareto/NBD: Σ log L and its gradient in (r, α, s, β).

    Fader & Hardie (2005, "A note on deriving the Pareto/NBD"), with the integral over the time of death kept as an
    integral instead of Gauss hypergeometric functions, which lose all digits for long histories:
    L = Γ(r+x)/Γ(r) α^r β^s [(α+T)^−(r+x) (β+T)^−s + s ∫_{t_x}^{T} (α+τ)^−(r+x) (β+τ)^−(s+1) dτ].
    """
    value, gradient = 0.0, np.zeros(4)
    for start in range(0, histories.x.size, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        block = PurchaseHistories(
            histories.x[rows], histories.t_x_days[rows], histories.age_days[rows], histories.customers[rows]
        )
        block_value, block_gradient = _pareto_block(theta, block)
        value += block_value
        gradient += block_gradient
    return value, gradient


def _pareto_block(theta: FloatArray, histories: PurchaseHistories) -> tuple[float, FloatArray]:
    r, alpha, s, beta = theta
    n, age, weight = r + histories.x, histories.age_days, histories.customers
    nodes = lifetime_nodes(alpha + histories.t_x_days, beta + histories.t_x_days, n, s + 1, age - histories.t_x_days)
    gain_a = np.log(alpha + age) - np.log(alpha + histories.t_x_days)
    gain_b = np.log(beta + age) - np.log(beta + histories.t_x_days)
    total = nodes.mass.sum(axis=1)
    with np.errstate(divide="ignore"):  # t_x = T leaves no time to die in: log 0 is meant
        log_odds = np.log(s / (beta + histories.t_x_days)) + n * gain_a + s * gain_b + np.log(total)
    p_dead = 1 / (1 + np.exp(np.minimum(-log_odds, 700.0)))
    share = nodes.mass / np.where(total > 0, total, 1.0)[:, None]
    value = (
        gammaln(n) - gammaln(r) + r * np.log(alpha) + s * np.log(beta)
        - n * np.log(alpha + age) - s * np.log(beta + age) + np.logaddexp(0, log_odds)
    )  # fmt: skip
    later_a = alpha + histories.t_x_days[:, None] + nodes.tau
    later_b = beta + histories.t_x_days[:, None] + nodes.tau
    mean_a, mean_inverse_a = (share * nodes.log_a).sum(axis=1), (share / later_a).sum(axis=1)
    mean_b, mean_inverse_b = (share * nodes.log_b).sum(axis=1), (share / later_b).sum(axis=1)
    gradient = (
        digamma(n) - digamma(r) + np.log(alpha) - np.log(alpha + age) + p_dead * (gain_a - mean_a),
        r / alpha - n / (alpha + age) + p_dead * n * (1 / (alpha + age) - mean_inverse_a),
        np.log(beta) - np.log(beta + age) + p_dead * (1 / s + gain_b - mean_b),
        s / beta - s / (beta + age) + p_dead * (s / (beta + age) - (s + 1) * mean_inverse_b),
    )
    return float(weight @ value), np.array([weight @ part for part in gradient])


def gamma_gamma_loglik(
    p: float, q: float, gamma: float, n: FloatArray, mean: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """log f(mean | n; p, q, γ) of each customer, (n,), and its gradient in (p, q, γ), (3, n).

    Fader & Hardie (2013), eq. 1a."""
    unique_n, inverse = np.unique(n, return_inverse=True)
    pn, log_total = p * n, np.log(gamma + n * mean)
    shape_terms = (gammaln(p * unique_n + q) - gammaln(p * unique_n))[inverse]
    psi_sum, psi_n = digamma(p * unique_n + q)[inverse], digamma(p * unique_n)[inverse]
    value = (
        shape_terms - gammaln(q) + q * np.log(gamma) + (pn - 1) * np.log(mean) + pn * np.log(n) - (pn + q) * log_total
    )
    gradient = (
        n * (psi_sum - psi_n + np.log(n * mean) - log_total),
        psi_sum - digamma(q) + np.log(gamma) - log_total,
        q / gamma - (pn + q) / (gamma + n * mean),
    )
    return value, np.array(gradient)
