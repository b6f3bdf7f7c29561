"""Fixtures of several services' tests: settings, MongoDB as a test reads it, and a server that a test may break."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from deploy.local.mongo import LocalMongo
from tests.integration.features_support import features_environment


@pytest.fixture
def environment(topics: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a feature worker with empty topics, a folder of its own and a bundle."""
    return features_environment(topics, tmp_path)


@pytest.fixture
def sink_environment(topics: str, mongo: LocalMongo, mongo_database: str) -> dict[str, str]:
    """Settings of a sink with empty topics and an empty database, that tries again soon."""
    return {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MONGO_URI": mongo.uri,
        "CLV_MONGO_DATABASE": mongo_database,
        "CLV_SINK_RETRY_SECONDS_MAX": "0.5",
    }


@pytest.fixture
def database(mongo: LocalMongo, mongo_database: str) -> Iterator[Database[dict[str, Any]]]:
    """The test's own database."""
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        yield client[mongo_database]


@pytest.fixture
def own_mongo() -> Iterator[LocalMongo]:
    """A server of the test's own, to be killed and paused."""
    with LocalMongo() as server:
        yield server
