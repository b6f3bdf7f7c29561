"""Settings common to all services, and how they are read: typed, from the environment, prefix CLV_, unknown refused.

Must never read a file or a global at import: a service builds its settings once, in its __main__.
"""

import os
from difflib import get_close_matches
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.shutdown import KnownProblem

PREFIX = "CLV_"


class SettingsError(KnownProblem):
    """A setting that is wrong or unknown."""


class CommonSettings(BaseSettings):
    """Settings that mean the same in every service. A field `name` is the environment variable CLV_NAME."""

    prefixes: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names, beside the service's own, of which no variable may be unknown."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", protected_namespaces=())

    kafka_bootstrap_servers: Annotated[str, Field(description="Kafka brokers, host:port, comma-separated")] = (
        "localhost:9092"
    )
    kafka_wait_seconds: Annotated[float, Field(description="How long to wait for Kafka at start", gt=0)] = 60.0
    currency: Annotated[str, Field(description="Reporting currency of all money, ISO 4217", pattern="^[A-Z]{3}$")] = (
        "USD"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="Least severity logged")] = (
        "info"
    )
    log_format: Annotated[
        Literal["json", "console"], Field(description="One JSON object a line, or text for a person")
    ] = "json"
    http_host: Annotated[str, Field(description="Address that health, metrics and APIs listen on")] = "127.0.0.1"


S = TypeVar("S", bound=CommonSettings)


def load(settings_class: type[S], service: str) -> S:
    """The settings of `service` from the environment.

    Raises SettingsError naming the variable when a value is wrong, or when a variable CLV_<SERVICE>_… exists that the
    service does not know (a typing error would otherwise be a silent default); the same for the class's `prefixes`.
    """
    known = {f"{PREFIX}{field.upper()}" for field in settings_class.model_fields}
    own = tuple(f"{PREFIX}{each.upper()}_" for each in (service, *settings_class.prefixes))
    for name in sorted(os.environ):
        if name.startswith(own) and name not in known:
            near = get_close_matches(name, known, n=1)
            raise SettingsError(f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        return settings_class()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"setting {name}: {first['msg']} (got {first['input']!r})") from None
