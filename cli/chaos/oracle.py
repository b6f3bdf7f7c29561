"""What a customer's orders amount to, computed naively from the published events alone.

Pure, with nothing of the product's own arithmetic: plain dictionaries and sums, to judge the product by. Must never
import from domain or services.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from cli.chaos.load import DAY_MS, Event


class Books(NamedTuple):
    """Orders that count, and what was paid for them before and after refunds, in cents."""

    orders: int
    gross_minor: int
    net_minor: int


def by_customer(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Events of each customer."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[str(event["customer_id"])].append(event)
    return dict(found)


class Identities(NamedTuple):
    """Who is whom in the end."""

    erased: frozenset[str]
    survivor: Mapping[str, str]
    """Merged customer → the customer who stands for it, at the end of a chain of merges."""

    @property
    def gone(self) -> frozenset[str]:
        """Customers of whom nothing must be published any more."""
        return self.erased | self.survivor.keys()

    def members(self, customer: str) -> list[str]:
        """All ids of a customer."""
        return [customer, *(merged for merged, into in self.survivor.items() if into == customer)]


def identities(events: Iterable[Event]) -> Identities:
    """What the merges and erasures come to, in whatever order they are read."""
    erased, into = set[str](), dict[str, str]()
    for event in events:
        if event["event_type"] == "customer.erased":
            erased.add(str(event["customer_id"]))
        elif event["event_type"] == "customer.merged":
            into[str(event["customer_id"])] = str(event["merged_into"])
    survivor = {}
    for merged in into:
        end = merged
        while end in into:
            end = into[end]
        survivor[merged] = end
    return Identities(frozenset(erased), survivor)


def books(events: Iterable[Event], as_of_day: int) -> Books:
    """One customer's books at the end of a day (since 1970, UTC). Repeated events count once."""
    orders: dict[str, int] = {}
    back: dict[str | None, int] = {}
    gone: set[str] = set()
    for event in {str(each["event_id"]): each for each in events}.values():
        if at_ms(event) >= (as_of_day + 1) * DAY_MS:
            continue
        match event["event_type"]:
            case "order.placed":
                orders[str(event["order_id"])] = minor(event)
            case "order.refunded":
                order_id = event.get("order_id")
                name = None if order_id is None else str(order_id)
                back[name] = back.get(name, 0) + minor(event)
            case "order.cancelled":
                gone.add(str(event["order_id"]))
    counted = {order_id: amount for order_id, amount in orders.items() if order_id not in gone}
    net = sum(amount - min(amount, back.get(order_id, 0)) for order_id, amount in counted.items())
    return Books(len(counted), sum(counted.values()), net - back.get(None, 0))


def minor(event: Event) -> int:
    """Cents of an event's amount."""
    return int(Decimal(str(event["amount"])) * 100)


def at_ms(event: Event) -> int:
    """When it happened, epoch milliseconds."""
    return round(datetime.fromisoformat(str(event["occurred_at"])).timestamp() * 1000)
