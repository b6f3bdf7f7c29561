"""Apache Kafka in KRaft mode as child processes: one broker, or a small cluster for tests of replication.

Must never share a data folder between two running clusters, and never report ready before each broker has answered a
request for metadata that lists them all.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import binaries
from deploy.local.errors import LocalStackError
from deploy.local.folders import DataFolder, free_ports, is_free
from deploy.local.metadata import cluster_view
from deploy.local.processes import STOP_TIMEOUT_S, ServiceProcess, file_tail, wait_until

_LOG_CONFIG = Path(__file__).with_name("kafka") / "log4j2.properties"
_HOST = "127.0.0.1"
_START_ATTEMPTS = 3
_ARCHIVE_DUMP_S_MAX = 30.0
_ONE_COMPILER = "-XX:TieredStopAtLevel=1"
_EXIT_CODE_STOPPED = 128 + signal.SIGTERM  # of a JVM that ran its shutdown hooks to the end
MESSAGE_BYTES_MAX = 8 * 1024 * 1024


class LocalKafka:
    """A Kafka cluster on this machine. A context manager; or call `start` and `stop`.

    data_dir: kept, and can be started again, on other ports if those are taken; None: a temporary folder, deleted
    by `stop`. brokers: their number, each with id 1…n, also a controller; topics get replicas on up to three of them.
    heap_mb: bound of each broker's Java heap, MiB. settings: broker settings that override the ones made here.
    jvm_options: further options; those of $KAFKA_OPTS come before them, as with Kafka's own scripts. Without it,
    Java's first compiler works alone: the second takes half of what a broker needs in its first minutes.
    Methods raise LocalStackError with a line for the user.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        brokers: int = 1,
        heap_mb: int = 512,
        settings: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = (),
        home: Path | None = None,
        announce: binaries.Announce | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        if brokers < 1:
            raise ValueError("a cluster needs at least one broker")
        self._given_dir = data_dir
        self._ids = range(1, brokers + 1)
        self._heap_mb = heap_mb
        self._settings = dict(settings or {})
        self._jvm_options = (*_options_of_the_environment(), *jvm_options)
        self._home = home or binaries.home_dir()
        self._announce: binaries.Announce = announce or (lambda _: None)
        self._start_timeout_s = start_timeout_s
        self._folder: DataFolder | None = None
        self._cluster_id = ""
        self._ports: dict[int, tuple[int, int]] = {}  # by broker: for clients, for controllers
        self._processes: dict[int, ServiceProcess] = {}
        self._archive = _Archive(None)

    # ------------------------------------------------------------ the cluster

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect: `host:port`, comma-separated. The same until `stop`, through kills and restarts."""
        if not self._processes:
            raise LocalStackError("Kafka is not started")
        return ",".join(f"{_HOST}:{client}" for client, _ in self._ports.values())

    @property
    def data_dir(self) -> Path:
        """The folder in use: broker-<id>/ with data, log/server.log and console.log of each broker."""
        if self._folder is None:
            raise LocalStackError("Kafka is not started")
        return self._folder.path

    def start(self) -> None:
        """Start the brokers and return once all of them serve. Fetches Kafka first if this machine has none yet."""
        if self._processes:
            raise LocalStackError("Kafka is already started")
        java = binaries.java()
        jars = binaries.kafka_jars(self._home, self._announce)
        self._folder = DataFolder(self._given_dir, "kafka")
        try:
            self._archive = _Archive(_archive_path(self._home, java, jars))
            for attempt in range(1, _START_ATTEMPTS + 1):
                self._prepare(java, jars)
                if self._start_all(may_fail=attempt < _START_ATTEMPTS):
                    return
        except BaseException:
            self.stop(timeout_s=0.0)
            raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Shut down cleanly; brokers that still run after `timeout_s` are killed. Safe at any time, and twice."""
        processes = list(self._processes.values())
        recording = self._archive.recording and timeout_s > 0
        limit_s = max(timeout_s, _ARCHIVE_DUMP_S_MAX) if recording else timeout_s
        if processes:
            with ThreadPoolExecutor(len(processes)) as pool:  # together: each hands its partitions to the others
                exit_codes = list(pool.map(lambda process: process.stop(limit_s), processes))
            self._archive.finish(complete=exit_codes[0] == _EXIT_CODE_STOPPED)
        self._processes = {}
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    # ------------------------------------------------------------ one broker

    def process(self, broker: int = 1) -> ServiceProcess:
        """The process of a broker, for its pid, log and exit code."""
        if broker not in self._processes:
            raise LocalStackError(f"there is no started broker {broker}")
        return self._processes[broker]

    def kill(self, broker: int = 1) -> None:
        """SIGKILL: what the broker had not yet written to the operating system is lost, as in a crash."""
        self.process(broker).kill()

    def restart(self, broker: int = 1) -> None:
        """Stop the broker if it runs, start it again on the same ports, and return once it serves."""
        process = self.process(broker)
        process.stop()
        process.start()
        living = [each for each in self._ids if self._processes[each].alive and not self._processes[each].paused]
        self._wait_until_serving([broker], expected=frozenset(living))

    def pause(self, broker: int = 1) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self.process(broker).pause()

    def resume(self, broker: int = 1) -> None:
        """Let a paused broker go on. Returns at once: it may need a moment to rejoin the cluster."""
        self.process(broker).resume()

    # ------------------------------------------------------------ starting

    def _prepare(self, java: str, jars: list[Path]) -> None:
        """Choose ports, write each broker's settings, format new folders, and make the processes."""
        self._choose_cluster()
        self._processes = {}
        common = [java, *self._java_options(jars)]
        for broker in self._ids:
            folder = self.data_dir / f"broker-{broker}"
            folder.mkdir(exist_ok=True)
            (folder / "log").mkdir(exist_ok=True)
            (folder / "server.properties").write_text(_properties(self._broker_settings(broker, folder)))
            argv = [
                *common,
                *(self._archive.recording_options if broker == 1 else ()),
                f"-Dclv.kafka.log.dir={folder / 'log'}",
                "kafka.Kafka",
                str(folder / "server.properties"),
            ]
            self._processes[broker] = ServiceProcess(f"Kafka broker {broker}", argv, log_path=folder / "console.log")
        marks = {each: self.data_dir / f"broker-{each}" / "data" / "meta.properties" for each in self._ids}
        new = [each for each, mark in marks.items() if not mark.exists()]
        with ThreadPoolExecutor(len(self._ids)) as pool:
            list(pool.map(lambda broker: self._format(broker, common), new))

    def _choose_cluster(self) -> None:
        """The cluster's id and its brokers' ports: those of the last time, where there was one and they are free."""
        path = self.data_dir / "cluster.json"
        saved = json.loads(path.read_text()) if path.exists() else {}
        if saved and len(saved["ports"]) != len(self._ids):
            raise LocalStackError(
                f"{self.data_dir} holds a cluster of {len(saved['ports'])} broker(s), not {len(self._ids)}:"
                " start it with that number, or give another folder"
            )
        self._cluster_id = saved.get("cluster_id") or _new_id()
        ports = [port for pair in saved.get("ports", []) for port in pair]
        if not ports or not all(map(is_free, ports)):
            ports = free_ports(2 * len(self._ids), avoid=ports)
        self._ports = {broker: (ports[2 * broker - 2], ports[2 * broker - 1]) for broker in self._ids}
        _write_whole(path, json.dumps({"cluster_id": self._cluster_id, "ports": list(self._ports.values())}))

    def _java_options(self, jars: list[Path]) -> list[str]:
        return [
            f"-Xmx{self._heap_mb}m",
            f"-Xms{min(self._heap_mb, 256)}m",
            # Named, since Java's own choice depends on the machine's size, and a shared archive fits one of them only.
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",  # no files of its own in the folder for temporary ones
            "-Djava.awt.headless=true",
            *self._archive.use_options,
            *self._jvm_options,
            f"-Dlog4j2.configurationFile={_LOG_CONFIG}",
            "-cp",
            ":".join(map(str, jars)),
        ]

    def _broker_settings(self, broker: int, folder: Path) -> dict[str, str]:
        """server.properties of one broker: https://kafka.apache.org/documentation/#brokerconfigs"""
        client, controller = self._ports[broker]
        voters = ",".join(f"{each}@{_HOST}:{self._ports[each][1]}" for each in self._ids)
        replicas = min(3, len(self._ids))
        in_sync_min = max(1, replicas - 1)
        return {
            "process.roles": "broker,controller",
            "node.id": str(broker),
            # A fixed list, since it lets the same folder be started on other ports.
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{_HOST}:{client},CONTROLLER://{_HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{_HOST}:{client}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(folder / "data"),
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(MESSAGE_BYTES_MAX),
            "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
            "num.partitions": "1",
            "default.replication.factor": str(replicas),
            "min.insync.replicas": str(in_sync_min),
            "offsets.topic.replication.factor": str(replicas),
            "transaction.state.log.replication.factor": str(replicas),
            "transaction.state.log.min.isr": str(in_sync_min),
            "share.coordinator.state.topic.replication.factor": str(replicas),
            "share.coordinator.state.topic.min.isr": str(in_sync_min),
            # 50 each is for hundreds of groups; their creation is what the first consumer waits for.
            "offsets.topic.num.partitions": "10",
            "transaction.state.log.num.partitions": "10",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed cannot rejoin before its last session is over: 9 s by default.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
            "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),  # 128 MiB would be a quarter of the heap
            **self._settings,
        }

    def _format(self, broker: int, java: list[str]) -> None:
        """Give a new data folder its ids. Kafka writes meta.properties last, so a half-made one is done again."""
        folder = self.data_dir / f"broker-{broker}"
        tool = ["kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(folder / "server.properties")]
        log = folder / "format.log"
        process = ServiceProcess(
            "Kafka's format tool", [*java, f"-Dclv.kafka.log.dir={folder / 'log'}", *tool], log_path=log
        )
        process.start()
        try:
            if process.wait(self._start_timeout_s) != 0:
                raise LocalStackError(
                    f"Kafka could not format {folder}: {_reason(log) or 'it says no reason'}{self._see(log)}"
                )
        finally:
            process.kill()

    def _start_all(self, may_fail: bool) -> bool:
        """Start all brokers and wait for them; False if a port was taken meanwhile and `may_fail`."""
        for process in self._processes.values():
            process.start()
        try:
            self._wait_until_serving(self._ids, expected=frozenset(self._ids))
        except LocalStackError:
            if not (may_fail and any(self._lost_its_port(broker) for broker in self._ids)):
                raise
            for process in self._processes.values():
                process.kill()
            return False
        return True

    def _lost_its_port(self, broker: int) -> bool:
        tail = file_tail(self.data_dir / f"broker-{broker}" / "log" / "server.log", 200)
        return not self._processes[broker].alive and "Address already in use" in tail

    def _wait_until_serving(self, brokers: Sequence[int], expected: frozenset[int]) -> None:
        def serving() -> bool:
            views = [cluster_view(_HOST, self._ports[broker][0]) for broker in brokers]
            return all(
                view
                and view.cluster_id == self._cluster_id  # not somebody else's Kafka, which took the port
                and view.controller_id != -1
                and view.broker_ids >= expected
                for view in views
            )

        def alive() -> bool:
            return all(self._processes[broker].alive for broker in brokers)

        if wait_until(serving, alive, self._start_timeout_s):
            return
        ended = next((broker for broker in brokers if not self._processes[broker].alive), brokers[0])
        folder = self.data_dir / f"broker-{ended}"
        log = folder / "log" / "server.log"
        what = "is not ready" if self._processes[ended].alive else "ended while starting"
        why = _reason(log) or _reason(folder / "console.log") or f"no answer within {self._start_timeout_s:.0f} s"
        raise LocalStackError(f"Kafka broker {ended} {what}: {why}{self._see(log)}")

    def _see(self, log: Path) -> str:
        """Where to read more, if it will still be there."""
        return "" if self._folder is None or self._folder.temporary else f" (see {log})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Archive:
    """Java's shared archive of Kafka's loaded classes (AppCDS): saves 1 s of each start. Made by the first clean stop.

    Java ignores an archive that does not fit, so a wrong one costs time, never correctness. It appears complete or not
    at all, since the process that records it writes to a file of its own.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unfinished: Path | None = None
        if path is not None and not path.exists():
            self._unfinished = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")

    @property
    def recording(self) -> bool:
        return self._unfinished is not None

    @property
    def use_options(self) -> tuple[str, ...]:
        if self._path is None or self.recording:
            return ()
        return (f"-XX:SharedArchiveFile={self._path}", "-Xshare:auto", "-Xlog:disable")

    @property
    def recording_options(self) -> tuple[str, ...]:
        return (f"-XX:ArchiveClassesAtExit={self._unfinished}", "-Xlog:disable") if self.recording else ()

    def finish(self, complete: bool) -> None:
        """After the recording process has ended: put what it recorded in place, or throw it away if it was killed."""
        if self._path is not None and self._unfinished is not None:
            with contextlib.suppress(FileNotFoundError):  # killed before it wrote anything
                if complete:
                    self._unfinished.rename(self._path)
                else:
                    self._unfinished.unlink()


def _archive_path(home: Path, java: str, jars: list[Path]) -> Path:
    key = hashlib.sha256("\n".join([java, binaries.java_version(java), *map(str, jars)]).encode()).hexdigest()[:12]
    return home / f"kafka-classes-{key}.jsa"


def _options_of_the_environment() -> list[str]:
    given = os.environ.get("KAFKA_OPTS", _ONE_COMPILER)
    try:
        return shlex.split(given)
    except ValueError as error:
        raise LocalStackError(f"KAFKA_OPTS={given} cannot be read: {error}. Mend or unset it") from None


def _properties(settings: Mapping[str, str]) -> str:
    """Java's properties format, in which a backslash begins an escape."""
    return "".join(f"{key}={value}\n".replace("\\", "\\\\") for key, value in settings.items())


def _new_id() -> str:
    """A Kafka Uuid: 16 random bytes in URL-safe base 64 that do not begin with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _reason(log: Path) -> str:
    """The line of a Kafka log that says why it failed: the last exception, else the last error, else Java's refusal."""
    lines = file_tail(log, 400).splitlines()
    refusals = r"^(?:Unrecognized|Unsupported|Invalid|Improperly specified|Missing|Conflicting) .+"
    exceptions = r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): .+"
    for pattern in (exceptions, r".* (?:ERROR|FATAL) .+", r"^Exception in .+", refusals, r"^Error: .+"):
        found = [line.strip() for line in lines if re.match(pattern, line)]
        if found:
            return found[-1][:300]
    return ""


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(text)
    unfinished.replace(path)
