"""Data that ends before the cutoff makes everybody look as if they had left: the card and the command say so."""

import pytest

from services.trainer.card_facts import limits, quiet_end

BUSY = {"quiet_days": 1, "orders": 5_000, "period_days": 500}


def test_a_shop_that_sold_yesterday_is_not_told():
    assert quiet_end(BUSY) is None


@pytest.mark.parametrize(("quiet", "told"), [(14, False), (15, True), (545, True)])
def test_a_silence_of_more_than_two_weeks_is(quiet, told):
    assert (quiet_end(BUSY | {"quiet_days": quiet}) is not None) is told


def test_a_shop_that_sells_once_a_week_may_be_silent_for_longer():
    assert quiet_end({"quiet_days": 100, "orders": 70, "period_days": 500}) is None
    assert quiet_end({"quiet_days": 150, "orders": 70, "period_days": 500}) is not None


def test_facts_of_an_older_trainer_tell_nothing():
    assert quiet_end({"period_days": 500}) is None


def test_it_is_the_first_of_the_limits():
    data = BUSY | {"quiet_days": 545, "newest_customer_days": 0, "first_month_share": 0.0, "silent_year_share": 0.0,
                   "customers": 2_000, "repeat_buyers": 900, "refunded_share": 0.02, "top_percent_share": 0.05,
                   "missing_shares": {}}  # fmt: skip
    assert limits(data, {}, [], 90, "EUR")[0].startswith("The last order is 545 days before the cutoff.")
