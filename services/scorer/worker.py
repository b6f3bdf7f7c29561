"""The scorer's work on Kafka: a batch of features in, acknowledged predictions out; populations and thresholds kept.

Must never publish a prediction from older features after one from newer ones, nor return from a batch before all that
it caused is acknowledged.
"""

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from domain.drift import BINS_MAX
from domain.segments import Segment
from schemas.dead_letters import Reason
from schemas.predictions import PredictionToSend, encode_prediction, origin_headers
from schemas.segment_thresholds import PopulationSketch, encode_sketch
from schemas.topics import CHALLENGER_PREDICTIONS, PREDICTIONS, SEGMENT_THRESHOLDS
from services.inference.model import Model, Outcomes
from services.inference.outlook import usable
from services.inference.ranking import Ranking, bundle_ranking, sketch_of
from services.inference.thresholds import Board
from services.runtime import telemetry
from services.runtime.consume import Records
from services.runtime.dead_letter import letter_of, send_dead_letter
from services.runtime.kafka import Item, send_batches
from services.runtime.logs import logger
from services.scorer.drift import COLUMNS, OUTCOMES, with_an_order
from services.scorer.intake import Candidate, Erased, Refusal, coalesce, judge
from services.scorer.loading import Loaded
from services.scorer.population import Population
from services.scorer.restore import restore
from services.scorer.scoring import ModelFacts, Row, predictions, prepare
from services.scorer.settings import ScorerSettings
from services.scorer.shadow import Shadow

log = logger(__name__)

Floats = NDArray[np.float64]
SERVICE = "scorer"
MESSAGE_BYTES_MAX = (1 << 20) - 4096
"""Of a prediction's key and value: the broker takes batches of 1 MiB, headers of the batch included."""


class Serving(NamedTuple):
    """What predictions are made with; replaced as a whole, between batches."""

    loaded: Loaded
    ranking: Ranking

    @property
    def model(self) -> Model:
        """The champion."""
        return self.loaded.model


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


