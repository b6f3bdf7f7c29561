"""The population's ranking, shared between scorers: own partitions are sketched and published, the others' are read.

The board is plain state without IO; reading the topic is `follow`. Must never mix sketches of two models.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.segment_thresholds import PopulationSketch, decode_sketch
from schemas.topics import SEGMENT_THRESHOLDS
from services.inference.ranking import Ranking, customers_in, merged_ranking
from services.runtime.logs import logger

log = logger(__name__)


class Board:
    """The newest sketch of each partition, as last read from the topic."""

    def __init__(self) -> None:
        self._sketches: dict[int, PopulationSketch] = {}
        self.changes = 0
        """Grows with each sketch that came."""

    def take_in(self, value: bytes | None) -> None:
        """A record of the topic. Raises ValueError if it holds no sketch."""
        if value is None:
            return
        message = decode_sketch(value)
        if customers_in(message.sketch) != message.customers:
            raise ValueError(f"the sketch of partition {message.partition} does not hold {message.customers} customers")
        self._sketches[message.partition] = message
        self.changes += 1

    def ranking(
        self, own: Mapping[int, PopulationSketch], model_version: str, customers_min: int
    ) -> tuple[Ranking | None, int]:
        """The live ranking, or None while fewer than customers_min are known; and how many customers there are.

        own: sketches of the partitions that this scorer holds, newer than the topic's. Only this model's count.
        """
        sketches = [each for each in {**self._sketches, **own}.values() if each.model_version == model_version]
        customers = sum(each.customers for each in sketches)
        if customers < customers_min:
            return None, customers
        return merged_ranking(each.sketch for each in sketches), customers


async def follow(consumer: AIOKafkaConsumer, board: Board, reached_end: Callable[[], None]) -> None:
    """Read the sketches of all scorers from the beginning and go on for ever. consumer: started, without a group.

    reached_end: called once, when everything that was there at the start has been read.
    """
    sources = [TopicPartition(SEGMENT_THRESHOLDS, 0)]
    consumer.assign(sources)
    ends = await consumer.end_offsets(sources)
    await consumer.seek_to_beginning(*sources)
    behind = True
    while True:
        if behind and all([await consumer.position(source) >= ends[source] for source in sources]):
            behind = False
            reached_end()
        for records in (await consumer.getmany(timeout_ms=500)).values():
            for record in records:
                try:
                    board.take_in(record.value)
                except (msgspec.DecodeError, RecursionError, ValueError) as error:
                    log.warning("foreign_sketch_ignored", problem=str(error), offset=record.offset)
        await asyncio.sleep(0)
