"""A generated shop: what truly happened, and the orders file that tells of it. It must never depend on anything but its
spec: the parts draw from streams of their own, so that one part's parameters leave the others' draws alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.random import SeedSequence, default_rng
from numpy.typing import NDArray

from services.trainer.generation import rendering
from services.trainer.generation.customers import NEVER_MS, Customers, draw_customers
from services.trainer.generation.events import LOOSE, Events, draw_amounts, draw_events, draw_orders
from services.trainer.generation.file_rows import KINDS, TIDY, FileRows, draw_rows
from services.trainer.generation.rendering import Texts
from services.trainer.generation.spec import ShopSpec
from services.trainer.orders_file import OrdersTable

FILE_NAME = "generated-orders"


@dataclass(frozen=True, eq=False)
class Shop:
    """Numbers alone until `table` or `chunks` is asked for: about 60 bytes an order."""

    spec: ShopSpec
    customers: Customers
    events: Events
    rows: FileRows
    refunds_after_end: int
    """Refunds of these orders that nobody sees, since they come after the history."""

    @property
    def start_day(self) -> int:
        """First day since 1970."""
        return self.spec.start_day

    @property
    def end_day(self) -> int:
        """The first day after the history, since 1970."""
        return self.spec.end_day

    @cached_property
    def table(self) -> OrdersTable:
        """All rows: what read_orders() gives of the written file."""
        return self._rendered(slice(0, len(self.rows)))

    def chunks(self, rows_max: int = 100_000) -> Iterator[OrdersTable]:
        """The same rows in pieces of up to rows_max, at least one piece."""
        for begin in range(0, max(1, len(self.rows)), rows_max):
            yield self._rendered(slice(begin, begin + rows_max))

    def _rendered(self, part: slice) -> OrdersTable:
        spec = self.spec
        return rendering.table(FILE_NAME, spec.currency, spec.exponent, self.customers, self.events, self.rows, part)

    def order_ids(self, numbers: NDArray[np.int64]) -> Texts:
        """Ids in the file of orders by number."""
        return rendering.numbered("o", numbers)

    def refund_ids(self, numbers: NDArray[np.int64]) -> Texts:
        """Ids in the file of refunds by number."""
        return rendering.numbered("r", numbers)

    @cached_property
    def counts(self) -> dict[str, Any]:
        """How many there are of each kind of event and row; dirty and lost by kind of breakage."""
        events, rows = self.events, self.rows
        refunds = int(events.is_refund.sum())
        lost_row = rows.is_lost[rows.event]
        return {
            "orders": len(events) - refunds,
            "refunds": refunds,
            "refunds_loose": int((events.order == LOOSE).sum()),
            "refunds_after_end": self.refunds_after_end,
            "rows": len(rows),
            "untidy": int((rows.form != TIDY).sum()),
            "late": int(rows.is_late.sum()),
            "duplicates": int(rows.is_duplicate.sum()),
            "lost": _by_kind(rows.breakage[lost_row]),
            "dirty": _by_kind(rows.breakage[~lost_row]),
        }

    def truth(self) -> dict[str, Any]:
        """The parameters, the models' parameters, the counts, and each customer's truth by column, for JSON.

        dropout_ms is null where a customer never leaves, or (bg) leaves after the history.
        """
        customers = self.customers
        orders = np.bincount(self.events.customer[~self.events.is_refund], minlength=len(customers))
        return {
            "spec": msgspec.to_builtins(self.spec),
            "purchases": msgspec.to_builtins(self.spec.purchases),
            "spend": msgspec.to_builtins(self.spec.spend),
            "start_day": self.start_day,
            "end_day": self.end_day,
            "counts": self.counts,
            "customers": {
                "customer_id": customers.ids.tolist(),
                "acquired_ms": customers.acquired_ms.tolist(),
                "dropout_ms": [None if at == NEVER_MS else at for at in customers.dropout_ms.tolist()],
                "rate_per_day": customers.rate_per_day.tolist(),
                "mean_spend": customers.mean_spend.tolist(),
                "is_wholesale": customers.is_wholesale.tolist(),
                "birth_year": [year or None for year in customers.birth_year.tolist()],
                "orders": orders.tolist(),
            },
        }


def _by_kind(breakage: NDArray[np.int8]) -> dict[str, int]:
    return {kind: int((breakage == place).sum()) for place, kind in enumerate(KINDS) if (breakage == place).any()}


def generate(spec: ShopSpec) -> Shop:
    """The shop of a spec, by its seed. Pure; the same spec gives the same shop."""
    people, ordering, spending, refunding, filing = (default_rng(each) for each in SeedSequence(spec.seed).spawn(5))
    customers, orders = draw_orders(spec, draw_customers(spec, people), ordering)
    minor = draw_amounts(spec, customers, orders, spending)
    events, after_end = draw_events(spec, orders, minor, refunding)
    return Shop(spec, customers, events, draw_rows(spec, events, filing), after_end)
