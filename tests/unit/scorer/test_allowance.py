"""The challenger's share of time: never more in the long run, however its steps and the pauses between them fall."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scorer.allowance import BURST_SECONDS, Allowance

steps = st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 2.0)), max_size=80)


@given(st.floats(0.01, 1.0), steps)
def test_what_is_spent_stays_within_the_share_but_for_the_burst_and_one_step(share: float, made: list) -> None:
    now, spent, longest = 100.0, 0.0, 0.0
    allowance = Allowance(share, now)
    for takes, pause in made:
        if allowance.left(now) > 0:
            allowance.spend(takes)
            spent, longest, now = spent + takes, max(longest, takes), now + takes
        now += pause
        assert spent <= share * (now - 100.0) + BURST_SECONDS + longest + 1e-9


def test_what_was_overdrawn_is_made_up_for_before_more_is_given() -> None:
    allowance = Allowance(0.25, 0.0)
    allowance.spend(2.5)
    assert allowance.left(7.9) < 0
    assert allowance.left(8.1) > 0


def test_no_more_than_the_burst_is_saved_and_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance(0.5, 0.0)
    assert allowance.left(1e6) == BURST_SECONDS
    allowance.spend(BURST_SECONDS)
    assert allowance.left(5.0) == pytest.approx(0.0)
