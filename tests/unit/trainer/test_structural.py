"""The purchase models of shops with a season and with wholesale buyers, against what the shops' customers then did."""

from datetime import date, timedelta
from functools import cache

import pytest

from deploy.local.binaries import cdnow_purchases
from domain.features import date_of, day_of
from services.trainer.generation import generate, preset
from services.trainer.generation.spec import PRESETS
from services.trainer.history import TrainingSet
from services.trainer.orders_file import read_cdnow
from services.trainer.sources.orders import from_table
from services.trainer.structural import find_season, find_second_class, fit_structural, statistics

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


@cache
def customers_of(kind: str, customers: int) -> TrainingSet:
    """Of a shop of two years without a season, with what they did in the days after those."""
    made = generate(preset(kind, customers=customers, years=2.25, season_amplitude=0.0, weekly="1,1,1,1,1,1,1", seed=3))
    cutoff = date_of(made.end_day) - timedelta(days=HORIZON_DAYS)
    after = from_table(made.table, cutoff + timedelta(days=HORIZON_DAYS), "USD").history
    return after.training_sets([(day_of(cutoff), HORIZON_DAYS)])[0]


@pytest.mark.slow
def test_wholesale_buyers_are_found_and_new_ones_are_expected_back() -> None:
    known, truth = customers_of("wholesale", 6000), PRESETS["wholesale"].changes
    second = find_second_class(known, None).second
    assert second is not None
    assert second.share == pytest.approx(truth["wholesale_share"], rel=0.25)
    assert second.spend_factor == pytest.approx(truth["wholesale_spend_factor"], rel=0.25)
    assert second.rate_factor == pytest.approx(truth["wholesale_rate_factor"], rel=0.25)
    new = statistics(known.features).x == 0
    came = known.known_targets.value[new].sum()
    one, two = (
        fit_structural(known, "Pareto/NBD", None, each).expect(known.features, HORIZON_DAYS).value[new].sum() / came
        for each in (None, second)
    )
    assert one < 0.6, "one class does not expect large first baskets to come again"
    assert 0.75 < two < 1.3


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "customers"), [("textbook", 4000), ("cohort", 4000), ("default", 150)])
def test_where_customers_are_of_one_class_or_few_no_other_is_found(kind: str, customers: int) -> None:
    assert find_second_class(customers_of(kind, customers), None).second is None


@pytest.mark.slow
def test_customers_who_differ_by_degrees_are_no_two_classes() -> None:
    cutoff = date(1997, 10, 1)
    (known,) = from_table(read_cdnow(cdnow_purchases()), cutoff, "USD").history.training_sets([(day_of(cutoff), 0)])
    found = find_second_class(known, None)
    assert found.gain > 50, "on CDNOW a second class of a quarter of the customers would pay"
    assert found.second is None
