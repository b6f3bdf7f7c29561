"""Training targets and what predictions are held against are the same figure."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.customer import fold
from domain.features import day_of
from domain.outcomes import outcomes
from services.trainer.history import History
from services.trainer.judged_rows import domain_events
from tests.effort import tries
from tests.unit.trainer.shops import FIRST_DAY, shop, table


@given(st.integers(0, 10_000), st.integers(20, 60), st.integers(1, 40))
@settings(max_examples=tries(15), deadline=None)
def test_a_training_sets_targets_are_the_outcomes(seed: int, origin: int, horizon: int) -> None:
    rows = shop(25, 100, seed=seed)
    day = day_of(FIRST_DAY) + origin
    every, _ = domain_events(table(rows), "USD")
    history = History([(name, fold(each)) for name, each in every.items()], day_of(FIRST_DAY) + 100, 100)
    (found,) = history.training_sets([(day, horizon)])
    ends = day + horizon
    states = [fold(every[name]) for name in found.customer_ids]
    got = outcomes(states, [day] * len(states), [ends] * len(states))
    np.testing.assert_array_equal(found.known_targets.orders, got.orders.astype(float))
    np.testing.assert_array_equal(found.known_targets.value, got.minor / 100)
