"""`./clv up`: servers and services without demo data, for people's own producers and subscribers. Data is kept."""

import json
import signal
import threading
from pathlib import Path

from rich.console import Console

from cli.demo import DATABASE, address_lines
from cli.demo_data import cdnow_model
from cli.platform import WITH_PAGES, Platform, home
from deploy.local.stack import check_named
from schemas.topics import topics
from services.runtime.bundle import current_bundle


def run_until_stopped(console: Console, model: Path | None, currency: str, json_file: Path | None) -> None:
    """Start everything, write the addresses, and wait for Ctrl-C or SIGTERM."""

    def say(text: str) -> None:
        console.print(f"  {text}")

    check_named()  # now rather than after a model was trained
    work_dir = home() / "up"
    work_dir.mkdir(parents=True, exist_ok=True)
    if model is None:
        model = cdnow_model(say, currency)
        say(
            "predictions come from a model of the CDNOW music shop: train your own with `./clv train`, then --model DIR"
        )
    current_bundle(model)  # one line now rather than a service's log later
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    platform = Platform(
        models_dir=model.resolve(),
        work_dir=work_dir,
        data_dir=work_dir / "data",
        settings={"CLV_CURRENCY": currency, "CLV_MONGO_DATABASE": DATABASE},
        names=WITH_PAGES,
        announce=say,
    )
    with platform:
        for line in address_lines(platform):
            console.print(line, soft_wrap=True)
        if json_file is not None:
            json_file.write_text(json.dumps(addresses(platform), indent=2) + "\n")
        console.print("Running until Ctrl-C.")
        while not stop.wait(1):
            platform.check_alive()
        console.print("Stopping …")


def addresses(platform: Platform) -> dict[str, object]:
    """Everything that a producer or subscriber needs to know."""
    return {
        "kafka_bootstrap_servers": platform.addresses.kafka_bootstrap_servers,
        "mongo_uri": platform.addresses.mongo_uri,
        "mongo_database": DATABASE,
        "api_url": platform.url("api"),
        "dashboard_url": platform.url("dashboard"),
        "events_url": f"{platform.url('ingest')}/v1/events",
        "services": {name: platform.url(name) for name in platform.names},
        "topics": {short: topic.name for short, topic in topics().items()},
    }
