"""The embedded servers are real: they keep what they acknowledged through kills and restarts, and leave no trace."""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

from deploy.local import LocalKafka, LocalMongo, LocalStack, LocalStackError, binaries
from deploy.local.folders import DataFolder
from tests.support import asked_again

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def eventually(condition: object, timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def create_topic(kafka: LocalKafka, topic: str, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=replicas)])[topic].result(30)


def produce(kafka: LocalKafka, topic: str, values: list[bytes]) -> None:
    """Returns once all are acknowledged by all in-sync replicas."""
    failed: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all", "message.max.bytes": 10_000_000})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(60) == 0
    assert failed == []


def consume(kafka: LocalKafka, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(values) < count and time.monotonic() < deadline:
        values += [message.value() for message in consumer.consume(count, timeout=1.0) if not message.error()]
    consumer.close()
    return values


def insert(mongo: LocalMongo, *numbers: int) -> None:
    with MongoClient(mongo.uri) as client:
        numbers_written = client.clv.get_collection("numbers", write_concern=WriteConcern("majority", j=True))
        numbers_written.insert_many([{"_id": number} for number in numbers])


def stored(mongo: LocalMongo) -> list[int]:
    with MongoClient(mongo.uri) as client:
        return sorted(each["_id"] for each in client.clv.numbers.find())


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def kafka(stack: LocalStack) -> LocalKafka:
    if stack.kafka is None:
        pytest.skip("a Kafka is named by the environment: it is not ours to kill")
    return stack.kafka


@pytest.fixture
def mongo(stack: LocalStack) -> LocalMongo:
    if stack.mongo is None:
        pytest.skip("a MongoDB is named by the environment: it is not ours to kill")
    return stack.mongo


def test_acknowledged_messages_survive_a_killed_broker(kafka: LocalKafka) -> None:
    create_topic(kafka, "survives")
    values = [str(number).encode() for number in range(1000)]
    produce(kafka, "survives", values)
    before, address = kafka.process().pid, kafka.bootstrap_servers
    kafka.kill()
    assert kafka.process().exit_code == -signal.SIGKILL
    kafka.restart()
    assert kafka.process().pid != before
    assert kafka.bootstrap_servers == address
    assert consume(kafka, "survives", 1000) == values
    produce(kafka, "survives", [b"after"])
    assert consume(kafka, "survives", 1001)[-1] == b"after"


def test_a_message_of_5_mb_passes_and_unknown_topics_are_not_made(kafka: LocalKafka) -> None:
    create_topic(kafka, "large")
    value = os.urandom(5_000_000)
    produce(kafka, "large", [value])
    assert consume(kafka, "large", 1) == [value]
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.timeout.ms": 3000})
    failed: list[KafkaError] = []
    producer.produce("no-such-topic", b"x", on_delivery=lambda error, _: failed.append(error))
    producer.flush(10)
    assert len(failed) == 1
    assert failed[0] is not None


def test_a_paused_broker_does_not_answer_until_it_is_resumed(kafka: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "socket.timeout.ms": 1000})
    kafka.pause()
    with pytest.raises(Exception, match=r"(?i)fail|time|transport"):
        admin.list_topics(timeout=1.0)
    kafka.resume()
    assert asked_again(lambda: admin.list_topics(timeout=20.0)).brokers


def test_majority_writes_survive_a_killed_mongodb(mongo: LocalMongo) -> None:
    insert(mongo, 1, 2, 3)
    before, uri = mongo.process.pid, mongo.uri
    mongo.kill()
    mongo.restart()
    assert mongo.process.pid != before
    assert mongo.uri == uri
    assert stored(mongo) == [1, 2, 3]


def test_a_mongodb_that_steps_down_takes_no_writes_and_then_does_again(mongo: LocalMongo) -> None:
    insert(mongo, 77)
    before = mongo.process.pid
    mongo.step_down(1)
    with MongoClient(mongo.uri, directConnection=True) as client:
        assert not client.admin.command("hello")["isWritablePrimary"]
    with MongoClient(mongo.uri) as client:  # waits for a primary
        client.clv.after_step_down.insert_one({"_id": 1})
    assert mongo.process.pid == before
    assert 77 in stored(mongo)


