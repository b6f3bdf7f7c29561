"""MongoDB as a child process: a replica set of one node, so that transactions and retryable and majority writes work.

Must never initiate a replica set over existing data, and never report ready before the node is primary.
"""

import contextlib
import json
import re
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from deploy.local import binaries
from deploy.local.errors import LocalStackError
from deploy.local.folders import DataFolder, free_ports, is_free
from deploy.local.processes import STOP_TIMEOUT_S, ServiceProcess, file_tail, wait_until

_HOST = "127.0.0.1"
_START_ATTEMPTS = 3
_OPLOG_MB = 512
_ANSWER_MS_MAX = 2000
# Error codes of MongoDB: NotYetInitialized, AlreadyInitialized, InvalidReplicaSetConfig.
_NOT_YET_INITIALIZED = 94
_ALREADY_INITIALIZED = 23
_NOT_A_MEMBER = 93
REPLICA_SET = "clv"
_KEEP_CHANGES = (
    "eviction_dirty_target=40,eviction_dirty_trigger=60,eviction_updates_target=30,eviction_updates_trigger=50"
)
"""Of the cache, in percent, for what is not written yet. At WiredTiger's 5 % of a small cache, what changes
all the time is compressed, written and read again and again between two checkpoints."""


class LocalMongo:
    """A MongoDB server on this machine. A context manager; or call `start` and `stop`.

    data_dir: kept, and can be started again; None: a temporary folder, deleted by `stop`. cache_gb: bound of the
    storage engine's cache, GiB. Methods raise LocalStackError with a line for the user.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        cache_gb: float = 1.0,
        home: Path | None = None,
        announce: binaries.Announce | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        self._given_dir = data_dir
        self._cache_gb = cache_gb
        self._home = home
        self._announce: binaries.Announce = announce or (lambda _: None)
        self._start_timeout_s = start_timeout_s
        self._folder: DataFolder | None = None
        self._port = 0
        self._process: ServiceProcess | None = None

    @property
    def uri(self) -> str:
        """Connection string. The same until `stop`, through kills and restarts."""
        if self._process is None:
            raise LocalStackError("MongoDB is not started")
        return f"mongodb://{_HOST}:{self._port}/?replicaSet={REPLICA_SET}"

    @property
    def data_dir(self) -> Path:
        """The folder in use: db/, mongod.log, console.log."""
        if self._folder is None:
            raise LocalStackError("MongoDB is not started")
        return self._folder.path

    @property
    def process(self) -> ServiceProcess:
        """The server's process, for its pid, log and exit code."""
        if self._process is None:
            raise LocalStackError("MongoDB is not started")
        return self._process

    def start(self) -> None:
        """Start the server and return once it is primary. Fetches MongoDB first if this machine has none."""
        if self._process is not None:
            raise LocalStackError("MongoDB is already started")
        program = binaries.mongod(self._home, self._announce)
        self._folder = DataFolder(self._given_dir, "mongodb")
        try:
            for attempt in range(1, _START_ATTEMPTS + 1):
                self._prepare(program)
                self.process.start()
                if self._became_primary(may_fail=attempt < _START_ATTEMPTS):
                    return
        except BaseException:
            self.stop(timeout_s=0.0)
            raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Shut down cleanly, or kill it after `timeout_s`. Safe to call at any time, and twice."""
        if self._process is not None:
            self._process.stop(timeout_s)
            self._process = None
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    def kill(self) -> None:
        """SIGKILL: what was not acknowledged as journaled may be lost, as in a crash."""
        self.process.kill()

    def restart(self) -> None:
        """Stop the server if it runs, start it again on the same port, and return once it is primary."""
        self.process.stop()
        self.process.start()
        self._wait_until_primary()

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        """Let the paused server go on."""
        self.process.resume()

    def step_down(self, seconds: int = 5) -> None:
        """Make the primary step down; it elects itself and takes writes again, after `seconds` at the earliest.

        Returns at once. Clients see what they see when a larger set changes its primary.
        """
        client: MongoClient[dict[str, Any]]
        client = MongoClient(_HOST, self._port, directConnection=True, serverSelectionTimeoutMS=_ANSWER_MS_MAX)
        with client:
            try:
                client.admin.command("replSetStepDown", seconds, force=True, secondaryCatchUpPeriodSecs=0)
            except PyMongoError as error:
                raise LocalStackError(f"MongoDB did not step down: {str(error)[:300]}") from None

    def process_log_tail(self, lines: int = 50) -> str:
        """The last lines of the server's own log."""
        return file_tail(self.data_dir / "mongod.log", lines)

    # ------------------------------------------------------------ starting

    def _prepare(self, program: Path) -> None:
        """Choose the port (the one of the last time, where there was one and it is free) and make the process."""
        saved_path = self.data_dir / "server.json"
        saved = json.loads(saved_path.read_text())["port"] if saved_path.exists() else None
        self._port = saved if saved is not None and is_free(saved) else free_ports(1, avoid=[saved or 0])[0]
        unfinished = saved_path.with_name("server.json.new")
        unfinished.write_text(json.dumps({"port": self._port}))
        unfinished.replace(saved_path)
        (self.data_dir / "db").mkdir(exist_ok=True)
        argv = [
            str(program),
            *("--dbpath", str(self.data_dir / "db")),
            *("--bind_ip", _HOST),
            *("--port", str(self._port)),
            *("--replSet", REPLICA_SET),
            *("--oplogSize", str(_OPLOG_MB)),
            *("--wiredTigerCacheSizeGB", str(self._cache_gb)),
            *("--wiredTigerEngineConfigString", _KEEP_CHANGES),
            *("--logpath", str(self.data_dir / "mongod.log")),
            "--logappend",
            "--nounixsocket",
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
        self._process = ServiceProcess("MongoDB", argv, log_path=self.data_dir / "console.log")

    def _became_primary(self, may_fail: bool) -> bool:
        """Wait for it; False if the port was taken meanwhile and `may_fail`."""
        try:
            self._wait_until_primary()
        except LocalStackError:
            if may_fail and not self.process.alive and "Address already in use" in self.process_log_tail():
                return False
            raise
        return True

    def _wait_until_primary(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        if wait_until(self._listens, lambda: self.process.alive, self._start_timeout_s):
            # Short, since it may be somebody else who listens, and who does not answer: then our server has ended.
            client: MongoClient[dict[str, Any]]
            client = MongoClient(
                _HOST,
                self._port,
                directConnection=True,
                serverSelectionTimeoutMS=_ANSWER_MS_MAX,
                connectTimeoutMS=_ANSWER_MS_MAX,
            )
            with client:
                remaining_s = deadline - time.monotonic()
                if wait_until(lambda: self._is_primary(client), lambda: self.process.alive, remaining_s):
                    return
        what = "is not ready" if self.process.alive else f"ended while starting (exit code {self.process.exit_code})"
        kept = "" if self._folder is None or self._folder.temporary else f" (see {self.data_dir / 'mongod.log'})"
        why = self._reason() or f"no primary within {self._start_timeout_s:.0f} s"
        raise LocalStackError(f"MongoDB {what}: {why}{kept}")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, self._port), timeout=1.0):
            return True
        return False

    def _is_primary(self, client: MongoClient[dict[str, Any]]) -> bool:
        """Whether the node takes writes. Makes it a replica set the first time, and after a change of port."""
        try:
            if client.admin.command("serverStatus")["pid"] != self.process.pid:
                return False  # somebody else's MongoDB, which took the port
            if client.admin.command("hello").get("isWritablePrimary"):
                return True
            self._make_replica_set(client)
        except ConnectionFailure:
            pass
        except PyMongoError as error:
            raise LocalStackError(f"MongoDB's replica set cannot be made: {str(error)[:300]}") from None
        return False

    def _make_replica_set(self, client: MongoClient[dict[str, Any]]) -> None:
        member = {"_id": 0, "host": f"{_HOST}:{self._port}"}
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code == _NOT_YET_INITIALIZED:
                self._initiate(client, member)
            return
        if config["members"][0]["host"] != member["host"]:
            # The folder was started on another port. Only by force: a node that is not in its set cannot be primary.
            changed = {**config, "version": config["version"] + 1, "members": [{**config["members"][0], **member}]}
            client.admin.command("replSetReconfig", changed, force=True)

    def _initiate(self, client: MongoClient[dict[str, Any]], member: dict[str, Any]) -> None:
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
        except OperationFailure as error:
            if (
                error.code != _ALREADY_INITIALIZED
            ):  # a node that has just been started again reads its set a moment later
                raise

    def _reason(self) -> str:
        """What the log's last error says (MongoDB logs JSON lines; severity F is fatal, E an error)."""
        for line in reversed((self.process_log_tail(200) + "\n" + self.process.log_tail()).splitlines()):
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                entry = json.loads(line)
                if entry.get("s") in ("F", "E"):
                    attributes = entry.get("attr", {})
                    detail = attributes.get("error") or attributes.get("message") or ""
                    return re.sub(r"\s+", " ", f"{entry['msg']} {detail}").strip()[:300]
        return ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
