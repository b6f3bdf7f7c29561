"""`python -m services.scorer`: the scorer, configured by the environment."""

import asyncio

from services.runtime.logs import configure_logs
from services.runtime.settings import CommonSettings, load
from services.runtime.shutdown import run_service
from services.scorer.service import serve
from services.scorer.settings import ScorerSettings
from services.scorer.worker import SERVICE


def main() -> None:
    """Read the settings and run until SIGTERM or SIGINT."""

    async def run(stop: asyncio.Event) -> None:
        settings = load(ScorerSettings, SERVICE)
        configure_logs(SERVICE, settings.log_level, settings.log_format)
        await serve(settings, stop)

    defaults = CommonSettings.model_construct()
    configure_logs(SERVICE, defaults.log_level, defaults.log_format)  # for a problem with the settings themselves
    run_service(run)


if __name__ == "__main__":
    main()
