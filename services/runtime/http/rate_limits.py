"""Bounds how fast one client may send: by API key, or by address where no key is asked for.

In any t seconds a client is let through at most burst + rate × t times. Each process counts for itself. Must never hold
more than a fixed number of clients, however many addresses come.
"""

import math
import time
from collections.abc import Callable, Hashable
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.runtime.http.api_keys import OPEN_PATHS, key_of
from services.runtime.http.problems import problem_response
from services.runtime.http.request_ids import request_id_of

NS_PER_SECOND = 1_000_000_000
CLIENTS_MAX = 65_536
_OTHERS = "others"


class Rate(NamedTuple):
    """How fast a client may send."""

    interval_ns: int
    burst: int


def rate(requests_per_second: float, burst: int) -> Rate:
    """The rate, rounded so that it is never more than asked for."""
    return Rate(math.ceil(NS_PER_SECOND / requests_per_second), burst)


class Verdict(NamedTuple):
    """What becomes of one request. remaining: how many more could follow at once."""

    wait_ns: int
    remaining: int
    full_after_ns: int


class RateLimiter:
    """A token bucket a client, kept as one number: when the bucket will be full (GCRA, ITU-T I.371 annex A).

    A client whose bucket is full needs no number, so only those that sent just now are held. Pure: time is an argument.
    """

    def __init__(self, clients_max: int = CLIENTS_MAX) -> None:
        self._full_at_ns: dict[Hashable, int] = {}
        self._clients_max = clients_max
        self._swept_ns = -NS_PER_SECOND

    def __len__(self) -> int:
        """Clients that are held."""
        return len(self._full_at_ns)

    def take(self, client: Hashable, allowed: Rate, now_ns: int) -> Verdict:
        """One request of `client`. It is let through if wait_ns is 0; one that is not costs nothing.

        now_ns must not go back. When there are too many clients, those that are new share one bucket.
        """
        if client not in self._full_at_ns and len(self._full_at_ns) >= self._clients_max:
            client = self._room_for(client, now_ns)
        full_at_ns = max(self._full_at_ns.get(client, now_ns), now_ns) + allowed.interval_ns
        wait_ns = full_at_ns - now_ns - allowed.burst * allowed.interval_ns
        if wait_ns > 0:
            return Verdict(wait_ns, 0, full_at_ns - allowed.interval_ns - now_ns)
        self._full_at_ns[client] = full_at_ns
        return Verdict(0, -wait_ns // allowed.interval_ns, full_at_ns - now_ns)

    def _room_for(self, client: Hashable, now_ns: int) -> Hashable:
        if now_ns - self._swept_ns >= NS_PER_SECOND:  # looking at all of them takes milliseconds: not at each request
            self._swept_ns = now_ns
            self._full_at_ns = {each: at_ns for each, at_ns in self._full_at_ns.items() if at_ns > now_ns}
        return client if len(self._full_at_ns) < self._clients_max else _OTHERS


class RateLimits:
    """ASGI middleware: 429 with Retry-After for a client that is too fast; open paths are never limited."""

    def __init__(
        self,
        app: ASGIApp,
        requests_per_second: float,
        burst: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """requests_per_second: above 0. A key with a rate of its own has a burst in the same proportion."""
        self._app, self._clock = app, clock
        self._limiter = RateLimiter()
        self._rate = rate(requests_per_second, burst)
        self._burst_seconds = burst / requests_per_second

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        client, allowed = self._client(scope)
        verdict = self._limiter.take(client, allowed, self._clock())
        headers = [
            (b"ratelimit-limit", b"%d" % allowed.burst),
            (b"ratelimit-remaining", b"%d" % verdict.remaining),
            (b"ratelimit-reset", b"%d" % math.ceil(verdict.full_after_ns / NS_PER_SECOND)),
        ]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        if verdict.wait_ns == 0:
            await self._app(scope, receive, send_with_headers)
            return
        seconds = math.ceil(verdict.wait_ns / NS_PER_SECOND)
        answer = problem_response(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"more than {NS_PER_SECOND / allowed.interval_ns:g} requests per second: send it again after {seconds} s",
            request_id_of(Request(scope)),
            headers={"Retry-After": str(seconds)},
        )
        await answer(scope, receive, send_with_headers)

    def _client(self, scope: Scope) -> tuple[Hashable, Rate]:
        key = key_of(scope)
        if key is None:
            return address_of(scope), self._rate
        if key.requests_per_second is None:
            return ("key", key.id), self._rate
        own_burst = max(1, round(key.requests_per_second * self._burst_seconds))
        return ("key", key.id), rate(key.requests_per_second, own_burst)


def address_of(scope: Scope) -> str:
    """Who sends, by the connection: an IPv4 address, or the /64 network that one holder of IPv6 addresses has."""
    host: str = (scope.get("client") or ("unknown", 0))[0]
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    assert isinstance(address, IPv6Address)
    return str(address.ipv4_mapped or address.packed[:8].hex())
