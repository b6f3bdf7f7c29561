"""Settings of every HTTP side that clients call: keys, rate limits, CORS. Services' settings derive from it."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from services.runtime.settings import CommonSettings

_ORIGIN = re.compile(r"https?://[^/\s*]+\Z")

TextList = Annotated[tuple[str, ...], NoDecode]
"""Texts of one environment variable, comma-separated."""


class HttpSettings(CommonSettings):
    """What can be set for an HTTP side, whichever service it belongs to."""

    prefixes: ClassVar[tuple[str, ...]] = ("http",)

    http_keys_file: Annotated[
        Path | None,
        Field(description="File of API keys (`./clv api-keys`); without it nobody needs a key and everything is open"),
    ] = None
    http_requests_per_second: Annotated[
        float,
        Field(
            description="Requests per second of one API key that has no rate of its own; where no key is asked for, of"
            " one client address; above it the answer is 429; 0 is no limit",
            ge=0,
            le=1e6,
        ),
    ] = 1000.0
    http_burst: Annotated[
        int, Field(description="Requests that one key or address may send at once after a pause", ge=1, le=1_000_000)
    ] = 2000
    http_cors_origins: Annotated[
        TextList,
        Field(description="Origins whose pages may call from a browser, comma-separated; none: CORS is off"),
    ] = ()
    http_trusted_proxies: Annotated[
        TextList,
        Field(
            description="Addresses or networks of proxies, comma-separated, whose X-Forwarded-For is believed; without"
            " them a client's address is that of its connection"
        ),
    ] = ()

    @field_validator("http_cors_origins", "http_trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("http_cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.match(origin):
                raise ValueError(f"{origin} is no origin, such as https://shop.example; browsers send no path")
        return origins

    @field_validator("http_trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError(f"{proxy} is no IP address or network") from None
        return proxies
