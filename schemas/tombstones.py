"""Why a record without a value (a tombstone) was written: the header that travels with it from stage to stage.

A tombstone takes its key back either way. Only an erasure also removes the letters that hold the customer: a merged
customer's letters may still be repaired and replayed. Must never raise for what a header holds.
"""

from collections.abc import Iterable
from enum import StrEnum

CAUSE_HEADER = "clv.cause"

Headers = list[tuple[str, bytes]]


class Cause(StrEnum):
    """What a tombstone came from."""

    ERASED = "erased"
    """customer.erased: the customer asked to be forgotten."""
    MERGED = "merged"
    """customer.merged: the orders went to another customer."""


def cause_headers(cause: Cause) -> Headers:
    """The Kafka headers of a tombstone with this cause."""
    return [(CAUSE_HEADER, cause.value.encode())]


def cause_of(headers: Iterable[tuple[str, bytes]]) -> Cause | None:
    """The cause that a tombstone's headers state, the last one if several do; None if none states a known one."""
    found = None
    for name, value in headers:
        if name == CAUSE_HEADER and value in _CAUSES:
            found = _CAUSES[value]
    return found


_CAUSES = {cause.value.encode(): cause for cause in Cause}
