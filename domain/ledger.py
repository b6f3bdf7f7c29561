"""Where a customer's money stands as of a day: gross, net, and every refund in exactly one place.

The features say what a customer is worth; the ledger says how that came about. Every refund that has happened is either
`refunded` (it lowers an order that counts), `cancelled_refunds` (it gave back what a cancelled order had cost: both are
gone together), `refund_excess` (it goes beyond its order's amount, whether or not the order was cancelled: nobody had
paid it), `loose_refunds` (it names no order) or `waiting_refunds` (its order is not known). Only `refunded` and
`loose_refunds` lower what the customer is worth. Pure; never stored, so that it cannot come apart from the state.

Orders that the state no longer keeps one by one (domain.customer.ORDERS_KEPT) are in `gross`, `refunded` and `net`, but
their cancellations and their excess are forgotten, and a later refund of one of them waits for ever: visibly, here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from domain.customer import CustomerState
from domain.purchases import Ints, Settled, settle, sum_by


class Ledgers(NamedTuple):
    """Ledgers of n customers, arrays of shape (n,). Money in minor units.

    orders_placed − orders_cancelled is the feature total_orders, gross is total_spending, net is monetary.
    """

    orders_placed: Ints
    """Orders, cancelled ones included."""
    gross: Ints
    """Of the orders that count."""
    net: Ints
    """gross − refunded − loose_refunds; below nothing if more was given back without an order than was spent."""
    orders_cancelled: Ints
    refunded: Ints
    """Refunds of the orders that count, of each order up to its amount."""
    loose_refunds: Ints
    """Refunds that name no order."""
    cancelled_refunds: Ints
    """Refunds of cancelled orders, of each order up to its amount."""
    refund_excess: Ints
    """Refunds beyond their orders' amounts."""
    waiting_refunds: Ints
    """Refunds whose order is not known; they count once it comes."""
    waiting_refund_count: Ints
    """How many refunds wait."""


def ledger(states: Sequence[CustomerState], as_of_days: Sequence[int]) -> Ledgers:
    """The ledger of each state as of the end of its day (since 1970, UTC); what happened later is not seen."""
    return ledger_of(settle(states, as_of_days), len(states))


def ledger_of(settled: Settled, count: int) -> Ledgers:
    """The ledgers of the `count` customers whose records were settled."""
    found = settled.found
    orders, gross, after_refunds = (sum_by(found.owner, each, count) for each in (found.orders, found.gross, found.net))
    loose = sum_by(settled.loose.owner, settled.loose.minor, count)
    cancelled = np.bincount(settled.cancelled.owner, minlength=count)
    return Ledgers(
        orders_placed=orders + cancelled,
        gross=gross,
        net=after_refunds - loose,
        orders_cancelled=cancelled,
        refunded=gross - after_refunds,
        loose_refunds=loose,
        cancelled_refunds=sum_by(*settled.cancelled, count),
        refund_excess=sum_by(*settled.excess, count),
        waiting_refunds=sum_by(*settled.waiting, count),
        waiting_refund_count=np.bincount(settled.waiting.owner, minlength=count),
    )
