"""`python -m services.dashboard`: the dashboard, configured by the environment."""

import logging
import signal
import sys
from types import FrameType

from services.dashboard.connection import SERVICE
from services.dashboard.server import build_app, streamlit_options
from services.dashboard.settings import DashboardSettings
from services.runtime.logs import configure_logs, logger
from services.runtime.settings import CommonSettings, SettingsError, load

log = logger(__name__)


def main() -> None:
    """Read the settings and serve until SIGTERM or SIGINT."""
    defaults = CommonSettings.model_construct()
    configure_logs(SERVICE, defaults.log_level, defaults.log_format)  # for a problem with the settings themselves
    try:
        settings = load(DashboardSettings, SERVICE)
    except SettingsError as problem:
        log.error(str(problem))
        sys.exit(1)
    configure_logs(SERVICE, settings.log_level, settings.log_format)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a request is the API's to write
    log.info("serving", port=settings.dashboard_http_port, api=settings.dashboard_api_url)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    build_app(settings).run(config=streamlit_options(settings))


def _end(_number: int, _frame: FrameType | None) -> None:
    """A clean end: the server stops by itself at the signal, and then raises it once more."""
    sys.exit(0)


if __name__ == "__main__":
    main()
