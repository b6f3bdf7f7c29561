"""How much of what truly happened is still there, and right, after a file was read and judged: measured on a generated
shop, whose truth is known. It must never look at what the generator did to a row: only at the truth, and at what came
of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domain.customer import DAY_MS, CustomerState, Event, OrderPlaced, OrderRefunded, apply
from domain.features import FEATURE_NAMES, features
from domain.rfm_scores import Quintiles
from services.trainer.generation.events import LOOSE
from services.trainer.generation.shop import Shop
from services.trainer.judged_rows import JudgedRows, judge
from services.trainer.orders_file import read_orders

COMPLETENESS_MIN = 0.9998
_EXACT = ["kind", "id", "order", "customer", "at_ms", "minor"]
_QUINTILES = Quintiles((10.0, 20.0, 30.0, 40.0), (0.0, 1.0, 2.0, 3.0), (10.0, 20.0, 30.0, 40.0))


@dataclass(frozen=True)
class Completeness:
    """What was found of what there is."""

    events: int
    """True orders and refunds."""
    events_found: int
    """Of these, with a valid row of the exact id, order, customer, time and amount, and none that says otherwise."""
    rows_invented: int
    """Valid rows that are no true event."""
    cells: int
    """Cells of the feature table as of the last day that a customer's true history suffices for: a gap needs two
    purchase days, a spread of gaps three. Age is none of them, since no orders file tells it."""
    cells_found: int
    """Of these, those that the file fills."""
    cells_exact: int
    """Of these, those that hold the true value to the last bit."""

    @property
    def events_share(self) -> float:
        """Share of true events that survive, 1 for none."""
        return self.events_found / self.events if self.events else 1.0

    @property
    def cells_share(self) -> float:
        """Share of knowable feature cells that are known, 1 for none."""
        return self.cells_found / self.cells if self.cells else 1.0

    @property
    def exact_share(self) -> float:
        """Share of knowable feature cells that are known and right, 1 for none."""
        return self.cells_exact / self.cells if self.cells else 1.0

    @property
    def is_enough(self) -> bool:
        """At least COMPLETENESS_MIN of events and of cells, and nothing invented."""
        return min(self.events_share, self.cells_share) >= COMPLETENESS_MIN and not self.rows_invented


def measure(shop: Shop, file: Path | None = None) -> Completeness:
    """Read and judge the shop's file (or its table, without one) and compare with the truth."""
    judged = judge(shop.table if file is None else read_orders(file), shop.spec.currency)
    found, invented = _compare(_true_events(shop), _judged_events(judged))
    return Completeness(len(shop.events), found, invented, *_compare_features(shop, judged))


def _true_events(shop: Shop) -> pd.DataFrame:
    """One row a true event."""
    events = shop.events
    ids = np.where(events.is_refund, shop.refund_ids(events.number), shop.order_ids(events.number))
    return pd.DataFrame(
        {
            "kind": events.is_refund,
            "id": ids,
            "order": shop.order_ids(events.order),
            "customer": shop.customers.ids[events.customer],
            "at_ms": events.at_ms,
            "minor": events.minor,
        }
    )


def _judged_events(judged: JudgedRows) -> pd.DataFrame:
    """One row a valid row of the file; repeats are still there."""
    rows = np.flatnonzero(judged.valid)
    is_refund = judged.is_refund[rows]
    return pd.DataFrame(
        {
            "kind": is_refund,
            "id": np.where(is_refund, judged.refund_ids[rows], judged.order_ids[rows]),
            "order": judged.order_ids[rows],
            "customer": judged.customer_ids[rows],
            "at_ms": judged.at_ms[rows],
            "minor": judged.amount_minor[rows],
        }
    )


def _compare(true: pd.DataFrame, valid: pd.DataFrame) -> tuple[int, int]:
    """(true events found, valid rows that are none)."""
    merged = valid.merge(true, how="left", on=_EXACT, indicator="is")
    wrong = merged[merged["is"] == "left_only"]
    right = merged.loc[merged["is"] == "both", ["kind", "id"]].drop_duplicates()
    contradicted = right.merge(wrong[["kind", "id"]].drop_duplicates(), on=["kind", "id"])
    return len(right) - len(contradicted), len(wrong)


def _compare_features(shop: Shop, judged: JudgedRows) -> tuple[int, int, int]:
    """(cells that can be known, of these known, of these exact) as of the last day, for all true customers."""
    place = {customer: index for index, customer in enumerate(shop.customers.ids.tolist())}
    true, read = ([CustomerState() for _ in place] for _ in range(2))
    events = shop.events
    for customer, event in zip(events.customer.tolist(), true_domain_events(shop), strict=True):
        apply(true[customer], event)
    for row, event in judged.events():
        customer = place.get(judged.customer_ids[row], -1)
        if customer >= 0:
            apply(read[customer], event)
    per_major = 10**shop.spec.exponent
    knowable = knowable_cells(shop)
    totals = np.zeros(3, dtype=np.int64)
    for begin in range(0, len(true), 10_000):
        part = slice(begin, begin + 10_000)
        days = [shop.end_day - 1] * len(true[part])
        want, got = (features(states[part], days, _QUINTILES, per_major).features for states in (true, read))
        known = knowable[part]
        totals += [known.sum(), (known & ~np.isnan(got)).sum(), (known & (want == got)).sum()]
    cells, found, exact = totals.tolist()
    return cells, found, exact


def knowable_cells(shop: Shop) -> NDArray[np.bool_]:
    """Whether each customer's true history suffices for each feature, (customers, features); from the truth alone, by
    rules that the features' definitions state."""
    events, n = shop.events, len(shop.customers)
    is_order = ~events.is_refund
    owner, number = events.customer[is_order], events.number[is_order]
    orders = np.bincount(owner, minlength=n)
    days = np.unique(np.column_stack([owner, events.at_ms[is_order] // DAY_MS]), axis=0)
    purchase_days = np.bincount(days[:, 0], minlength=n)
    back = np.zeros(number.max(initial=0) + 1)
    named = events.is_refund & (events.order != LOOSE)
    np.add.at(back, events.order[named], events.minor[named])
    earns = np.bincount(owner, weights=events.minor[is_order] > back[number], minlength=n) > 0
    rules = {
        "customer_age": np.zeros(n, dtype=bool),
        "avg_days_between_purchases": orders >= 2,
        "overdue_ratio": purchase_days >= 2,
        "last_gap_days": purchase_days >= 2,
        "gap_std_days": purchase_days >= 3,
        "btyd_m": earns,
    }
    return np.column_stack([rules.get(name, orders >= 1) for name in FEATURE_NAMES])


def true_domain_events(shop: Shop) -> Iterator[Event]:
    """The true events, by time, as domain events of Shop.events.customer."""
    events = shop.events
    ids, refunds = shop.order_ids(events.order).tolist(), shop.refund_ids(events.number).tolist()
    columns = (events.is_refund.tolist(), events.order.tolist(), events.at_ms.tolist(), events.minor.tolist())
    for order_id, refund_id, is_refund, order, at_ms, minor in zip(ids, refunds, *columns, strict=True):
        event: Event
        if is_refund:
            event = OrderRefunded(refund_id, None if order == LOOSE else order_id, minor, at_ms)
        else:
            event = OrderPlaced(order_id, minor, at_ms)
        yield event
