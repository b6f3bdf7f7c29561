"""Topics as they are made: replicated as far as the cluster goes, whatever the brokers' own default is."""

import asyncio
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from deploy.local.kafka import LocalKafka
from schemas.topics import topics as declared_topics
from services.runtime.kafka import create_topics
from tests.support import wait_for

pytestmark = pytest.mark.integration


def settings_of(admin: AdminClient, topic: str) -> dict[str, Any]:
    """Of a topic. The broker that is asked may be another than the one that has told of it, and not have heard yet."""
    found: dict[str, Any] = {}

    def told() -> bool:
        (config,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        try:
            found.update(config.result())
        except KafkaException as refusal:
            if refusal.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            return False
        return True

    wait_for(told, f"the broker that is asked to hear of {topic}")
    return found


@pytest.mark.parametrize(
    ("brokers", "replicas", "in_sync"), [(1, 1, "1"), pytest.param(3, 3, "2", marks=pytest.mark.long)]
)
def test_any_one_broker_can_be_lost_where_there_are_three(brokers: int, replicas: int, in_sync: str):
    careless = {"default.replication.factor": "1", "min.insync.replicas": "1"}
    with LocalKafka(brokers=brokers, heap_mb=256, settings=careless) as kafka:
        names = asyncio.run(create_topics(kafka.bootstrap_servers, declared_topics().values()))
        assert len(names) == len(declared_topics())
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        found: dict[str, Any] = {}

        def all_told() -> bool:
            """One answer has them all: each comes from any broker, and not all of them have heard at once."""
            found.update(admin.list_topics(timeout=10).topics)
            return set(names) <= found.keys()

        wait_for(all_told, "brokers to hear of the topics")
        for name in names:
            assert {len(each.replicas) for each in found[name].partitions.values()} == {replicas}
            assert settings_of(admin, name)["min.insync.replicas"].value == in_sync
