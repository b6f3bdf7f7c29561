"""Owen's and Shapley's values against their definition, every order of the players walked through, and their axioms."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.attribution import Attribution, owen_values, shapley_values

Worth = Callable[[frozenset[int]], float]
Unions = list[list[int]]
SLOW_MACHINE = settings(deadline=None)


def game(worth: Worth) -> Callable[[np.ndarray], np.ndarray]:
    """A function of sets as one of a matrix of coalitions."""
    return lambda coalitions: np.array([worth(frozenset(np.flatnonzero(row).tolist())) for row in coalitions])


def by_walking_every_order(worth: Worth, unions: Unions) -> list[float]:
    """Owen's definition itself: the mean contribution over the orders that keep each union together, in fractions."""
    players = [player for union in unions for player in union]
    total = dict.fromkeys(players, Fraction(0))
    orders = 0
    for order_of_unions in permutations(unions):
        for orders_within in product(*(list(permutations(union)) for union in order_of_unions)):
            orders += 1
            present: frozenset[int] = frozenset()
            for player in (player for within in orders_within for player in within):
                joined = present | {player}
                total[player] += Fraction(worth(joined)) - Fraction(worth(present))
                present = joined
    return [float(total[player] / orders) for player in sorted(players)]


@st.composite
def partitions(draw: st.DrawFn, players_max: int = 5) -> Unions:
    """Players 0 … n−1 in unions, in any order."""
    players = draw(st.permutations(range(draw(st.integers(1, players_max)))))
    unions: Unions = [[]]
    for player in players:
        if unions[-1] and draw(st.booleans()):
            unions.append([])
        unions[-1].append(player)
    return unions


numbers = st.floats(-1e6, 1e6)


@st.composite
def worths(draw: st.DrawFn, players: int) -> dict[frozenset[int], float]:
    """A worth of every coalition of so many players, the empty one too."""
    sets = [frozenset(np.flatnonzero(bits).tolist()) for bits in product([0, 1], repeat=players)]
    return dict(zip(sets, draw(st.lists(numbers, min_size=len(sets), max_size=len(sets))), strict=True))


@st.composite
def games(draw: st.DrawFn) -> tuple[Unions, dict[frozenset[int], float]]:
    unions = draw(partitions())
    return unions, draw(worths(sum(map(len, unions))))


def shares(worth: dict[frozenset[int], float], unions: Unions) -> list[float]:
    return owen_values(game(worth.__getitem__), unions).values.tolist()