class Scorer:
    """One scorer process's state. All methods run in one event loop; `process` is never entered twice at a time."""

    def __init__(
        self, settings: ScorerSettings, loaded: Loaded, producer: AIOKafkaProducer, shadow_producer: AIOKafkaProducer
    ) -> None:
        """loaded: the champion. Started producers: for what matters, and for what the challenger says."""
        self._settings = settings
        self._producer = producer
        self._shadow_producer = shadow_producer
        self.shadow = Shadow(shadow_producer, settings.scorer_challenger_share)
        self._partitions: dict[int, Partition] = {}
        self._serving = Serving(loaded, _own_ranking(loaded.model))
        self._ranked_at: object = None
        """What the ranking was last made from; None when that is no longer what is known."""
        self._refreshing = asyncio.Lock()
        self._restoring_failed: asyncio.Queue[KafkaError] = asyncio.Queue()
        self.board = Board()
        self.sketches_read = asyncio.Event()
        self.assigned = False
        """Whether the group has assigned partitions (perhaps none) at least once."""
        telemetry.MODEL_INFO.set(1, model_version=self.model.version)
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
        try:
            held.population, held.next_offset = await restore(
                self._settings.kafka_bootstrap_servers, number, held.population, held.next_offset
            )
        except KafkaError as error:
            self._restoring_failed.put_nowait(error)
            raise
        self._ranked_at = None

    async def watch_restoring(self) -> None:
        """Wait for ever; raise the KafkaError of a partition that could not be restored."""
        raise await self._restoring_failed.get()

    # ------------------------------------------------------------ a batch

    async def process(self, records: Records) -> None:
        """Score a batch: returns when its predictions and dead letters are acknowledged."""
        await self.sketches_read.wait()
        for source in records:
            restoring = self._hold(source.partition).restoring
            if restoring is not None:
                await restoring
        if self._ranked_at is None:
            await self.refresh_thresholds()
        refused: list[tuple[ConsumerRecord, Refusal]] = []
        outputs: dict[int, list[Item]] = {}
        to_score: list[Candidate] = []
        for source, batch in records.items():
            entries = self._take_in(batch, refused)
            # Forgotten first: who comes back after an erasure has no earlier prediction.
            outputs[source.partition] = self._forget(
                source.partition, [each for each in entries if isinstance(each, Erased)]
            )
            to_score += self._newer(source.partition, [each for each in entries if isinstance(each, Candidate)])
        made, failed = await self._score(to_score)
        if failed:
            place = {(source.partition, record.offset): record for source in records for record in records[source]}
            refused += [(place[candidate.partition, candidate.offset], why) for candidate, why in failed]
        for candidate, value in made:
            outputs[candidate.partition].append(
                (candidate.view.customer_id.encode(), value, candidate.timestamp_ms, origin_headers(candidate.offset))
            )
        await self._send(outputs, refused)
        now_ms = time.time() * 1000
        for candidate, _ in made:
            telemetry.PREDICTION_LATENCY.observe(max(0.0, now_ms - candidate.timestamp_ms) / 1000)
        await self.shadow.score([candidate for candidate, _ in made])

    def _take_in(
        self, batch: list[ConsumerRecord], refused: list[tuple[ConsumerRecord, Refusal]]
    ) -> list[Candidate | Erased]:
        """Erasures and each customer's newest entry in a partition's records; what cannot be used goes to `refused`."""
        good: list[Candidate | Erased] = []
        for record in batch:
            verdict = judge(record, self._settings.currency)
            if isinstance(verdict, Refusal):
                refused.append((record, verdict))
            else:
                good.append(verdict)
        return coalesce(good)

    def _newer(self, partition: int, candidates: list[Candidate]) -> list[Candidate]:
        """Without those whose customer has a prediction from newer features: compaction would keep the older.

        Nor those that have been predicted already, from this very record: it came again, and would get a second
        prediction if the model is another by now.
        """
        population = self._partitions[partition].population
        found = []
        for candidate in candidates:
            last = population.last(candidate.view.customer_id)
            version = candidate.view.feature_version
            if last is None or last.feature_version < version:
                found.append(candidate)
            elif last.feature_version == version and last.features_offset < candidate.offset:
                found.append(candidate)  # emitted anew on request, as after another model was taken into use
            elif last.feature_version == version:
                telemetry.PREDICTIONS_KNOWN.inc()
        return found

    def _forget(self, partition: int, erased: list[Erased]) -> list[Item]:
        for entry in erased:
            self._partitions[partition].population.forget(entry.customer_id)
        return [(entry.customer_id.encode(), None, entry.timestamp_ms, list(entry.headers)) for entry in erased]

    async def _score(
        self, candidates: list[Candidate]
    ) -> tuple[list[tuple[Candidate, bytes]], list[tuple[Candidate, Refusal]]]:
        """Encoded predictions of the candidates, recorded in their populations; and those that have none."""
        serving = self._serving
        made: list[tuple[Candidate, bytes]] = []
        failed: list[tuple[Candidate, Refusal]] = []
        step = self._settings.scorer_batch_rows
        for first in range(0, len(candidates), step):
            await self._score_step(serving, candidates[first : first + step], made, failed)
        return made, failed

    async def _score_step(
        self,
        serving: Serving,
        candidates: list[Candidate],
        made: list[tuple[Candidate, bytes]],
        failed: list[tuple[Candidate, Refusal]],
    ) -> None:
        model = serving.model
        facts = ModelFacts(model.version, model.metadata.horizon_days, model.metadata.currency)
        rows, matrix = prepare(candidates, model.metadata.quintiles)
        outcomes = await self._predict(model, matrix)
        good = usable(outcomes)
        if not good.all():
            failed += [(row.candidate, _NO_OUTCOME) for row, fine in zip(rows, good, strict=True) if not fine]
            rows = [row for row, fine in zip(rows, good, strict=True) if fine]
            matrix, outcomes = matrix[good], Outcomes(*(column[good] for column in outcomes))
        previous = [self._previous(row) for row in rows]
        found = predictions(rows, matrix, outcomes, previous, ranking=serving.ranking, model=facts)
        places: list[int | None] = []
        """Each customer's row in the population, None for those that got no prediction."""
        for row, prediction in zip(rows, found, strict=True):
            value = encode_prediction(prediction)
            if len(value) > MESSAGE_BYTES_MAX:
                failed.append((row.candidate, _TOO_LARGE))
                places.append(None)
                continue
            made.append((row.candidate, value))
            places.append(self._record(row.candidate, prediction))
        self._keep_bins(serving.loaded, rows, places, matrix, outcomes)
        segments = Counter(prediction.segment for prediction in found)
        for segment, count in segments.items():
            telemetry.PREDICTIONS_PUBLISHED.inc(count, segment=segment)

    async def _predict(self, model: Model, matrix: Floats) -> Outcomes:
        began = time.perf_counter()
        outcomes = await asyncio.to_thread(model.predict, matrix)  # heartbeats and fetching go on meanwhile
        telemetry.MODEL_SECONDS.observe(time.perf_counter() - began)
        return outcomes

    def _previous(self, row: Row) -> Segment | None:
        """Segment of the customer's last prediction by older features. The same when the same features come again."""
        view = row.candidate.view
        last = self._partitions[row.candidate.partition].population.last(view.customer_id)
        if last is None:
            return None
        return last.previous_segment if last.feature_version == view.feature_version else last.segment

    def _record(self, candidate: Candidate, prediction: PredictionToSend) -> int | None:
        return self._partitions[candidate.partition].population.record(
            prediction.customer_id,
            feature_version=prediction.feature_version,
            expected_value=None if prediction.historical_value is None else prediction.expected_value,
            segment=prediction.segment,
            previous_segment=prediction.previous_segment,
            model_version=prediction.model_version,
            features_offset=candidate.offset,
        )

    def _keep_bins(
        self, loaded: Loaded, rows: list[Row], places: list[int | None], matrix: Floats, outcomes: Outcomes
    ) -> None:
        """Note which bins the customers fall into, to see drift by."""
        bins, counted, now = loaded.references.bins(matrix, outcomes), with_an_order(matrix), time.monotonic()
        by_partition: dict[int, list[int]] = {}
        for at, (row, place) in enumerate(zip(rows, places, strict=True)):
            if place is not None and counted[at]:
                by_partition.setdefault(row.candidate.partition, []).append(at)
        for partition, chosen in by_partition.items():
            kept = [place for at in chosen if (place := places[at]) is not None]
            self._partitions[partition].population.window.put(kept, bins[chosen], now, loaded.model.version)

    async def _send(self, outputs: dict[int, list[Item]], refused: list[tuple[ConsumerRecord, Refusal]]) -> None:
        """Send everything; returns when all of it is acknowledged. Whom a tombstone takes back has no challenger's
        prediction either, whether or not there is a challenger now.
        """
        letters = [
            await send_dead_letter(self._producer, letter_of(record, why.reason, why.detail, SERVICE))
            for record, why in refused
        ]
        acknowledged = [
            (partition, future)
            for partition, items in outputs.items()
            for future in await send_batches(self._producer, PREDICTIONS, partition, items)
        ]
        forgotten = [
            future
            for partition, items in outputs.items()
            for future in await send_batches(
                self._shadow_producer, CHALLENGER_PREDICTIONS, partition, [item for item in items if item[1] is None]
            )
        ]
        for partition, future in acknowledged:
            self._partitions[partition].next_offset = (await future).offset  # type: ignore[attr-defined]
        await asyncio.gather(*letters, *forgotten)

    # ------------------------------------------------------------ model and thresholds

    @property
    def model(self) -> Model:
        """The model in use."""
        return self._serving.model

    def swap(self, loaded: Loaded) -> None:
        """Use another model from the next batch on. Its own thresholds stand until enough customers are rescored."""
        telemetry.MODEL_INFO.set(0, model_version=self.model.version)
        telemetry.MODEL_INFO.set(1, model_version=loaded.model.version)
        telemetry.MODEL_SWAPS.inc()
        self._serving = Serving(loaded, _own_ranking(loaded.model))
        self._ranked_at = None
        self._show_thresholds()

    async def show_drift(self) -> None:
        """Compare the customers scored lately with the training population, and show how far apart they are."""
        references, model = self._serving.loaded.references, self.model
        since = time.monotonic() - 3600 * self._settings.scorer_drift_window_hours
        windows = [held.population.window for held in self._partitions.values() if held.ready]
        counts = await asyncio.to_thread(lambda: [window.counts(since, model.version) for window in windows])
        total = sum(counts, np.zeros((len(COLUMNS), BINS_MAX), dtype=np.int64))
        customers = int(total[0].sum())
        telemetry.DRIFT_CUSTOMERS.set(customers)
        enough = customers >= self._settings.scorer_drift_min_customers
        found = references.indices(total) if enough else {}
        for name in COLUMNS:
            value = found.get(name, math.nan)
            if name in OUTCOMES:
                telemetry.PREDICTION_DRIFT.set(value, outcome=name)
            else:
                telemetry.DRIFT.set(value, feature=name)

    async def refresh_thresholds(self) -> None:
        """Publish the sketches of partitions that changed, and rank by the whole population's from now on."""
        async with self._refreshing:
            await self._refresh()

    async def _refresh(self) -> None:
        model = self.model
        held = {number: each for number, each in self._partitions.items() if each.ready}
        for number, each in held.items():
            await self._sketch(number, each, model.version)
        ranked_at = (self.board.changes, [each.sketched_at for each in held.values()], list(held))
        if self.model is not model or ranked_at == self._ranked_at:
            return
        own = {number: each.sketch for number, each in held.items() if each.sketch is not None}
        live, customers = self.board.ranking(own, model.version, self._settings.scorer_min_population)
        scored = sum(sketch.customers for sketch in own.values())
        buyers = sum(each.population.buyers for each in held.values())
        if live is None or scored < buyers * self._settings.scorer_min_population_share:
            live = _own_ranking(model)
        self._serving, self._ranked_at = Serving(self._serving.loaded, live), ranked_at
        telemetry.POPULATION.set(customers)
        self._show_thresholds()

    async def _sketch(self, number: int, held: Partition, model_version: str) -> None:
        state = (held.population.changes, model_version)
        if state == held.sketched_at:
            return
        values = held.population.values(model_version)
        message = PopulationSketch(
            partition=number,
            model_version=model_version,
            customers=len(values),
            made_at_ms=time.time_ns() // 1_000_000,
            sketch=await asyncio.to_thread(sketch_of, values),
        )
        if held.restoring is None:
            return  # revoked meanwhile: the new owner's sketch must be the last
        await self._producer.send_and_wait(
            SEGMENT_THRESHOLDS, key=str(number).encode(), value=encode_sketch(message), partition=0
        )
        held.sketch, held.sketched_at = message, state

    def _show_thresholds(self) -> None:
        for percentile, value in zip((25, 50, 75), self._serving.ranking.thresholds, strict=True):
            telemetry.SEGMENT_THRESHOLD.set(value, percentile=str(percentile))


_NO_OUTCOME = Refusal(Reason.INVALID_FIELD, "the model gives no finite prediction for these features")
_TOO_LARGE = Refusal(Reason.MESSAGE_TOO_LARGE, f"the prediction would be larger than {MESSAGE_BYTES_MAX} bytes")


def _own_ranking(model: Model) -> Ranking:
    return bundle_ranking(model.thresholds, model.metadata.value_quantiles)
