"""Who brought how much: what players reach together shared out among them, exactly, by Owen's and Shapley's rules.

Pure mathematics over a function from coalitions to worths: it knows no model and no feature. Every coalition that the
rule weighs is evaluated; must never sample, so that the same game always gives the same shares.

Sources: L. S. Shapley, "A Value for n-Person Games" (Contributions to the Theory of Games II, 1953); G. Owen, "Values
of Games with a Priori Unions" (Mathematical Economics and Game Theory, 1977); that a prediction is shared out as the
game of its features, the absent ones taken from background data: S. Lundberg and S.-I. Lee, "A Unified Approach to
Interpreting Model Predictions" (2017).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

Game = Callable[[Bools], Floats]
"""From m coalitions (m, players), True where a player takes part, to their worths: (m,), or (m, k) for k games at once.
Called once."""

COALITIONS_MAX = 1 << 16
"""A union that needs more is refused: sixteen players on their own go, or many more in unions."""


class Attribution(NamedTuple):
    """What each player brings, in the unit of the game; with k games at once, k is the last axis of each array.

    base + values.sum(axis=0) = total but for rounding. A player who never changes a worth has exactly 0.
    """

    base: Floats
    """The worth without any player; ()."""
    values: Floats
    """(players,)."""
    total: Floats
    """The worth of all players together; ()."""


class _Steps(NamedTuple):
    """Every pair of coalitions that differ in one player, with the pair's weight in that player's value."""

    coalitions: Bools
    """(m, players), each once; the first is empty, the last has everybody."""
    player: Ints
    without: Ints
    joined: Ints
    weight: Floats


def shapley_values(game: Game, players: int) -> Attribution:
    """Shapley (1953): a player's mean contribution over all orders in which the players can come.

    The only rule that is efficient, symmetric, linear and gives nothing to a player who changes nothing. Costs
    2^players worths. Raises ValueError beyond COALITIONS_MAX.
    """
    return owen_values(game, [[player] for player in range(players)])


def owen_values(game: Game, unions: Sequence[Sequence[int]]) -> Attribution:
    """Owen (1977): the mean contribution over all orders in which the members of each union come together.

    unions: every player 0 … n−1 in exactly one. The members of a union share what the union as one player gets by
    Shapley's rule in the game between unions. Unions of one player each, or one union of all, give Shapley's values.
    Costs about Σ over unions of 2^(unions − 1 + size) worths. Raises ValueError for other unions, or too many.
    """
    steps = _steps(tuple(tuple(union) for union in unions))
    worth = np.asarray(game(steps.coalitions), dtype=np.float64)
    if worth.shape[:1] != (len(steps.coalitions),):
        raise ValueError(f"the game gave {worth.shape} for {len(steps.coalitions)} coalitions")
    # Differences first, weights second: who changes no worth has 0, not what rounding leaves of it.
    gains = worth[steps.joined] - worth[steps.without]
    values = np.zeros((steps.coalitions.shape[1], *worth.shape[1:]))
    np.add.at(values, steps.player, gains * steps.weight.reshape(-1, *[1] * (worth.ndim - 1)))
    return Attribution(worth[0], values, worth[-1])


@lru_cache(maxsize=32)
def _steps(unions: tuple[tuple[int, ...], ...]) -> _Steps:
    """The pairs and weights of Owen (1977), which depend on the unions alone.

    Coalitions are bit masks: Q, the union of whole other unions, then members of the own one.
    """
    players = sum(map(len, unions))
    if sorted(player for union in unions for player in union) != list(range(players)):
        raise ValueError(f"each player from 0 on must be in exactly one union: {unions}")
    if players == 0 or not all(unions):
        raise ValueError("there must be players, and a union must have a member")
    if 2 ** (len(unions) - 1 + max(map(len, unions))) > COALITIONS_MAX:
        raise ValueError(f"{players} players in {len(unions)} unions need more than {COALITIONS_MAX} coalitions")
    masks = [sum(1 << player for player in union) for union in unions]
    pairs: list[tuple[int, int, float]] = []
    for own, union in enumerate(unions):
        outer = _subsets(masks[:own] + masks[own + 1 :])
        for player in union:
            inner = _subsets([1 << other for other in union if other != player])
            pairs += [
                (player, around | within, outer_weight * inner_weight)
                for around, outer_weight in outer
                for within, inner_weight in inner
            ]
    without = [mask for _, mask, _ in pairs]
    joined = [mask | 1 << player for player, mask, _ in pairs]
    known = sorted({*without, *joined}, key=lambda mask: (mask.bit_count(), mask))
    place = {mask: at for at, mask in enumerate(known)}
    coalitions = np.array([[bool(mask >> player & 1) for player in range(players)] for mask in known], dtype=np.bool_)
    coalitions.setflags(write=False)  # shared by all callers
    return _Steps(
        coalitions,
        np.array([player for player, _, _ in pairs], dtype=np.int64),
        np.array([place[mask] for mask in without], dtype=np.int64),
        np.array([place[mask] for mask in joined], dtype=np.int64),
        np.array([weight for _, _, weight in pairs]),
    )


def _subsets(others: Sequence[int]) -> list[tuple[int, float]]:
    """Each union of these masks, and the chance that exactly they come before one more in a random order.

    That is s! (n − s)! / (n + 1)! for s of n others.
    """
    found = [(0, 0)]
    for mask in others:
        found += [(have | mask, size + 1) for have, size in found]
    count = len(others)
    return [(mask, 1.0 / ((count + 1) * comb(count, size))) for mask, size in found]
