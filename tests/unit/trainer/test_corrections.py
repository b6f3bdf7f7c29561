"""What was learnt of many customers is said of many: the few of whom most is expected stay near the purchase model."""

from dataclasses import replace

import numpy as np
import pytest

from services.trainer.signals import LARGEST_CUSTOMERS, scale_of
from services.trainer.structural import Expectation
from tests.unit.trainer.test_export import SCALE, STRUCTURALS, corrections, rows

HORIZON = 90


def expected() -> Expectation:
    return STRUCTURALS["MBG/NBD"].expect(rows(), HORIZON)


def test_of_the_largest_customers_less_is_believed_the_larger_they_are() -> None:
    value = expected().value
    beyond = value > SCALE.large_value
    assert 10 < np.count_nonzero(beyond) < len(value) - 10, "both kinds are there"
    found = corrections().opinions(rows(), expected(), HORIZON, SCALE)
    of_all = corrections().opinions(rows(), expected(), HORIZON, replace(SCALE, large_value=float(value.max())))
    np.testing.assert_array_equal(found["value"][~beyond], of_all["value"][~beyond])
    np.testing.assert_allclose(
        found["value"][beyond] * value[beyond], of_all["value"][beyond] * SCALE.large_value, rtol=1e-12
    )
    for target in ("orders", "p_active"):
        np.testing.assert_array_equal(found[target], of_all[target], err_msg=f"{target} is of counts, not of money")


@pytest.mark.parametrize("customers", [LARGEST_CUSTOMERS + 50, LARGEST_CUSTOMERS, 3])
def test_large_is_what_is_expected_of_the_last_of_the_largest(customers: int) -> None:
    value = np.random.default_rng(5).permutation(np.arange(1.0, customers + 1))
    found = scale_of(np.ones((customers, rows().shape[1])), Expectation(value, value, value), 100.0)
    assert np.count_nonzero(value >= found.large_value) == min(customers, LARGEST_CUSTOMERS)
