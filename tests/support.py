"""Waiting, reading and writing as the outside world does it: with confluent-kafka and plain HTTP."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.group import LeaveGroupRequest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.processes import ServiceProcess

Answer = TypeVar("Answer")
ADMIN_SECONDS = 10.0
"""For one request: one that a broker never saw, as it stood still or was killed, would be waited for a minute long."""


def wait_for(
    condition: Callable[[], bool], what: str, seconds: float = 30.0, context: Callable[[], str] = lambda: ""
) -> None:
    """Wait until the condition holds; fail with `what` and the context otherwise.

    Looks for no more than half of the time: what is waited for needs the processor too.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"waited {seconds} s for {what}\n{context()}"
        time.sleep(min(max(0.05, now - began), 0.5))


def ready(process: Any) -> bool:
    """Whether the service says that it is ready. Fails at once if the process has ended."""
    assert process.alive, f"{process.name} ended with {process.exit_code}\n{process.log_tail(40)}"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def http(process: ServiceProcess, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
    """Status and decoded JSON (or text) of a request to the service."""
    request = urllib.request.Request(f"http://127.0.0.1:{process.port}{path}", data=body, method=method)  # type: ignore[attr-defined]
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except json.JSONDecodeError:
        return status, text


def metric(process: ServiceProcess, name: str, **labels: str) -> float:
    """Sum of a metric's samples that carry the labels; 0 if there are none."""
    _, text = http(process, "/metrics")
    total = 0.0
    for line in str(text).splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def produce(bootstrap: str, topic: str, messages: Iterable[tuple[bytes | None, bytes | None]], **extra: Any) -> None:
    """Publish with confluent-kafka and wait for all acknowledgements."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "message.max.bytes": 9_000_000,
            "linger.ms": 5,
            "partitioner": "murmur2_random",
        }
    )
    errors: list[Any] = []
    for key, value in messages:
        while True:
            try:
                producer.produce(
                    topic,
                    key=key,
                    value=value,
                    on_delivery=lambda error, _: errors.append(error) if error else None,
                    **extra,
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    assert not errors, errors[:3]


def asked_again(ask: Callable[[], Answer], seconds: float = 30.0) -> Answer:
    """What Kafka answers, asked again while it fails: a topic or group just made has no leader or coordinator yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def partitions_of(client: Consumer | AdminClient, topic: str) -> list[int]:
    """Numbers of the topic's partitions. A broker that a test has just woken may close the first connection to it."""
    return list(asked_again(lambda: client.list_topics(topic, timeout=10)).topics[topic].partitions)


def end_offsets(bootstrap: str, topic: str) -> int:
    """Sum of the offsets after the last record of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test-ends"})
    try:
        places = [TopicPartition(topic, p) for p in partitions_of(consumer, topic)]
        return asked_again(lambda: sum(consumer.get_watermark_offsets(at, timeout=10)[1] for at in places))
    finally:
        consumer.close()


def read_all(bootstrap: str, topic: str, at_least: int = 0, seconds: float = 30.0) -> list[Message]:
    """All records of a topic from its beginning to its present end, once there are `at_least` many."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test-reader", "enable.auto.commit": False})
    try:
        deadline = time.monotonic() + seconds
        while True:
            partitions = partitions_of(consumer, topic)
            ends = asked_again(
                lambda found=partitions: {
                    p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in found
                }
            )
            if sum(ends.values()) >= at_least:
                break
            assert time.monotonic() < deadline, (
                f"{topic} has {sum(ends.values())} records, not {at_least}, after {seconds} s"
            )
            time.sleep(0.1)
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        found: list[Message] = []
        while any(end > 0 for end in ends.values()):
            messages = consumer.consume(1000, timeout=1.0)
            for message in messages:
                assert message.error() is None, message.error()
                if message.offset() < ends[message.partition()]:
                    found.append(message)
            positions = {
                tp.partition: tp.offset for tp in consumer.position([TopicPartition(topic, p) for p in partitions])
            }
            if all(end == 0 or positions[p] >= end for p, end in ends.items()):
                break
        return found
    finally:
        consumer.close()


def committed_lag(bootstrap: str, group: str, topic: str) -> int:
    """Records of the topic that the group has not committed."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        partitions = [TopicPartition(topic, p) for p in partitions_of(consumer, topic)]
        return asked_again(
            lambda: sum(
                consumer.get_watermark_offsets(at, timeout=10)[1] - max(at.offset, 0)
                for at in consumer.committed(partitions, timeout=10)
            )
        )
    finally:
        consumer.close()


def forget_groups(bootstrap: str) -> None:
    """No consumer group is left, not even one whose members were killed and whose session is not over yet.

    Otherwise the next test's first consumer waits for that session, ten seconds long. One broker.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wait_for(lambda: _forgotten(admin, bootstrap), "a coordinator of each group", 60)


def _forgotten(admin: AdminClient, bootstrap: str) -> bool:
    """Whether it could be done: a broker that has just started, or stood still, does not know its groups at once."""
    try:
        groups = admin.list_consumer_groups(request_timeout=ADMIN_SECONDS).result().valid
        names = [group.group_id for group in groups]
        found = admin.describe_consumer_groups(names, request_timeout=ADMIN_SECONDS) if names else {}
        described = {name: group.result() for name, group in found.items()}
    except KafkaException:
        return False
    if members := [(name, member.member_id) for name, group in described.items() for member in group.members]:
        asyncio.run(_leave(bootstrap, members))
    for deleted in admin.delete_consumer_groups(names, request_timeout=ADMIN_SECONDS).values() if names else ():
        deleted.exception()  # a reader of the test itself may still be leaving: its offsets are no one's concern
    return True


async def _leave(bootstrap: str, members: list[tuple[str, str]]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for group, member in members:
            await admin._send_request(LeaveGroupRequest(group, member))
    finally:
        await admin.close()


def newest_by_customer(bootstrap: str, topic: str) -> dict[str, dict[str, Any]]:
    """The message with the highest feature_version of each customer."""
    newest: dict[str, dict[str, Any]] = {}
    for record in read_all(bootstrap, topic):
        message = json.loads(record.value())
        known = newest.get(message["customer_id"])
        if known is None or message["feature_version"] >= known["feature_version"]:
            newest[message["customer_id"]] = message
    return newest
