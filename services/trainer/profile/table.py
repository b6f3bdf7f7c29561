"""The table of customer profiles: the seven inputs of each customer as of a day, and the money that came in until then.

Made from an orders file through the product's own domain code. It must never let the scores of a customer who is held
out follow from a population that includes the held-out ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.customer import DAY_MS, CustomerState, ProfileUpdated, apply, fold
from domain.features import FEATURE_NAMES, INPUT_NAMES, date_of, features
from domain.purchases import settle, sum_by
from domain.rfm_scores import Quintiles, fit_quintiles, score_high_is_good
from schemas.currencies import minor_per_major
from services.runtime.shutdown import KnownProblem
from services.trainer.generation import Shop, ShopSpec, generate, preset
from services.trainer.judged_rows import domain_events
from services.trainer.orders_file import OrdersTable

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
_ANY_QUINTILES = Quintiles((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
_FREQUENCY_SCORE = INPUT_NAMES.index("frequency_score")
_RECENCY, _FREQUENCY, _NET = (FEATURE_NAMES.index(name) for name in ("recency_days", "frequency", "monetary"))


@dataclass(frozen=True, eq=False)
class ProfileTable:
    """Customers with an order that counts, sorted by id; arrays of n rows. Money in major units of `currency`."""

    customer_ids: tuple[str, ...]
    inputs: Floats
    """(n, 7) in INPUT_NAMES order; frequency_score is unknown until with_quintiles()."""
    value: Floats
    """The target: the sum of the customer's order amounts, before refunds."""
    net_value: Floats
    """The same after refunds, which the seven inputs do not know of."""
    recency_days: Floats
    repeat_orders: Floats
    currency: str
    as_of_day: int
    facts: Mapping[str, Any]
    """Where the orders came from."""

    def __len__(self) -> int:
        return len(self.customer_ids)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over ids, inputs and target, hexadecimal."""
        digest = sha256("\n".join(self.customer_ids).encode("utf-8", "surrogateescape"))
        known = np.delete(self.inputs, _FREQUENCY_SCORE, axis=1)
        for array in (known, self.value, self.net_value):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    def fit_quintiles(self, rows: Bools) -> Quintiles:
        """Borders of the scores over these rows. Spend is before refunds, as it is where the scores are used: on a
        form. Raises ValueError if there are none."""
        return fit_quintiles(self.recency_days[rows], self.repeat_orders[rows], self.value[rows])

    def with_quintiles(self, quintiles: Quintiles) -> "ProfileTable":
        """The same table with the frequency score by these borders."""
        inputs = self.inputs.copy()
        inputs[:, _FREQUENCY_SCORE] = score_high_is_good(self.repeat_orders, quintiles.frequency)
        return replace(self, inputs=inputs)


@dataclass(frozen=True, eq=False)
class Split:
    """Which rows serve what; each customer is in exactly one."""

    training: Bools
    validation: Bools
    """Never fitted to: it chooses among the candidates."""
    test: Bools
    """Looked at once, after everything is chosen."""


def split_customers(customer_ids: tuple[str, ...], seed: int) -> Split:
    """A split by a hash of the customer's id: no other customer, and no order of rows, has a say in it."""
    salt = seed.to_bytes(8, "big", signed=True)
    hashes = [blake2b(each.encode("utf-8", "surrogateescape"), digest_size=8, salt=salt) for each in customer_ids]
    place = np.array([int.from_bytes(each.digest(), "big") / 2**64 for each in hashes], dtype=np.float64)
    test = place < TEST_SHARE
    validation = ~test & (place < TEST_SHARE + VALIDATION_SHARE)
    return Split(~test & ~validation, validation, test)


def generated_shop(customers: int, years: float, seed: int) -> tuple[Shop, ShopSpec]:
    """A shop of a few more customers than asked for, because the only order of some is one of the broken rows."""
    spec = preset("default", customers=customers + 50 + customers // 100, years=years, seed=seed)
    return generate(spec), spec


def generated_table(customers: int, years: float, seed: int) -> ProfileTable:
    """Profiles of a generated shop at the end of its last day: exactly `customers` of them."""
    shop, spec = generated_shop(customers, years, seed)
    people = shop.customers
    births = {
        str(customer): int(year) for customer, year in zip(people.ids, people.birth_year, strict=True) if year > 0
    }
    facts = {"kind": "generated", "preset": "default", "customers": customers, "years": years, "seed": seed}
    return table_of(shop.table, spec.currency, shop.end_day - 1, births, facts, customers)


def table_of(
    orders: OrdersTable,
    currency: str,
    as_of_day: int | None,
    birth_years: Mapping[str, int],
    facts: Mapping[str, Any],
    customers_max: int | None = None,
) -> ProfileTable:
    """Profiles of a shop's customers at the end of a day (since 1970, UTC); the last day with an event if None.

    birth_years: of the customers whose year is known. customers_max: keep the first so many, by id. Raises KnownProblem
    if no customer has a valid order.
    """
    events, _ = domain_events(orders, currency)
    if as_of_day is None:
        as_of_day = max((each.occurred_at_ms for known in events.values() for each in known), default=0) // DAY_MS
    end_ms = (as_of_day + 1) * DAY_MS
    ids, states = [], []
    for customer in sorted(events):
        state = fold(event for event in events[customer] if event.occurred_at_ms < end_ms)
        if state.orders or state.folded:
            if customer in birth_years:
                apply(state, ProfileUpdated(birth_years[customer], 0))
            ids.append(customer)
            states.append(state)
    if not ids:
        raise KnownProblem(f"{orders.name} has no customer with a valid order until {date_of(as_of_day).isoformat()}")
    return _table(ids[:customers_max], states[:customers_max], currency, as_of_day, facts)


def _table(
    ids: list[str], states: list[CustomerState], currency: str, as_of_day: int, facts: Mapping[str, Any]
) -> ProfileTable:
    days, unit = [as_of_day] * len(states), minor_per_major(currency)
    settled = settle(states, days)
    rows = features(states, days, _ANY_QUINTILES, unit, settled)
    # Summed here and not taken from the features: total_spending is itself the product of two inputs.
    value = sum_by(settled.found.owner, settled.found.gross, len(states)) / unit
    inputs = rows.inputs.copy()
    inputs[:, _FREQUENCY_SCORE] = np.nan
    return ProfileTable(
        tuple(ids), inputs, value, rows.features[:, _NET], rows.features[:, _RECENCY], rows.features[:, _FREQUENCY],
        currency, as_of_day, facts,
    )  # fmt: skip
