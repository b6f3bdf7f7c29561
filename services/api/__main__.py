"""`python -m services.api`: the HTTP API, configured by the environment."""

import gc

from services.api.service import SERVICE, serve
from services.api.settings import ApiSettings
from services.runtime.start import run_configured

if __name__ == "__main__":
    # Requests leave next to nothing for the collector, which would look for it every other request.
    gc.set_threshold(50_000, 20, 100)
    run_configured(SERVICE, ApiSettings, serve)
