"""What a shop's systems publish during a run: orders, refunds, cancellations, profiles, repeats, late arrivals.

Pure: every event is a function of the seed, of its number and of the run's first instant. Must never depend on what the
product did with the events before.
"""

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from random import Random
from typing import NamedTuple, TypeVar

DAY_MS = 86_400_000
HISTORY_DAYS = 300
"""The wholesale customers' first orders lie so far back, and their late ones: on days that are folded by then."""
FOLDED_DAYS = 15
_REMEMBERED = 2000
_HTTP_SHARE = 0.1
_LINKS_FROM, _LINKS_EVERY = 400, 130
"""Positions in the live stream of the first merge, and from one to the next."""

Event = dict[str, str | int]
T = TypeVar("T")


class Channel(StrEnum):
    """How an event reaches the product."""

    KAFKA = "kafka"
    HTTP = "http"


class Planned(NamedTuple):
    """An event to publish, and where. partition: of customer-events, if it goes to Kafka."""

    event: Event
    channel: Channel
    partition: int


class Shape(NamedTuple):
    """How large the shop is. Wholesale customers have more orders than are kept one by one."""

    customers: int = 1000
    wholesale: int = 3
    wholesale_orders: int = 1250
    partitions: int = 4
    merged: int = 20
    """Customers alias-<n>, each merged into person-<n> during the live stream, of which some are merged on."""
    erased: int = 20
    """Customers leaver-<n>, each erased during the live stream; events about them go on."""


def shape_for(minutes: float) -> Shape:
    """A shop for a run of so many minutes: so large that no retail customer comes to have orders folded into days."""
    return Shape(customers=max(Shape().customers, round(100 * minutes)))


class _Order(NamedTuple):
    customer: str
    order_id: str
    minor: int


