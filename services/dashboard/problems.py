"""What can go wrong between dashboard and API, each with words for a person who does not know what an API is.

Pure. Must never show a stack trace or a raw answer: what the operator needs stands in `technical`.
"""

from collections.abc import Sequence
from enum import StrEnum
from http import HTTPStatus

from schemas.http_api.problem import FieldProblem, Problem


class Kind(StrEnum):
    """What a person can do about it differs between these, so they are told apart."""

    AWAY = "away"
    BUSY = "busy"
    KEY = "key"
    LIMITED = "limited"
    NOT_FOUND = "not_found"
    INVALID = "invalid"
    GONE = "gone"
    BROKEN = "broken"


HEALS_ITSELF = frozenset({Kind.AWAY, Kind.BUSY, Kind.LIMITED})
"""A page with such a problem asks again by itself."""

_TITLES = {
    Kind.AWAY: "The API does not answer",
    Kind.BUSY: "The API is starting, or waits for its database",
    Kind.KEY: "The API refused this dashboard's key",
    Kind.LIMITED: "Too many requests",
    Kind.NOT_FOUND: "Not found",
    Kind.INVALID: "This cannot be answered",
    Kind.GONE: "No longer available",
    Kind.BROKEN: "The API's answer cannot be shown",
}
_ADVICE = {
    Kind.AWAY: "This page comes back by itself once the API answers. If it stays like this, ask whoever runs it to "
    "start the API (`python -m services.api`) or to check `CLV_DASHBOARD_API_URL`.",
    Kind.BUSY: "This page comes back by itself. If it stays like this, ask whoever runs it whether MongoDB and Kafka "
    "are up.",
    Kind.KEY: "Ask whoever runs the dashboard to set `CLV_DASHBOARD_API_KEY` to a key with the scopes read and "
    "predict, and to start the dashboard again.",
    Kind.LIMITED: "Wait a moment: this page asks again by itself.",
    Kind.NOT_FOUND: "Check the spelling, or search for it.",
    Kind.INVALID: "Correct the values below and try again.",
    Kind.GONE: "Choose another model or another day.",
    Kind.BROKEN: "Dashboard and API may be of different versions. Ask whoever runs them to bring both to the same one.",
}
_KINDS = {
    HTTPStatus.UNAUTHORIZED: Kind.KEY,
    HTTPStatus.FORBIDDEN: Kind.KEY,
    HTTPStatus.NOT_FOUND: Kind.NOT_FOUND,
    HTTPStatus.CONFLICT: Kind.GONE,
    HTTPStatus.GONE: Kind.GONE,
    HTTPStatus.TOO_MANY_REQUESTS: Kind.LIMITED,
    HTTPStatus.BAD_GATEWAY: Kind.AWAY,
    HTTPStatus.SERVICE_UNAVAILABLE: Kind.BUSY,
    HTTPStatus.GATEWAY_TIMEOUT: Kind.AWAY,
}


class ApiProblem(Exception):
    """The API gave no answer that can be shown."""

    def __init__(self, kind: Kind, technical: str, errors: Sequence[FieldProblem] = ()) -> None:
        """technical: one line for the operator. errors: each field that is wrong, where fields are."""
        super().__init__(technical)
        self.kind = kind
        self.technical = technical
        self.errors = tuple(errors)

    @property
    def title(self) -> str:
        """What happened, in a few words."""
        return _TITLES[self.kind]

    @property
    def advice(self) -> str:
        """What the reader can do about it."""
        return _ADVICE[self.kind]

    @property
    def heals_itself(self) -> bool:
        """Whether asking again later is the cure."""
        return self.kind in HEALS_ITSELF


def from_answer(status: int, problem: Problem | None, path: str) -> ApiProblem:
    """The problem that an answer with this status tells. problem: its body, if it was a problem document (RFC 9457)."""
    if status in _KINDS:
        kind = _KINDS[HTTPStatus(status)]
    else:
        kind = Kind.INVALID if status < HTTPStatus.INTERNAL_SERVER_ERROR else Kind.BROKEN
    if problem is None:
        return ApiProblem(kind, f"{path} answered {status}")
    technical = f"{problem.detail} ({status}, request {problem.request_id})"
    return ApiProblem(kind, technical, problem.errors or ())
