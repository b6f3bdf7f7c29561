"""`python -m services.sink`: the sink, configured by the environment."""

from services.runtime.start import run_configured
from services.sink.service import serve
from services.sink.settings import SinkSettings
from services.sink.worker import SERVICE

if __name__ == "__main__":
    run_configured(SERVICE, SinkSettings, serve)
