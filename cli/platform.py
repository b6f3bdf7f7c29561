"""The whole product on one machine: servers, topics, collections, and every service as its own process.

Used by demo, up and bench. Must leave no process behind, whatever happens.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from deploy.local.folders import free_ports, is_free
from deploy.local.processes import ServiceProcess
from deploy.local.stack import Addresses, LocalStack
from schemas.topics import topics
from services.runtime.kafka import create_topics
from services.runtime.shutdown import KnownProblem
from services.sink.mongo import connect, ensure_collections
from services.sink.settings import SinkSettings

ROOT = Path(__file__).parent.parent
PIPELINE = ("ingest", "features", "scorer", "sink")
"""The services on an event's way to its prediction."""
WITH_PAGES = (*PIPELINE, "api", "dashboard")
"""Those, and the ones that people and applications talk to."""
DEFAULT_PORTS = {name: 8001 + place for place, name in enumerate(WITH_PAGES)}
READY_SECONDS_MAX = 60.0

Announce = Callable[[str], None]


def home() -> Path:
    """Folder for what is made on this machine: downloads, models, data (CLV_HOME, or .clv in the project)."""
    return Path(os.environ.get("CLV_HOME") or ROOT / ".clv").resolve()


@dataclass
class Platform:
    """Servers and services. A context manager: all of it runs inside, none of it afterwards.

    models_dir: a models folder with a bundle in use. work_dir: logs and the feature worker's table. data_dir: where the
    embedded servers keep their data; None is a folder that goes away. settings: environment of the services. names: a
    service, or a further process of one, as in features-2, which gets a port and a data folder of its own. brokers: of
    the embedded Kafka. commands: by service, how its processes are started where it is not `python -m services.<name>`.
    usual_ports: whether services listen where the documents say, if nobody else does; a killed one may lose that place.
    The dashboard stands behind the API in names.
    """

    models_dir: Path
    work_dir: Path
    data_dir: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    announce: Announce = lambda _: None
    names: tuple[str, ...] = PIPELINE
    brokers: int = 1
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    usual_ports: bool = True
    stack: LocalStack = field(init=False)
    processes: dict[str, ServiceProcess] = field(init=False, default_factory=dict)
    ports: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        heap_mb = 512 if self.brokers == 1 else 320
        self.stack = LocalStack(self.data_dir, brokers=self.brokers, heap_mb=heap_mb, announce=self.announce)

    def start_servers(self) -> None:
        """Kafka and MongoDB, with all topics, collections and indexes."""
        self.stack.start()
        create_all(self.addresses)

    def start_services(self) -> None:
        """All services at once; returns when every one says that it is ready. Raises KnownProblem if one does not."""
        for name in self.names:
            self.start_service(name)
        for name in self.names:
            self._wait_ready(name)

    def start_service(self, name: str) -> None:
        """Start one process, which may be a further one of its service. Returns at once."""
        if name not in self.processes:
            port = DEFAULT_PORTS.get(name, 0) if self.usual_ports else 0
            self.ports[name] = port if port and is_free(port) else free_ports(1, avoid=self.ports.values())[0]
            self.processes[name] = self._process(name)
        self.processes[name].start()

    def remove_service(self, name: str) -> int | None:
        """End one process for good, cleanly; its exit code. Its data folder stays."""
        return self.processes.pop(name).stop()

    def _process(self, name: str) -> ServiceProcess:
        service = name.partition("-")[0]
        environment = {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **self.addresses.as_env(),
            "CLV_MODELS_DIR": str(self.models_dir),
            "CLV_FEATURES_DATA_DIR": str(self.features_dir(name if service == "features" else "features")),
            f"CLV_{service.upper()}_HTTP_PORT": str(self.ports[name]),
            **({"CLV_DASHBOARD_API_URL": self.url("api")} if service == "dashboard" else {}),
            **self.settings,
        }
        command = self.commands.get(service, (sys.executable, "-m", f"services.{service}"))
        return ServiceProcess(name, command, environment, self.log_of(name), cwd=self.work_dir)

    def features_dir(self, name: str) -> Path:
        """Folder of a feature worker's local table."""
        return self.work_dir / name

    def log_of(self, name: str) -> Path:
        """Log file of a service."""
        return self.work_dir / "logs" / f"{name}.log"

    def _wait_ready(self, name: str) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self.is_ready(name):
            self.check_alive()
            if time.monotonic() > deadline:
                raise KnownProblem(f"{name} is not ready after {READY_SECONDS_MAX:.0f} s; its log: {self.log_of(name)}")
            time.sleep(0.05)

    def is_ready(self, name: str) -> bool:
        """Whether the service says so itself."""
        try:
            return httpx.get(f"{self.url(name)}/readyz", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def check_alive(self) -> None:
        """Raise KnownProblem with the end of its log if a service has ended."""
        for name, process in self.processes.items():
            if not process.alive:
                raise KnownProblem(
                    f"{name} ended with exit code {process.exit_code}; the end of {self.log_of(name)}:\n"
                    f"{process.log_tail(8)}"
                )

    def url(self, name: str) -> str:
        """Address of a service's HTTP side."""
        return f"http://127.0.0.1:{self.ports[name]}"

    @property
    def addresses(self) -> Addresses:
        """Where Kafka and MongoDB are."""
        return self.stack.addresses()

    def stop(self) -> None:
        """End the services, last in the line first to hear of it, then the servers."""
        for process in self.processes.values():
            process.signal(15)
        for process in self.processes.values():
            process.stop()
        self.stack.stop()

    def __enter__(self) -> Self:
        try:
            self.start_servers()
            self.start_services()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def create_all(addresses: Addresses) -> list[str]:
    """Create what is declared and missing: topics, collections, indexes. Returns the new topics."""

    async def create() -> list[str]:
        created = await create_topics(addresses.kafka_bootstrap_servers, topics().values())
        settings = SinkSettings(mongo_uri=addresses.mongo_uri)
        client = connect(settings)
        try:
            await ensure_collections(client[settings.mongo_database], settings.sink_history_days)
        finally:
            client.close()
        return created

    return asyncio.run(create())
