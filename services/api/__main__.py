"""`python -m services.api`: the HTTP API, configured by the environment."""

from services.api.service import SERVICE, serve
from services.api.settings import ApiSettings
from services.runtime.start import run_configured

if __name__ == "__main__":
    run_configured(SERVICE, ApiSettings, serve)
