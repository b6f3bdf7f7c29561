"""The table of profiles against what the shop's orders say, and a split in which nobody has a say in another's
place."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from domain.features import INPUT_NAMES, day_of
from services.runtime.shutdown import KnownProblem
from services.trainer.generation import generate, preset
from services.trainer.profile.table import ProfileTable, generated_table, split_customers, table_of
from tests.unit.trainer.profile.small import CUSTOMERS, SEED, profiles, scored
from tests.unit.trainer.shops import FIRST_DAY, order, shop, table

ORDERS, AVERAGE, AGE, SCORE = (
    INPUT_NAMES.index(name) for name in ("total_orders", "average_order_value", "customer_age", "frequency_score")
)


def of(rows: list[dict[str, str]], last_day: int | None = None, births: dict[str, int] | None = None) -> ProfileTable:
    day = None if last_day is None else day_of(FIRST_DAY + timedelta(days=last_day))
    return table_of(table(rows), "USD", day, births or {}, {})


def test_the_target_is_the_sum_of_order_amounts_before_refunds():
    refund = {**order(0, "a", 5, "4.00"), "type": "refund", "refund_id": "r1"}
    found = of([order(0, "a", 0, "10.10"), order(1, "a", 3, "20.20"), refund])
    assert found.value.tolist() == [30.3]
    assert found.net_value.tolist() == pytest.approx([26.3], abs=1e-12)
    assert found.inputs[0, ORDERS] == 2
    assert found.inputs[0, AVERAGE] == 15.15


def test_orders_after_the_day_are_not_seen():
    rows = [order(0, "a", 0, "10.00"), order(1, "a", 9, "20.00"), order(2, "b", 9, "30.00")]
    assert of(rows, 8).customer_ids == ("a",)
    assert of(rows, 8).value.tolist() == [10.0]
    assert of(rows, 9).value.tolist() == [30.0, 30.0]
    assert of(rows).value.tolist() == [30.0, 30.0], "without a day, the last one"


def test_a_repeated_order_counts_once():
    assert of([order(0, "a", 0, "10.00"), order(0, "a", 0, "10.00")]).value.tolist() == [10.0]


def test_ages_come_from_birth_years_and_are_missing_without_one():
    found = of([order(0, "a", 0), order(1, "b", 0)], 0, {"a": FIRST_DAY.year - 40})
    assert found.inputs[0, AGE] == 40
    assert np.isnan(found.inputs[1, AGE])


def test_a_shop_without_a_valid_order_is_refused():
    with pytest.raises(KnownProblem, match="no customer with a valid order"):
        of([order(0, "a", 0, "not money")], 3)


def test_a_generated_table_has_as_many_customers_as_were_asked_for():
    assert len(profiles()) == CUSTOMERS
    assert len(set(profiles().customer_ids)) == CUSTOMERS
    assert len(generated_table(77, 1, 5)) == 77


def test_generated_values_are_those_of_the_shop_that_was_made():
    """Against the generator's own record of what truly happened, which no row of the file has to do with."""
    shop_made = generate(preset("textbook", customers=300, years=2, seed=SEED))
    found = table_of(shop_made.table, "USD", shop_made.end_day - 1, {}, {})
    events = shop_made.events
    minor = np.bincount(events.customer[~events.is_refund], events.minor[~events.is_refund], minlength=300)
    true = dict(zip(map(str, shop_made.customers.ids), (minor / 100).tolist(), strict=True))
    assert found.value.tolist() == pytest.approx([true[customer] for customer in found.customer_ids], rel=1e-12)
    assert len(found) == int((minor > 0).sum())


def test_a_generated_table_is_the_same_again_and_another_with_another_seed():
    assert generated_table(200, 1, 5).fingerprint == generated_table(200, 1, 5).fingerprint
    assert generated_table(200, 1, 5).fingerprint != generated_table(200, 1, 6).fingerprint


def test_the_split_parts_all_customers_at_the_promised_shares():
    _, split = scored()
    parts = np.column_stack([split.training, split.validation, split.test])
    assert (parts.sum(axis=1) == 1).all()
    assert parts.mean(axis=0) == pytest.approx([0.7, 0.1, 0.2], abs=0.04)


def test_a_customers_part_does_not_depend_on_the_other_customers():
    ids = profiles().customer_ids
    whole, half = split_customers(ids, SEED), split_customers(ids[::2], SEED)
    assert (whole.test[::2] == half.test).all()
    assert (whole.validation[::2] == half.validation).all()
    assert (split_customers(ids, SEED + 1).test != whole.test).any()


def test_borders_of_the_scores_follow_from_the_training_customers_alone():
    known, (_, split) = profiles(), scored()
    other = ~split.training
    changed = replace(
        known,
        value=np.where(other, 1e6, known.value),
        recency_days=np.where(other, 0.0, known.recency_days),
        repeat_orders=np.where(other, 99.0, known.repeat_orders),
    )
    assert changed.fit_quintiles(split.training) == known.fit_quintiles(split.training)
    assert changed.fit_quintiles(other) != known.fit_quintiles(other)


def test_frequency_scores_are_quintiles():
    scores = scored()[0].inputs[:, SCORE]
    assert set(scores.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    assert np.isnan(profiles().inputs[:, SCORE]).all()


def test_the_fingerprint_tells_tables_apart():
    one = of(shop(20, 100, seed=1))
    assert replace(one, value=one.value + 0.01).fingerprint != one.fingerprint
    assert of(shop(20, 100, seed=2)).fingerprint != one.fingerprint
    assert of(shop(20, 100, seed=1)).fingerprint == one.fingerprint
