"""`python -m services.scorer`: the scorer, configured by the environment."""

from services.runtime.start import run_configured
from services.scorer.service import serve
from services.scorer.settings import ScorerSettings
from services.scorer.worker import SERVICE

if __name__ == "__main__":
    run_configured(SERVICE, ScorerSettings, serve)
