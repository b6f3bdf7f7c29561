"""Spend of small expectations is drawn together, that of large ones is left alone, and the total stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.metrics import spearman
from services.trainer.spend_shrinkage import RULES, Rule, shrinkage

CHANCE = np.random.default_rng(1)
ORDERS = CHANCE.gamma(0.4, 1.0, 5000) + 1e-4
SPEND = 30 * np.exp(0.7 * CHANCE.normal(size=5000))
VALUE = ORDERS * SPEND


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule is not None])
def test_large_expectations_and_the_total_stay_about_as_they_were(rule: Rule) -> None:
    found = shrinkage(rule, VALUE, ORDERS)
    assert found is not None
    after = found(VALUE, ORDERS)
    assert after.sum() == pytest.approx(VALUE.sum(), rel=0.04)
    top = 20 * VALUE.mean() * max(rule.half_share, 0.2) < VALUE
    assert top.sum() > 20
    np.testing.assert_allclose(after[top], VALUE[top], rtol=0.12)


def test_small_expectations_are_ranked_by_who_will_order() -> None:
    found = shrinkage(Rule(0.0, 0.4), VALUE, ORDERS)
    assert found is not None
    small = np.quantile(VALUE, 0.3) > VALUE
    assert spearman(found(VALUE, ORDERS)[small], ORDERS[small]) > 0.97 > spearman(VALUE[small], ORDERS[small])


def test_the_currency_does_not_matter() -> None:
    rule = Rule(0.5, 0.15)
    one, other = shrinkage(rule, VALUE, ORDERS), shrinkage(rule, VALUE * 100, ORDERS)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(other(VALUE * 100, ORDERS), 100 * one(VALUE, ORDERS), rtol=1e-9)


def test_no_rule_and_a_shop_of_which_nothing_is_expected_are_left_alone() -> None:
    assert shrinkage(None, VALUE, ORDERS) is None
    assert shrinkage(Rule(0.5, 0.15), np.zeros(3), np.zeros(3)) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e6)), min_size=1, max_size=20))
def test_whatever_is_expected_it_stays_finite_and_at_least_nothing(pairs: list[tuple[float, float]]) -> None:
    found = shrinkage(Rule(0.0, 0.15), VALUE, ORDERS)
    assert found is not None
    value, orders = (np.array(column) for column in zip(*pairs, strict=True))
    after = found(value, orders)
    assert np.isfinite(after).all()
    assert (after >= 0).all()
