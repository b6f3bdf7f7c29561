"""The scorer's work on Kafka: a batch of features in, acknowledged predictions out; populations and thresholds kept.

Must never publish a prediction from older features after one from newer ones, nor return from a batch before all that
it caused is acknowledged.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from domain.segments import Segment
from schemas.dead_letters import DeadLetter, Origin, Reason
from schemas.predictions import PredictionToSend, encode_prediction
from schemas.segment_thresholds import PopulationSketch, encode_sketch
from schemas.topics import PREDICTIONS, SEGMENT_THRESHOLDS
from services.runtime import telemetry
from services.runtime.consume import Records
from services.runtime.dead_letter import send_dead_letter
from services.runtime.kafka import Item, send_batches
from services.runtime.logs import logger
from services.scorer.intake import Candidate, Erased, Refusal, coalesce, judge
from services.scorer.model import Model, Outcomes
from services.scorer.population import Population
from services.scorer.ranking import Ranking, bundle_ranking, sketch_of
from services.scorer.restore import restore
from services.scorer.scoring import ModelFacts, Row, predictions, prepare, usable
from services.scorer.settings import ScorerSettings
from services.scorer.thresholds import Board

log = logger(__name__)

SERVICE = "scorer"
MESSAGE_BYTES_MAX = (1 << 20) - 4096
"""Of a prediction's key and value: the broker takes batches of 1 MiB, headers of the batch included."""


class Serving(NamedTuple):
    """What predictions are made with; replaced as a whole, between batches."""

    model: Model
    ranking: Ranking


@dataclass
class Partition:
    """A partition that this scorer has held, and perhaps holds."""

    population: Population = field(default_factory=Population)
    next_offset: int = 0
    """The population holds all predictions before this offset of the predictions topic."""
    restoring: asyncio.Task[None] | None = None
    """Set while the partition is held; done once the population is up to date."""
    sketch: PopulationSketch | None = None
    sketched_at: tuple[int, str] = (-1, "")
    """Changes of the population and model that `sketch` was made from."""

    @property
    def ready(self) -> bool:
        return self.restoring is not None and self.restoring.done() and not self.restoring.cancelled()


class Share(NamedTuple):
    """What one partition of a batch comes to."""

    partition: int
    population: Population
    erased: list[Erased]
    to_score: list[Candidate]


class Scorer:
    """One scorer process's state. All methods run in one event loop; `process` is never entered twice at a time."""

    def __init__(self, settings: ScorerSettings, model: Model, producer: AIOKafkaProducer) -> None:
        self._settings = settings
        self._producer = producer
        self._partitions: dict[int, Partition] = {}
        self._serving = Serving(model, _own_ranking(model))
        self._ranked_at: object = None
        self.board = Board()
        self.sketches_read = asyncio.Event()
        self.assigned = False
        """Whether the group has assigned partitions (perhaps none) at least once."""
        telemetry.MODEL_INFO.set(1, model_version=model.version)
        self._show_thresholds()

    # ------------------------------------------------------------ partitions

    async def on_assigned(self, partitions: set[TopicPartition]) -> None:
        """Begin to restore the partitions; batches wait for it."""
        self.assigned = True
        for partition in partitions:
            self._hold(partition.partition)

    async def on_revoked(self, partitions: set[TopicPartition]) -> None:
        """Give the partitions up. Their populations stay, so that a return is only a short read."""
        for partition in partitions:
            held = self._partitions.get(partition.partition)
            if held and held.restoring:
                held.restoring.cancel()
                held.restoring = None

    def not_restored(self) -> list[int]:
        """Partitions whose population is not up to date yet."""
        return [number for number, held in self._partitions.items() if held.restoring and not held.ready]

    def _hold(self, number: int) -> Partition:
        held = self._partitions.setdefault(number, Partition())
        if held.restoring is None:
            held.restoring = asyncio.create_task(self._restore(number, held))
        return held

    async def _restore(self, number: int, held: Partition) -> None:
        held.population, held.next_offset = await restore(
            self._settings.kafka_bootstrap_servers, number, held.population, held.next_offset
        )

    # ------------------------------------------------------------ a batch

    async def process(self, records: Records) -> None:
        """Score a batch: returns when its predictions and dead letters are acknowledged."""
        await self.sketches_read.wait()
        for source in records:
            restoring = self._hold(source.partition).restoring
            if restoring is not None:
                await restoring
        sent: list[asyncio.Future[object]] = []
        origins: dict[int, ConsumerRecord] = {}
        shares = [await self._share(source, batch, sent, origins) for source, batch in records.items()]
        made = await self._score([each for share in shares for each in share.to_score], shares, origins, sent)
        sources_ms: list[int] = []
        acknowledged: list[tuple[int, asyncio.Future[object]]] = []
        for share, found in zip(shares, made, strict=True):
            items: list[Item] = [(each.customer_id.encode(), None, each.timestamp_ms, []) for each in share.erased]
            items += found
            sources_ms += [item[2] for item in found]
            futures = await send_batches(self._producer, PREDICTIONS, share.partition, items)
            acknowledged += [(share.partition, future) for future in futures]
        for number, future in acknowledged:
            metadata = await future
            self._partitions[number].next_offset = metadata.offset  # type: ignore[attr-defined]
        await asyncio.gather(*sent)
        now_ms = time.time() * 1000
        for source_ms in sources_ms:
            telemetry.PREDICTION_LATENCY.observe(max(0.0, now_ms - source_ms) / 1000)

    async def _share(
        self,
        source: TopicPartition,
        batch: list[ConsumerRecord],
        sent: list[asyncio.Future[object]],
        origins: dict[int, ConsumerRecord],
    ) -> Share:
        """Judge the records of one partition; refusals are sent off. origins: record by id() of its candidate."""
        good: list[Candidate | Erased] = []
        for record in batch:
            verdict = judge(record.key, record.value, record.timestamp, self._settings.currency)
            if isinstance(verdict, Refusal):
                sent.append(await self._refuse(record, verdict))
                continue
            good.append(verdict)
            origins[id(verdict)] = record
        population = self._partitions[source.partition].population
        erased, to_score = [], []
        for entry in coalesce(good):
            if isinstance(entry, Erased):
                population.forget(entry.customer_id)
                erased.append(entry)
                continue
            last = population.last(entry.view.customer_id)
            if last is None or last.feature_version <= entry.view.feature_version:
                to_score.append(entry)
        return Share(source.partition, population, erased, to_score)
