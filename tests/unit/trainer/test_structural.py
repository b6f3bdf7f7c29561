"""The purchase model of a shop with a season, against what the shop's customers then did."""

from datetime import timedelta

import pytest

from domain.features import date_of, day_of
from services.trainer.generation import generate, preset
from services.trainer.sources.orders import from_table
from services.trainer.structural import find_season, fit_structural

HORIZON_DAYS = 90


@pytest.mark.slow
@pytest.mark.parametrize("days_before_the_end", [HORIZON_DAYS, HORIZON_DAYS + 90], ids=["after Christmas", "before"])
def test_totals_of_a_gift_shop_are_about_right_after_christmas_and_over_it(days_before_the_end: int) -> None:
    made = generate(preset("seasonal", customers=3000, years=3.25, seed=5))
    cutoff = date_of(made.end_day) - timedelta(days=days_before_the_end)
    before = from_table(made.table, cutoff, "USD").history
    after = from_table(made.table, cutoff + timedelta(days=HORIZON_DAYS), "USD").history
    (customers,) = after.training_sets([(day_of(cutoff), HORIZON_DAYS)])
    season = find_season(before.daily(), customers).season
    assert season is not None
    expected = fit_structural(customers, "Pareto/NBD", season).expect(customers.features, HORIZON_DAYS)
    total = customers.known_targets.orders.sum()
    assert total > 300
    assert 0.8 < expected.orders.sum() / total < 1.25
