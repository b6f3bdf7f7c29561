"""Real servers for tests: one Kafka and one MongoDB a session, clean topics a test, services as real processes."""

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from hypothesis import settings
from hypothesis import strategies as st
from pymongo import MongoClient

from deploy.local import binaries
from deploy.local.folders import PORTS_VARIABLE, free_ports
from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from schemas.topics import topics as declared_topics
from services.runtime.kafka import create_topics
from tests import warm
from tests.effort import USUAL, tries
from tests.support import ADMIN_SECONDS, asked_again, forget_groups, ready, wait_for

ROOT = Path(__file__).parent.parent

# A person's run looks for new counterexamples; a run that decides over a change must not depend on luck.
settings.register_profile("clv", derandomize=os.environ.get("CI") == "true", max_examples=tries(USUAL))
settings.load_profile("clv")

ServiceProcess.launch = staticmethod(warm.launch)

_FIRST_PORT = 20_000 + 1500 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8)
# Each of several workers has ports of its own: what one finds free, or lets go of for a restart, another would take.
os.environ.setdefault(PORTS_VARIABLE, f"{_FIRST_PORT}-{_FIRST_PORT + 1499}")


SECONDS = {
    "tests/chaos/test_chaos.py": 300,
    "tests/e2e/test_dashboard.py": 270,
    "tests/integration/test_spark.py": 150,
    "tests/e2e/test_demo_and_up.py": 140,
    "tests/integration/test_model_life.py": 130,
    "tests/integration/test_sink.py": 120,
    "tests/unit/trainer/test_training.py": 120,
    "tests/e2e/test_erasure.py": 110,
    "tests/integration/test_scorer.py": 110,
    "tests/integration/test_ingest.py": 100,
    "tests/integration/test_local_stack.py": 100,
    "tests/integration/test_erasure_services.py": 80,
    "tests/integration/test_train_score.py": 80,
    "tests/integration/test_features.py": 80,
    "tests/unit/deploy/test_bootstrap_script.py": 80,
    "tests/integration/test_profile_model.py": 70,
    "tests/integration/test_model_quality.py": 70,
    "tests/integration/test_customer_states.py": 70,
    "tests/integration/test_recovery.py": 70,
    "tests/integration/test_merge_and_erase.py": 60,
    "tests/integration/test_silence.py": 60,
    "tests/integration/test_pressure_kafka.py": 60,
    "tests/integration/test_training_sources.py": 50,
    "tests/integration/test_api_outages.py": 50,
    "tests/integration/test_api_customers.py": 50,
    "tests/e2e/test_pressure_mongo.py": 40,
    "tests/integration/test_poison.py": 40,
    "tests/e2e/test_whole_path.py": 40,
    "tests/integration/test_pressure_sink.py": 30,
    "tests/integration/test_fencing.py": 30,
    "tests/integration/test_topics.py": 30,
    "tests/integration/test_api_live.py": 30,
    "tests/integration/test_dead_letter_tool.py": 30,
    "tests/integration/test_outcomes.py": 30,
    "tests/integration/test_api_predict.py": 30,
}
"""About how long the longest files take beside others. Wrong figures cost time, nothing else."""
OTHERS_SECONDS = {"tests/chaos": 100, "tests/e2e": 60, "tests/integration": 15}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several workers begin with the longest files, so that none is left alone with one of them at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -_seconds(item.path.relative_to(ROOT)))


def _seconds(path: Path) -> float:
    kind = "/".join(path.parts[:2])
    return SECONDS.get(path.as_posix(), OTHERS_SECONDS.get(kind, 1))


def pytest_collection_finish() -> None:
    """Let Hypothesis work out before any test which characters there are; it keeps that on disk.

    In a fresh folder that takes seconds, which its health check would take for a slow strategy of the first test.
    """
    st.text().validate()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that all workers of a run share, made by the first that asks. Nobody may write to it afterwards."""
    root = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder, unfinished = root / name, root / f"{name}.unfinished"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def cdnow_slice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The purchases of every 16th of CDNOW's customers, in CDNOW's own form."""

    def make(folder: Path) -> None:
        lines = [line for line in binaries.cdnow_purchases().read_text().splitlines() if line.split()[:1]]
        kept = [line for line in lines if (first := line.split()[0]).isdigit() and int(first) % 16 == 0]
        (folder / "slice.txt").write_text("\n".join(kept) + "\n")

    return made_once(tmp_path_factory, "cdnow-slice", make) / "slice.txt"


@pytest.fixture(scope="session")
def cdnow_models(cdnow_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a real model of the slice: horizon 120 days, in USD."""

    def make(folder: Path) -> None:
        # Most tests need none of what these load.
        from services.trainer.orders_file import read_cdnow
        from services.trainer.sources.orders import from_table
        from services.trainer.train import train

        train(from_table(read_cdnow(cdnow_slice), date(1998, 1, 1), "USD"), 120, folder)

    return made_once(tmp_path_factory, "cdnow-models", make)


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """A real broker for the whole session."""
    with LocalKafka() as server:
        yield server


@pytest.fixture(scope="session")
def mongo() -> Iterator[LocalMongo]:
    """A real one-node replica set for the whole session."""
    with LocalMongo() as server:
        yield server


@pytest.fixture
def topics(kafka: LocalKafka) -> str:
    """All declared topics, empty, and no consumer groups left; gives the bootstrap servers."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    ours = [topic.name for topic in declared_topics().values()]

    def existing() -> list[str]:
        there = asked_again(lambda: admin.list_topics(timeout=10), 60).topics
        return [name for name in ours if name in there]

    def gone() -> bool:
        names = existing()
        deleted = admin.delete_topics(names, request_timeout=ADMIN_SECONDS) if names else {}
        for future in deleted.values():
            future.exception()
        return not existing()

    forget_groups(kafka.bootstrap_servers)
    wait_for(gone, "old topics to be gone", 60)
    asyncio.run(create_topics(kafka.bootstrap_servers, declared_topics().values()))
    wait_for(lambda: len(existing()) == len(ours), "new topics to be there")
    return kafka.bootstrap_servers


@pytest.fixture
def mongo_database(mongo: LocalMongo) -> Iterator[str]:
    """Name of an empty database, dropped afterwards."""
    name = "clv_test"
    with MongoClient(mongo.uri) as client:
        client.drop_database(name)
        yield name
        client.drop_database(name)


Service = Callable[..., ServiceProcess]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Start `python -m services.<name>` as a real process: service("features", env={…}, wait=True).

    The process has its health port in `.port`. wait: until /readyz says ready. Everything is stopped after the test.
    """
    started: list[ServiceProcess] = []

    def start(name: str, env: dict[str, str], *, wait: bool = True) -> ServiceProcess:
        (port,) = free_ports(1)
        process = ServiceProcess(
            name,
            [sys.executable, "-m", f"services.{name}"],
            env={"PYTHONPATH": str(ROOT), f"CLV_{name.upper()}_HTTP_PORT": str(port), **env},
            log_path=tmp_path / f"{name}-{len(started)}.log",
        )
        process.port = port  # type: ignore[attr-defined]
        process.start()
        started.append(process)
        if wait:
            wait_for(lambda: ready(process), f"{name} to be ready", 60, lambda: process.log_tail(30))
        return process

    yield start
    for process in started:
        process.kill()
