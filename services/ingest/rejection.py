"""What ingest says of an event that it cannot use: a reason of the closed list and one sentence for a person.

The sentence must never carry much of the payload: it may hold personal data, and it ends in logs.
"""

import msgspec

from schemas.dead_letters import Reason

QUOTE_CHARS_MAX = 60
"""Most characters of the payload in one quotation; a sentence has at most two."""


class Rejection(msgspec.Struct, frozen=True):
    """Why an event cannot be used."""

    reason: Reason
    detail: str
    event_id: str | None = None
    """The event's id, where it could be read."""


class Refused(Exception):
    """Raised between the steps of judging; judge() turns it into a Rejection."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def quote(found: object) -> str:
    """A short, printable rendering of something from the payload."""
    if isinstance(found, str):
        # ascii(): a terminal or a log must not be steered by what somebody sent.
        text = ascii(found[:QUOTE_CHARS_MAX])[1:-1]
        cut = len(found) > QUOTE_CHARS_MAX or len(text) > QUOTE_CHARS_MAX
        return f"'{text[:QUOTE_CHARS_MAX]}{'…' if cut else ''}'"
    if found is None:
        return "null"
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int | float):
        return repr(found)[:QUOTE_CHARS_MAX]
    return "an object" if isinstance(found, dict) else "a list"
