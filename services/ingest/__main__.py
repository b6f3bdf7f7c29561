"""`python -m services.ingest`: the ingest service, configured by the environment."""

from services.ingest.letters import SERVICE
from services.ingest.service import serve
from services.ingest.settings import IngestSettings
from services.runtime.start import run_configured

if __name__ == "__main__":
    run_configured(SERVICE, IngestSettings, serve)
