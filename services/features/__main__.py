"""python -m services.features: run a feature worker until SIGTERM."""

import asyncio
import gc

from services.features.http import build_http
from services.features.settings import FeaturesSettings
from services.features.worker import SERVICE, FeatureWorker
from services.runtime import telemetry
from services.runtime.health import Health, HttpServer
from services.runtime.kafka import wait_for_kafka
from services.runtime.logs import configure_logs, logger
from services.runtime.settings import load
from services.runtime.shutdown import run_service

log = logger(__name__)


async def main(stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    settings = load(FeaturesSettings, SERVICE)
    # A chunk makes tens of thousands of small objects without cycles: collecting at Python's default of every 700 cost
    # a third of the time.
    gc.set_threshold(200_000, 20, 100)
    configure_logs(SERVICE, settings.log_level, settings.log_format)
    await wait_for_kafka(settings.kafka_bootstrap_servers, settings.kafka_wait_seconds)
    worker = FeatureWorker(settings)
    telemetry.UP.set(1, service=SERVICE, version="1")
    health = Health()
    health.add("worker", worker.not_ready)
    async with HttpServer(build_http(worker, health), settings.http_host, settings.features_http_port):
        log.info("started", port=settings.features_http_port, data_dir=str(settings.features_data_dir))
        await worker.run(stop)


if __name__ == "__main__":
    run_service(main)
