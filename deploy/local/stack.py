"""Kafka and MongoDB together: the ones named by the environment where there are any, else embedded ones.

Must never stop or change a server that it did not start.
"""

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from deploy.local import binaries
from deploy.local.errors import LocalStackError
from deploy.local.kafka import LocalKafka
from deploy.local.metadata import cluster_view
from deploy.local.mongo import LocalMongo
from deploy.local.processes import STOP_TIMEOUT_S
from services.runtime.mongo_errors import in_short

KAFKA_VARIABLE = "CLV_KAFKA_BOOTSTRAP_SERVERS"
MONGO_VARIABLE = "CLV_MONGO_URI"
_ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Addresses:
    """Kafka's bootstrap servers (`host:port`, comma-separated) and MongoDB's connection string."""

    kafka_bootstrap_servers: str
    mongo_uri: str

    def as_env(self) -> dict[str, str]:
        """The environment variables that hand these addresses to a service."""
        return {KAFKA_VARIABLE: self.kafka_bootstrap_servers, MONGO_VARIABLE: self.mongo_uri}


class LocalStack:
    """Both servers. A context manager; or call `start` and `stop`.

    data_dir: kept, with kafka/ and mongodb/ in it; None: temporary folders. For the others see LocalKafka. `kafka` and
    `mongo` are the embedded servers, None where the environment names one.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        brokers: int = 1,
        heap_mb: int = 512,
        kafka_settings: Mapping[str, str] | None = None,
        home: Path | None = None,
        announce: binaries.Announce | None = None,
    ) -> None:
        folder = None if data_dir is None else Path(data_dir)
        self._named = _named()
        self.kafka: LocalKafka | None = None
        self.mongo: LocalMongo | None = None
        if not self._named[KAFKA_VARIABLE]:
            self.kafka = LocalKafka(
                folder and folder / "kafka",
                brokers=brokers,
                heap_mb=heap_mb,
                settings=kafka_settings,
                home=home,
                announce=announce,
            )
        if not self._named[MONGO_VARIABLE]:
            self.mongo = LocalMongo(folder and folder / "mongodb", home=home, announce=announce)

    def start(self) -> None:
        """Start what is embedded, both at once, and check that what is named answers."""
        check_named()
        servers = [server for server in (self.kafka, self.mongo) if server is not None]
        with ThreadPoolExecutor(2) as pool:
            starts = [pool.submit(server.start) for server in servers]
            try:
                for start in starts:
                    start.result()
            except BaseException:  # Ctrl-C too: a server that is stopped while it starts gives up at once
                for server in servers:
                    server.stop(timeout_s=0.0)
                raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Shut the embedded servers down cleanly, both at once. Safe to call at any time, and twice."""
        servers = [server for server in (self.kafka, self.mongo) if server is not None]
        with ThreadPoolExecutor(2) as pool:
            for stopped in [pool.submit(server.stop, timeout_s) for server in servers]:
                stopped.result()

    def addresses(self) -> Addresses:
        """Where the servers are. LocalStackError before `start`."""
        return Addresses(
            self._named[KAFKA_VARIABLE] if self.kafka is None else self.kafka.bootstrap_servers,
            self._named[MONGO_VARIABLE] if self.mongo is None else self.mongo.uri,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _named() -> dict[str, str]:
    """What the environment names, '' where it names none."""
    return {name: os.environ.get(name, "").strip() for name in (KAFKA_VARIABLE, MONGO_VARIABLE)}


def check_named() -> None:
    """LocalStackError unless the servers that the environment names, if any, answer."""
    named = _named()
    if named[KAFKA_VARIABLE]:
        check_kafka(named[KAFKA_VARIABLE])
    if named[MONGO_VARIABLE]:
        check_mongo(named[MONGO_VARIABLE])


def check_kafka(bootstrap_servers: str) -> None:
    """LocalStackError unless one of the servers answers as a Kafka broker does."""
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdigit():
            raise LocalStackError(f"{KAFKA_VARIABLE} must be host:port, comma-separated, and is {bootstrap_servers!r}")
        if cluster_view(host.strip("[]"), int(port), _ANSWER_TIMEOUT_S) is not None:
            return
    raise LocalStackError(
        f"no Kafka answers at {bootstrap_servers}: start it, or unset {KAFKA_VARIABLE} to use the embedded one"
    )


def check_mongo(uri: str) -> None:
    """LocalStackError unless a MongoDB answers there that takes writes."""
    remedy = f"start it, or unset {MONGO_VARIABLE} to use the embedded one"
    try:
        client: MongoClient[dict[str, Any]]
        client = MongoClient(uri, serverSelectionTimeoutMS=round(1000 * _ANSWER_TIMEOUT_S))
        with contextlib.closing(client):
            client.admin.command("ping")
    except (PyMongoError, ValueError) as error:
        raise LocalStackError(
            f"no MongoDB answers at the address in {MONGO_VARIABLE} ({in_short(error)}): {remedy}"
        ) from None
