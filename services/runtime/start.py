"""How a service begins: logs, settings from the environment, then its work until it is told to end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.runtime.logs import configure_logs
from services.runtime.settings import CommonSettings, load
from services.runtime.shutdown import run_service

S = TypeVar("S", bound=CommonSettings)


def run_configured(service: str, settings_class: type[S], serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    """Read the settings and run `serve(settings, stop)` until SIGTERM or SIGINT; exits as run_service() does."""

    async def run(stop: asyncio.Event) -> None:
        settings = load(settings_class, service)
        configure_logs(service, settings.log_level, settings.log_format)
        await serve(settings, stop)

    defaults = CommonSettings.model_construct()
    configure_logs(service, defaults.log_level, defaults.log_format)  # for a problem with the settings themselves
    run_service(run)
