"""Merged and erased customers: what an event does to the links between rows, and what a row then stands for.

Pure. A merge moves nothing: the merged customer's row stays where its events arrive, and sends what it knows, whole, to
the surviving customer's row whenever it changes. There the newest of each origin stands (a join of versions), so that
repetition, order and chains of merges cannot matter. Must never let anything pass that happened before an erasure.
"""

from collections.abc import Iterable

from domain.customer import CustomerState, latest_ms, union
from schemas.orders import Absorbed, Erased, Merged
from services.features.rows import Links, Part, Row, decode_state, encode_state


class Conflict(Exception):
    """A merge that contradicts an earlier one. The message says what to do."""


def links_of(row: Row) -> Links:
    """The row's links, made if there are none yet: until now every event was its own."""
    if row.links is None:
        row.links = Links(row.events_applied)
    return row.links


def is_forgotten(row: Row) -> bool:
    """Whether the customer was erased and has not come back."""
    return row.links is not None and row.links.forgotten


def known_state(row: Row) -> CustomerState:
    """All that is known of the customer, with what merged customers brought along."""
    if row.links is None or not row.links.parts:
        return row.state
    return union([row.state, *(part.state for part in row.links.parts.values())])


def survivor(customer: str, row: Row) -> str | None:
    """Whom the customer's row sends what it knows to; None if the customer stands for itself.

    Merges that lead round in a circle (one shop system says a into b, another b into a) leave the customer whose id
    sorts first.
    """
    links = row.links
    if links is None or links.merged_into is None:
        return None
    seen, at = [customer], links.merged_into
    while at not in seen:
        seen.append(at)
        part = links.parts.get(at)
        if part is None or part.merged_into is None:
            return links.merged_into
        at = part.merged_into
    if at == customer and customer == min(seen):
        return None
    return links.merged_into


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
