"""Merged and erased customers: what an event does to the links between rows, and what a row then stands for.

Pure. A merge moves nothing: the merged customer's row stays where its events arrive, and sends what it knows, whole, to
the surviving customer's row whenever it changes. There the newest of each origin stands (a join of versions), so that
repetition, order and chains of merges cannot matter. Must never let anything pass that happened before an erasure.
"""

from collections.abc import Iterable

from domain.customer import CustomerState, latest_ms
from schemas.customer_rows import Links, Part, Row, decode_state, encode_state
from schemas.orders import Absorbed, Erased, Merged


class Conflict(Exception):
    """A merge that contradicts an earlier one. The message says what to do."""


def links_of(row: Row) -> Links:
    """The row's links, made if there are none yet: until now every event was its own."""
    if row.links is None:
        row.links = Links(row.events_applied)
    return row.links


def may_apply(row: Row, occurred_at_ms: int, *, start_anew: bool) -> bool:
    """Whether an event of an erased customer counts: never if it happened before the erasure, else by setting."""
    links = row.links
    if links is None or links.erased_at_ms is None:
        return True
    if occurred_at_ms <= links.erased_at_ms:
        return False
    return start_anew or not links.forgotten


def merge(row: Row, event: Merged) -> None:
    """The customer is from now on part of another. Raises Conflict if it is part of a third already."""
    links = links_of(row)
    if event.merged_into == event.customer_id:
        raise Conflict("the customer cannot be merged into itself")
    if links.merged_into not in (None, event.merged_into):
        raise Conflict("the customer was merged into another one before: merge that one instead")
    if links.merged_into is None:
        links.merged_into, links.merged_at_ms = event.merged_into, event.occurred_at_ms


def absorb(row: Row, event: Absorbed) -> bool:
    """Take in what a merged customer knows; False if it is known already, or must not come back.

    Raises msgspec.DecodeError if the state in it is none.
    """
    links = row.links
    if links is not None:
        if links.forgotten or (links.erased_at_ms is not None and event.merged_at_ms <= links.erased_at_ms):
            return False
        known = links.parts.get(event.origin)
        if known is not None and known.version >= event.version:
            return False
    part = Part(event.version, event.merged_into, event.merged_at_ms, decode_state(event.state))
    links_of(row).parts[event.origin] = part
    return True


def erase(row: Row, event: Erased) -> list[Erased] | None:
    """Forget the customer; the erasures to send to customers merged with this one. None if it was forgotten before."""
    links = links_of(row)
    if links.erased_at_ms is not None and event.occurred_at_ms <= links.erased_at_ms:
        return None
    others = {links.merged_into, *links.parts} - {None, event.customer_id}
    row.state = CustomerState()
    row.links = Links(links.own_events, erased_at_ms=event.occurred_at_ms, forgotten=True)
    return [
        Erased(event_id=event.event_id, customer_id=other, occurred_at_ms=event.occurred_at_ms, source=event.source)
        for other in sorted(filter(None, others))
    ]


def parts_to_send(customer: str, row: Row, into: str) -> Iterable[Absorbed]:
    """What the row of a merged customer sends to whom it was merged into: each origin by itself."""
    links = links_of(row)
    own = Part(links.own_events, links.merged_into, links.merged_at_ms, row.state)
    for origin, part in {customer: own, **links.parts}.items():
        if origin != into:
            yield Absorbed(
                event_id=f"{origin}@{part.version}"[:256],
                customer_id=into,
                occurred_at_ms=max(latest_ms(part.state), part.merged_at_ms),
                origin=origin,
                version=part.version,
                merged_into=part.merged_into,
                merged_at_ms=part.merged_at_ms,
                state=encode_state(part.state),
            )