class _Shop:
    """Makes events, remembering some of its orders so that later events can speak of them."""

    def __init__(self, rng: Random, shape: Shape, name: str, linked: bool = False) -> None:
        """linked: whether customers who are merged or erased are among them."""
        self._rng, self._shape, self._name, self._linked = rng, shape, name, linked
        self._numbers = count()
        self._orders: list[_Order] = []
        self._sent: list[Planned] = []
        self._later: list[tuple[int, int, Event]] = []

    def next(self, position: int, at_ms: int) -> Planned:
        """The event at this position of the stream, at this instant of the shop's clock."""
        if self._later and self._later[0][0] <= position:
            planned = self._planned(heapq.heappop(self._later)[2])
        elif self._sent and self._rng.random() < 0.06:
            return self._rng.choice(self._sent)  # an upstream system repeats itself
        else:
            planned = self._planned(self._new(position, at_ms))
        if not _is_wholesale(planned.event["customer_id"]):  # ids of folded orders are not kept: see domain.customer
            _remember(self._sent, planned, self._rng)
        return planned

    def link(self, event_type: str, customer: str, at_ms: int, **fields: str) -> Planned:
        """A merge or an erasure, which may be repeated later like any other event."""
        planned = self._planned(self._event(event_type, customer, at_ms, **fields))
        _remember(self._sent, planned, self._rng)
        return planned

    def order(self, customer: str, at_ms: int) -> Event:
        """A new order."""
        number, minor = next(self._numbers), self._rng.randrange(1, 30_000)
        order_id = f"{self._name}-o{number}"
        if not _is_wholesale(customer):  # nor can a folded order be refunded or cancelled
            _remember(self._orders, _Order(customer, order_id, minor), self._rng)
        return self._event("order.placed", customer, at_ms, order_id=order_id, **money(minor))

    def _planned(self, event: Event) -> Planned:
        channel = Channel.HTTP if self._rng.random() < _HTTP_SHARE else Channel.KAFKA
        return Planned(event, channel, self._rng.randrange(self._shape.partitions))

    def _new(self, position: int, at_ms: int) -> Event:
        rng, customer, draw = self._rng, self._customer(), self._rng.random()
        if draw < 0.06:
            return self._wholesale(at_ms)
        if draw < 0.58 or not self._orders:
            return self.order(customer, at_ms)
        if draw < 0.67:
            return self.order(customer, at_ms - rng.randrange(DAY_MS, 400 * DAY_MS))  # late, by up to a year and more
        if draw < 0.73:
            return self.order(customer, at_ms - rng.randrange(1, 600_000))  # out of order, by minutes
        if draw < 0.87:
            return self._refund(at_ms)
        if draw < 0.91:
            return self._before_its_order(position, customer, at_ms)
        if draw < 0.96:
            order = rng.choice(self._orders)
            return self._event("order.cancelled", order.customer, at_ms, order_id=order.order_id)
        return self._event("customer.updated", customer, at_ms, birth_year=rng.randrange(1930, 2006))

    def _wholesale(self, at_ms: int) -> Event:
        customer = f"wholesale-{self._rng.randrange(self._shape.wholesale)}"
        if self._rng.random() < 0.5:
            at_ms -= HISTORY_DAYS * DAY_MS - self._rng.randrange(FOLDED_DAYS * DAY_MS)
        return self.order(customer, at_ms)

    def _refund(self, at_ms: int) -> Event:
        rng, order = self._rng, self._rng.choice(self._orders)
        draw = rng.random()
        if draw < 0.1:  # names no order
            return self._refunded(order.customer, at_ms, None, rng.randrange(1, 2000))
        if draw < 0.2:  # of an order that nobody will ever place
            return self._refunded(order.customer, at_ms, f"{self._name}-never-{next(self._numbers)}", order.minor)
        if draw < 0.4:
            return self._refunded(order.customer, at_ms, order.order_id, order.minor)
        if draw < 0.55:  # more than was paid
            return self._refunded(order.customer, at_ms, order.order_id, order.minor + rng.randrange(1, 5000))
        return self._refunded(order.customer, at_ms, order.order_id, rng.randrange(1, max(2, order.minor // 2)))

    def _before_its_order(self, position: int, customer: str, at_ms: int) -> Event:
        """A refund or a cancellation now; the order it speaks of comes later in the stream."""
        order = self.order(customer, at_ms - self._rng.randrange(1, 60_000))
        heapq.heappush(self._later, (position + self._rng.randrange(5, 400), next(self._numbers), order))
        if self._rng.random() < 0.3:
            return self._event("order.cancelled", customer, at_ms, order_id=order["order_id"])
        return self._refunded(customer, at_ms, str(order["order_id"]), self._rng.randrange(1, 20_000))

    def _refunded(self, customer: str, at_ms: int, order_id: str | None, minor: int) -> Event:
        named: Event = {} if order_id is None else {"order_id": order_id}
        refund_id = f"{self._name}-r{next(self._numbers)}"
        return self._event("order.refunded", customer, at_ms, refund_id=refund_id, **money(minor), **named)

    def _event(self, event_type: str, customer: str, at_ms: int, **fields: str | int) -> Event:
        return new_event(f"{self._name}-e{next(self._numbers)}", event_type, customer, at_ms, **fields)

    def _customer(self) -> str:
        draw = self._rng.random() if self._linked else 1.0
        if draw < 0.05:
            return f"{self._rng.choice(('alias', 'person'))}-{self._rng.randrange(self._shape.merged)}"
        if draw < 0.08:
            return f"leaver-{self._rng.randrange(self._shape.erased)}"
        return f"customer-{self._rng.randrange(self._shape.customers)}"


def _is_wholesale(customer: str | int) -> bool:
    return str(customer).startswith("wholesale")


def new_event(event_id: str, event_type: str, customer: str, at_ms: int, **fields: str | int) -> Event:
    """A public customer event. at_ms: epoch milliseconds."""
    return {
        "event_id": event_id,
        "event_type": event_type,
        "occurred_at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "customer_id": customer,
        "schema_version": 1,
        "source": "chaos",
        **fields,
    }


def money(minor: int) -> dict[str, str]:
    """amount and currency of so many cents."""
    return {"amount": f"{minor // 100}.{minor % 100:02d}", "currency": "USD"}


def _remember(known: list[T], one: T, rng: Random) -> None:
    if len(known) < _REMEMBERED:
        known.append(one)
    else:
        known[rng.randrange(_REMEMBERED)] = one


def live(seed: int, shape: Shape, first_ms: int, events_per_second: float) -> Iterator[Planned]:
    """The steady stream, without end."""
    shop = _Shop(Random(f"live {seed}"), shape, "live", linked=True)  # noqa: S311 - a load, not a secret
    for position in count():
        at_ms = first_ms + int(position * 1000 / events_per_second)
        number, step = divmod(position - _LINKS_FROM, _LINKS_EVERY)
        if step == 0 and 0 <= number < shape.merged:
            yield shop.link("customer.merged", f"alias-{number}", at_ms, merged_into=f"person-{number}")
        elif step == 30 and 0 <= number < shape.merged and number % 3 == 0:
            yield shop.link("customer.merged", f"person-{number}", at_ms, merged_into=f"elder-{number}")
        elif step == 60 and 0 <= number < shape.erased:
            yield shop.link("customer.erased", f"leaver-{number}", at_ms)
        else:
            yield shop.next(position, at_ms)


def history(seed: int, shape: Shape, first_ms: int) -> list[Planned]:
    """What the wholesale customers bought before the run, in the order they did: so much that old days are folded."""
    shop = _Shop(Random(f"history {seed}"), shape, "history")  # noqa: S311 - as above
    step_ms = (HISTORY_DAYS - 1) * DAY_MS // shape.wholesale_orders
    return [
        Planned(shop.order(f"wholesale-{customer}", first_ms - HISTORY_DAYS * DAY_MS + n * step_ms), Channel.KAFKA, 0)
        for n in range(shape.wholesale_orders)
        for customer in range(shape.wholesale)
    ]


def burst(seed: int, number: int, shape: Shape, first_ms: int, events: int) -> list[Planned]:
    """Many late events at once, as when an upstream team catches up: keeps a worker in the middle of chunks."""
    shop = _Shop(Random(f"burst {seed} {number}"), shape, f"burst{number}")  # noqa: S311 - as above
    step_ms = 100 * DAY_MS // events
    late = (shop.next(position, first_ms - 200 * DAY_MS + position * step_ms) for position in range(events))
    return [planned._replace(channel=Channel.KAFKA) for planned in late]