def test_mongodb_is_a_replica_set_with_transactions(mongo: LocalMongo) -> None:
    with MongoClient(mongo.uri) as client, client.start_session() as session:
        client.clv.create_collection("in_transaction")
        session.start_transaction()
        client.clv.in_transaction.insert_one({"_id": 1}, session=session)
        session.abort_transaction()
        assert client.clv.in_transaction.count_documents({}) == 0
        assert client.admin.command("hello")["setName"] == "clv"


def test_servers_listen_on_this_machine_only_and_keep_their_heap_and_cache_bounded(
    kafka: LocalKafka, mongo: LocalMongo
) -> None:
    for process in (kafka.process(), mongo.process):
        connections = psutil.Process(process.pid).net_connections()
        listening = {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert listening
    assert "-Xmx512m" in psutil.Process(kafka.process().pid).cmdline()
    with MongoClient(mongo.uri) as client:
        cache = client.admin.command("serverStatus")["wiredTiger"]["cache"]
        assert cache["maximum bytes configured"] == 1024**3


def test_a_folder_that_a_running_server_uses_is_refused(kafka: LocalKafka) -> None:
    with pytest.raises(LocalStackError, match="in use"):
        LocalKafka(kafka.data_dir).start()


def test_servers_named_by_the_environment_are_used_and_left_alone(kafka, mongo, stack, monkeypatch) -> None:
    for name, value in stack.addresses().as_env().items():
        monkeypatch.setenv(name, value)
    with LocalStack() as named:
        assert named.kafka is None
        assert named.mongo is None
        assert named.addresses() == stack.addresses()
    assert kafka.process().alive
    assert mongo.process.alive


def test_a_second_start_in_the_same_folder_keeps_the_data_even_on_other_ports(tmp_path: Path) -> None:
    with LocalStack(tmp_path) as first:
        create_topic(first.kafka, "kept")
        produce(first.kafka, "kept", [b"1", b"2"])
        insert(first.mongo, 1)
        addresses = first.addresses()
        with MongoClient(first.mongo.uri) as client:
            set_id = client.admin.command("replSetGetConfig")["config"]["settings"]["replicaSetId"]
    with LocalStack(tmp_path) as second:
        assert second.addresses() == addresses
        assert consume(second.kafka, "kept", 2) == [b"1", b"2"]
        assert stored(second.mongo) == [1]
    # Somebody else has the ports now.
    taken = [int(address) for address in json.loads((tmp_path / "kafka" / "cluster.json").read_text())["ports"][0]]
    taken.append(json.loads((tmp_path / "mongodb" / "server.json").read_text())["port"])
    with Listeners(taken), LocalStack(tmp_path) as third:
        assert third.addresses().kafka_bootstrap_servers != addresses.kafka_bootstrap_servers
        assert third.addresses().mongo_uri != addresses.mongo_uri
        assert consume(third.kafka, "kept", 2) == [b"1", b"2"]
        assert stored(third.mongo) == [1]
        insert(third.mongo, 2)
        with MongoClient(third.mongo.uri) as client:  # not initiated anew: it is the same set
            assert client.admin.command("replSetGetConfig")["config"]["settings"]["replicaSetId"] == set_id


class Listeners:
    """Somebody else's server on these ports while the block runs: takes connections and closes them."""

    def __init__(self, ports: list[int]) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", port)) for port in ports]
        for each in self._sockets:
            threading.Thread(target=self._serve, args=(each,), daemon=True).start()

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                server.accept()[0].close()

    def __enter__(self) -> "Listeners":
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.shutdown(socket.SHUT_RDWR)  # a close alone would leave the accept, and the port, as they are
            each.close()


def test_a_port_that_is_lost_while_starting_is_replaced(monkeypatch, tmp_path: Path) -> None:
    """Another process takes the port between the choice and the server's own bind."""
    kafka, mongo = LocalKafka(tmp_path / "kafka"), LocalMongo(tmp_path / "mongodb")
    for server, module in ((kafka, "kafka"), (mongo, "mongo")):
        target = importlib.import_module(f"deploy.local.{module}")
        real = target.free_ports
        taken: list[Listeners] = []

        def racing(count: int, avoid: object = (), *, _real=real, _taken=taken) -> list[int]:
            ports = _real(count, avoid)
            if not _taken:
                _taken.append(Listeners([ports[0]]))
            return ports

        monkeypatch.setattr(target, "free_ports", racing)
        with server:
            assert len(taken) == 1
            assert server.data_dir.exists()
        taken[0].__exit__()


def test_temporary_data_is_deleted_and_no_process_left(tmp_path: Path) -> None:
    with LocalStack() as stack:
        folders = [stack.kafka.data_dir, stack.mongo.data_dir]
        pids = [stack.kafka.process().pid, stack.mongo.process.pid]
        assert all(folder.exists() for folder in folders)
    assert not any(folder.exists() for folder in folders)
    assert all(map(is_gone, pids))
    with pytest.raises(LocalStackError, match="not started"):
        stack.addresses()


@pytest.mark.parametrize("last_words", ["kill", "interrupt while starting"])
def test_no_server_outlives_a_parent_that_is_killed(last_words: str) -> None:
    code = (
        "import signal, sys; from deploy.local import LocalStack, LocalStackError\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored\n"
        "stack = LocalStack(); print('go', flush=True)\n"
        "try:\n"
        "    stack.start(); print(stack.kafka.process().pid, stack.mongo.process.pid, flush=True); sys.stdin.read()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("CLV_KAFKA_BOOTSTRAP_SERVERS", None)
    environment.pop("CLV_MONGO_URI", None)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "go\n"
        children: list[psutil.Process] = []
        if last_words == "kill":
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2
            parent.send_signal(signal.SIGKILL)
        else:
            assert eventually(lambda: children.extend(psutil.Process(parent.pid).children()) or len(children) > 0)
            pids = [child.pid for child in children]
            parent.send_signal(signal.SIGINT)
            assert parent.stdout.read() == "interrupted\n"
        parent.wait(30)
        assert eventually(lambda: all(map(is_gone, pids)))
    DataFolder(None, "test").release()  # deletes what the killed one could not


@pytest.mark.long
def test_three_brokers_lose_nothing_when_one_is_killed() -> None:
    with LocalKafka(brokers=3, heap_mb=256) as kafka:
        assert len(kafka.bootstrap_servers.split(",")) == 3
        create_topic(kafka, "replicated", replicas=3)
        produce(kafka, "replicated", [b"1"])
        leader = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        killed = leader.list_topics("replicated", timeout=10).topics["replicated"].partitions[0].leader
        kafka.kill(killed)
        produce(kafka, "replicated", [b"2"])
        assert consume(kafka, "replicated", 2) == [b"1", b"2"]
        kafka.restart(killed)
        produce(kafka, "replicated", [b"3"])
        assert consume(kafka, "replicated", 3) == [b"1", b"2", b"3"]


def test_a_broker_that_cannot_start_says_why_in_one_line() -> None:
    with pytest.raises(LocalStackError, match=r"num\.io\.threads") as error:
        LocalKafka(settings={"num.io.threads": "no number"}).start()
    assert "\n" not in str(error.value)


def test_what_is_in_the_cache_is_used_without_maven_pip_or_network(stack, monkeypatch, tmp_path: Path) -> None:
    history = binaries.cdnow_purchases()
    java_only = tmp_path / "programs"
    java_only.mkdir()
    (java_only / "java").symlink_to(binaries.java())
    monkeypatch.setenv("PATH", str(java_only))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said: list[str] = []
    assert binaries.kafka_jars(announce=said.append)
    assert binaries.mongod(announce=said.append).exists()
    assert binaries.cdnow_purchases(announce=said.append) == history
    assert said == []


def test_the_purchase_history_is_the_one_of_the_papers() -> None:
    rows = [line.split() for line in binaries.cdnow_purchases().read_text().splitlines() if line.strip()]
    rows = [row for row in rows if row[0].isdigit()]
    assert len(rows) == 69_659
    assert len({row[0] for row in rows}) == 23_570
    assert (min(row[1] for row in rows), max(row[1] for row in rows)) == ("19970101", "19980630")


def test_java_options_that_java_refuses_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_OPTS", "-XX:NoSuchThing")
    with pytest.raises(LocalStackError, match=r"Kafka could not format \S+: Unrecognized VM option 'NoSuchThing'$"):
        LocalKafka().start()
