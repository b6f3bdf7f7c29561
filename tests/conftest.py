"""Real servers for tests: one Kafka and one MongoDB a session, clean topics a test, services as real processes."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from hypothesis import settings
from hypothesis import strategies as st
from pymongo import MongoClient

from deploy.local.folders import free_ports
from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from schemas.topics import topics as declared_topics
from services.runtime.kafka import create_topics
from tests.support import forget_groups, ready, wait_for

ROOT = Path(__file__).parent.parent

# A person's run looks for new counterexamples; a run that decides over a change must not depend on luck.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI") == "true":
    settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """Let Hypothesis work out before any test which characters there are; it keeps that on disk.

    In a fresh folder that takes seconds, which its health check would take for a slow strategy of the first test.
    """
    st.text().validate()


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
        try:
            there = admin.list_topics(timeout=10).topics
        except KafkaException:  # a broker that a test has just restarted closes the first connection
            there = admin.list_topics(timeout=20).topics
        return [name for name in ours if name in there]

    forget_groups(kafka.bootstrap_servers)
    if existing():
        for future in admin.delete_topics(existing()).values():
            future.exception()
        wait_for(lambda: not existing(), "old topics to be gone")
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
