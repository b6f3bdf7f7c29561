"""How far each service is behind, from Kafka itself: the end of its topic less what its group has committed.

Reads only. Must never join a group.
"""

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from schemas.topics import CUSTOMER_EVENTS, CUSTOMER_FEATURES, ORDERS, PREDICTIONS, topics

GROUPS = {
    "ingest": ("clv-ingest", CUSTOMER_EVENTS),
    "features": ("clv-features", ORDERS),
    "scorer": ("clv-scorer", CUSTOMER_FEATURES),
    "sink": ("clv-sink", PREDICTIONS),
}
"""Service → consumer group and topic, in the order of the line."""

PARTITIONS = {topic.name: topic.partitions for topic in topics().values()}


class LagReader:
    """Reads lags with one connection. `async with` it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)

    async def __aenter__(self) -> "LagReader":
        try:
            await self._admin.start()
            await self._consumer.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def lags(self) -> dict[str, int]:
        """Records not yet committed, by service. Read upstream first: all zero means that the line was empty.

        Raises KafkaError if a broker does not answer, or not yet.
        """
        return {service: await self._lag(group, topic) for service, (group, topic) in GROUPS.items()}

    async def ends(self, topic: str) -> dict[TopicPartition, int]:
        """Offset after the last record of each partition."""
        partitions = [TopicPartition(topic, partition) for partition in range(PARTITIONS[topic])]
        found: dict[TopicPartition, int] = await self._consumer.end_offsets(partitions)
        return found

    async def _lag(self, group: str, topic: str) -> int:
        ends = await self.ends(topic)
        committed: dict[Any, Any] = await self._admin.list_consumer_group_offsets(group, partitions=list(ends))
        if committed.keys() < ends.keys():  # the client says so, and not why, while the group moves between brokers
            raise GroupCoordinatorNotAvailableError(f"group {group} cannot be asked for now")
        return sum(max(0, end - max(0, committed[partition].offset)) for partition, end in ends.items())
