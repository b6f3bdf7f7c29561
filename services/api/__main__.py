"""`python -m services.api`: the HTTP API, configured by the environment."""

import asyncio

from services.api.service import SERVICE, serve
from services.api.settings import ApiSettings
from services.runtime.logs import configure_logs
from services.runtime.settings import CommonSettings, load
from services.runtime.shutdown import run_service


def main() -> None:
    """Read the settings and run until SIGTERM or SIGINT."""

    async def run(stop: asyncio.Event) -> None:
        settings = load(ApiSettings, SERVICE)
        configure_logs(SERVICE, settings.log_level, settings.log_format)
        await serve(settings, stop)

    defaults = CommonSettings.model_construct()
    configure_logs(SERVICE, defaults.log_level, defaults.log_format)  # for a problem with the settings themselves
    run_service(run)


if __name__ == "__main__":
    main()
