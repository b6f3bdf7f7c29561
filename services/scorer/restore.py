"""Reading a partition of the predictions topic back into a population, when the partition is assigned.

Must never join a group or commit: it reads what this service wrote, bounded by the end of the partition at the start.
"""

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from schemas.predictions import decode_prediction_head, features_offset
from schemas.topics import PREDICTIONS
from services.runtime.kafka import new_consumer
from services.runtime.logs import logger
from services.scorer.population import Population

log = logger(__name__)


async def restore(
    bootstrap_servers: str, partition: int, population: Population, from_offset: int
) -> tuple[Population, int]:
    """Bring the population up to date with the partition; returns it and the offset to go on from another time.

    from_offset: the population holds everything before it. If the topic is shorter than that, it was made anew, and so
    is the population.
    """
    source = TopicPartition(PREDICTIONS, partition)
    consumer = new_consumer(bootstrap_servers, f"clv-scorer-restore-{partition}", None)
    await consumer.start()
    try:
        consumer.assign([source])
        end: int = (await consumer.end_offsets([source]))[source]
        if from_offset > end:
            log.warning("predictions_topic_is_new", partition=partition, end=end, known=from_offset)
            population, from_offset = Population(), 0
        if from_offset:
            consumer.seek(source, from_offset)
        else:
            await consumer.seek_to_beginning(source)
        while end and await consumer.position(source) < end:
            for record in (await consumer.getmany(timeout_ms=500)).get(source, ()):
                _take_in(population, record)
        log.info("restored", partition=partition, customers=len(population), from_offset=from_offset, end=end)
        return population, end
    finally:
        await consumer.stop()


def _take_in(population: Population, record: ConsumerRecord) -> None:
    try:
        if record.value is None:
            population.forget((record.key or b"").decode())
            return
        head = decode_prediction_head(record.value)
        population.record(
            head.customer_id,
            feature_version=head.feature_version,
            expected_value=None if head.historical_value is None else head.expected_value,
            segment=head.segment,
            previous_segment=head.previous_segment,
            model_version=head.model_version,
            features_offset=features_offset(record.headers),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        log.warning("foreign_prediction_ignored", problem=str(error))