def close(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return bool(np.allclose(found, wanted, rtol=1e-12, atol=1e-8))


@SLOW_MACHINE
@given(games())
def test_owen_values_are_the_mean_over_every_order_that_keeps_unions_together(case):
    unions, worth = case
    assert close(shares(worth, unions), by_walking_every_order(worth.__getitem__, unions))


@SLOW_MACHINE
@given(st.integers(1, 5).flatmap(worths))
def test_shapley_values_are_the_mean_over_every_order(worth):
    players = max(len(coalition) for coalition in worth)
    found = shapley_values(game(worth.__getitem__), players)
    assert close(found.values.tolist(), by_walking_every_order(worth.__getitem__, [[p] for p in range(players)]))


@SLOW_MACHINE
@given(games())
def test_base_and_shares_add_up_to_the_worth_of_all(case):
    unions, worth = case
    found = owen_values(game(worth.__getitem__), unions)
    assert found.base == worth[frozenset()]
    assert found.total == worth[frozenset(player for union in unions for player in union)]
    assert abs(found.base + found.values.sum() - found.total) <= 1e-12 * max(map(abs, worth.values()))


@SLOW_MACHINE
@given(games(), st.data())
def test_who_changes_no_worth_gets_exactly_nothing(case, data):
    unions, worth = case
    idle = data.draw(st.sampled_from(sorted(player for union in unions for player in union)))
    deaf = {coalition: worth[coalition - {idle}] for coalition in worth}
    assert shares(deaf, unions)[idle] == 0.0


@SLOW_MACHINE
@given(games(), st.data())
def test_two_of_one_union_who_bring_the_same_get_the_same(case, data):
    unions, worth = case
    union = data.draw(st.sampled_from(unions))
    one, other = data.draw(st.sampled_from(union)), data.draw(st.sampled_from(union))
    swap = {one: other, other: one}

    def swapped(coalition: frozenset[int]) -> frozenset[int]:
        return frozenset(swap.get(player, player) for player in coalition)

    alike = {coalition: worth[coalition] + worth[swapped(coalition)] for coalition in worth}
    found = shares(alike, unions)
    assert close([found[one]], [found[other]])


@SLOW_MACHINE
@given(games(), st.data(), st.floats(-10, 10))
def test_shares_of_a_sum_of_games_are_the_sum_of_the_shares(case, data, factor):
    unions, one = case
    other = data.draw(worths(sum(map(len, unions))))
    both = {coalition: one[coalition] + factor * other[coalition] for coalition in one}
    wanted = np.array(shares(one, unions)) + factor * np.array(shares(other, unions))
    assert np.allclose(shares(both, unions), wanted, rtol=1e-9, atol=1e-6)


@SLOW_MACHINE
@given(games())
def test_a_union_gets_what_it_would_get_as_a_single_player(case):
    unions, worth = case
    between = {
        chosen: worth[frozenset(player for union in chosen for player in unions[union])]
        for chosen in (frozenset(np.flatnonzero(bits).tolist()) for bits in product([0, 1], repeat=len(unions)))
    }
    found = shares(worth, unions)
    assert close([sum(found[player] for player in union) for union in unions], by_walking_every_order(
        between.__getitem__, [[union] for union in range(len(unions))]
    ))  # fmt: skip


@SLOW_MACHINE
@given(st.integers(1, 5).flatmap(worths))
def test_one_union_of_all_is_no_union_at_all(worth):
    players = max(len(coalition) for coalition in worth)
    alone = shapley_values(game(worth.__getitem__), players).values.tolist()
    assert close(shares(worth, [list(range(players))]), alone)


def test_gloves_the_textbook_game():
    """Shapley & Shubik's: one left glove, two right ones, a pair is worth 1."""
    found = shapley_values(game(lambda who: float(0 in who and len(who) > 1)), 3)
    assert found.values == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_a_union_bargains_better_than_its_members_alone():
    """Owen's effect: united, the two right gloves share one half, as one of two that are needed."""
    found = owen_values(game(lambda who: float(0 in who and len(who) > 1)), [[0], [1, 2]])
    assert found.values == pytest.approx([1 / 2, 1 / 4, 1 / 4])


def test_several_games_at_once_are_each_of_them():
    def two(coalitions: np.ndarray) -> np.ndarray:
        count = coalitions.sum(axis=1).astype(float)
        return np.column_stack([count**2, np.exp(count * coalitions[:, 0])])

    both = owen_values(two, [[0, 1], [2]])
    for at in (0, 1):
        one = owen_values(lambda coalitions, at=at: two(coalitions)[:, at], [[0, 1], [2]])
        assert (both.base[at], both.total[at]) == (one.base, one.total)
        assert both.values[:, at].tolist() == one.values.tolist()


def test_the_game_is_asked_once_for_each_coalition_that_counts():
    asked: list[np.ndarray] = []

    def counting(coalitions: np.ndarray) -> np.ndarray:
        asked.append(coalitions)
        return coalitions.sum(axis=1).astype(float)

    found = owen_values(counting, [list(range(5)), [5, 6, 7], [8]])
    assert isinstance(found, Attribution)
    (coalitions,) = asked
    assert len(np.unique(coalitions, axis=0)) == len(coalitions) <= 4 * (2**5 + 2**3 + 2)
    assert found.values == pytest.approx(np.ones(9))


@pytest.mark.parametrize("unions", [[], [[]], [[0, 1], [1]], [[0], [2]], [[0], []], [[1]], [[p] for p in range(17)]])
def test_players_outside_one_union_and_too_many_are_refused(unions):
    with pytest.raises(ValueError, match="union"):
        owen_values(lambda coalitions: np.zeros(len(coalitions)), unions)


def test_a_game_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="coalitions"):
        shapley_values(lambda _: np.zeros(3), 2)
