"""States of many customers from columns of their orders and refunds: what domain.customer.fold makes of the same
events, a million at a time. Pure. It must never have a rule of its own: its tests hold it against fold, and whoever has
too many orders to keep one by one goes through domain.customer.place.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.customer import NO_ORDER, ORDERS_KEPT, CustomerState, place, refund
from domain.purchases import ORDER_DTYPE, REFUND_DTYPE

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
"""Keys of ids (domain.customer.id_key), their bytes read as one little-endian number."""
_KEY = np.dtype("<u8")


class OrderColumns(NamedTuple):
    """A row an order. Minor units, epoch milliseconds (UTC)."""

    owner: Ints
    """Number of the customer, from 0."""
    key: Keys
    minor: Ints
    at_ms: Ints


class RefundColumns(NamedTuple):
    """A row a refund."""

    owner: Ints
    key: Keys
    order: Keys
    """NO_ORDER's where it names none."""
    minor: Ints
    at_ms: Ints


def keys_of(keys: list[bytes]) -> Keys:
    """Keys of ids as a column."""
    return np.frombuffer(b"".join(keys), _KEY).astype(np.uint64)


def packed_states(customers: int, orders: OrderColumns, refunds: RefundColumns) -> Iterator[CustomerState]:
    """The states of customers 0, 1, …, from rows in any order, some of which may come again.

    As `fold` gives them; where an order is folded into its day's total, as `fold` gives them in the order of time.
    """
    many = np.bincount(orders.owner, minlength=customers) > ORDERS_KEPT
    incremental = _in_order_of_time(many, orders, refunds)
    placed, placed_ends = _standing_orders(orders, customers)
    given, given_ends = _standing_refunds(refunds, customers)
    for customer, (end, back_end) in enumerate(zip(placed_ends, given_ends, strict=True)):
        if many[customer]:
            yield next(incremental)
            continue
        begin, back_begin = (placed_ends[customer - 1], given_ends[customer - 1]) if customer else (0, 0)
        yield CustomerState(placed[begin:end].tobytes(), given[back_begin:back_end].tobytes())


def _standing_orders(orders: OrderColumns, customers: int) -> tuple[NDArray[np.void], list[int]]:
    """Of the rows with one id the later, then the larger; where each customer's rows end."""
    kept = _last_of_each(orders.owner, orders.key, np.lexsort((orders.minor, orders.at_ms, orders.key, orders.owner)))
    records = np.empty(len(kept), ORDER_DTYPE)
    records["key"], records["at_ms"], records["minor"] = orders.key[kept], orders.at_ms[kept], orders.minor[kept]
    return records, _ends(orders.owner[kept], customers)


def _standing_refunds(refunds: RefundColumns, customers: int) -> tuple[NDArray[np.void], list[int]]:
    """Of the rows with one id the later, then the larger, then that of the greater order's key (as bytes)."""
    as_bytes = refunds.order.byteswap()
    order = np.lexsort((as_bytes, refunds.minor, refunds.at_ms, refunds.key, refunds.owner))
    kept = _last_of_each(refunds.owner, refunds.key, order)
    records = np.empty(len(kept), REFUND_DTYPE)
    for name in ("key", "order", "at_ms", "minor"):
        records[name] = getattr(refunds, name)[kept]
    return records, _ends(refunds.owner[kept], customers)


def _last_of_each(owner: Ints, key: Keys, order: Ints) -> Ints:
    is_last = np.ones(len(order), dtype=np.bool_)
    owner, key = owner[order], key[order]
    is_last[:-1] = (owner[1:] != owner[:-1]) | (key[1:] != key[:-1])
    return order[is_last]


def _ends(owner: Ints, customers: int) -> list[int]:
    return [int(end) for end in np.searchsorted(owner, np.arange(customers), side="right")]


def _in_order_of_time(many: NDArray[np.bool_], orders: OrderColumns, refunds: RefundColumns) -> Iterator[CustomerState]:
    """The states of the customers who have many orders, event by event."""
    order_rows, refund_rows = np.flatnonzero(many[orders.owner]), np.flatnonzero(many[refunds.owner])
    none = np.full(len(order_rows), int.from_bytes(NO_ORDER, "little"), dtype=np.uint64)
    owner, key, minor, at_ms = (
        np.concatenate([getattr(orders, name)[order_rows], getattr(refunds, name)[refund_rows]])
        for name in ("owner", "key", "minor", "at_ms")
    )
    order = np.concatenate([none, refunds.order[refund_rows]])
    is_refund = np.arange(len(owner)) >= len(order_rows)
    rows = np.lexsort((order, minor, key, is_refund, at_ms, owner))
    columns = [column[rows].tolist() for column in (owner, is_refund, key, order, minor, at_ms)]
    state, last = CustomerState(), None
    for customer, back, own_key, its_order, amount, at in zip(*columns, strict=True):
        if last is not None and customer != last:
            yield state
            state = CustomerState()
        last = customer
        if back:
            refund(state, _bytes(own_key), _bytes(its_order), amount, at)
        else:
            place(state, _bytes(own_key), amount, at)
    if last is not None:
        yield state


def _bytes(key: int) -> bytes:
    return key.to_bytes(8, "little")
