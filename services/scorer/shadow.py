"""The challenger: a model on trial that predicts for the customers the champion has just scored, for comparison alone.

Whatever happens to it, the champion goes on: it works after the champion's predictions are acknowledged, within a share
of the time; a failure sets it aside until there is another. Its predictions go to a topic of their own and may be left
out, by a crash too; they are never out of order. Must never raise for what the challenger does.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.predictions import encode_prediction, origin_headers
from schemas.topics import CHALLENGER_PREDICTIONS
from services.inference.model import Model, Outcomes
from services.inference.outlook import usable
from services.inference.ranking import Ranking, bundle_ranking
from services.runtime import telemetry
from services.runtime.kafka import Item, send_batches
from services.runtime.logs import logger
from services.scorer.allowance import Allowance
from services.scorer.intake import Candidate
from services.scorer.scoring import ModelFacts, predictions, prepare

log = logger(__name__)

CALL_SECONDS_MAX = 2.0
"""A model that takes longer for a few rows is set aside: its thread cannot be stopped."""
FIRST_ROWS = 32
"""Of the first call, from which the time of a row is learnt."""
ROWS_MAX = 1024
SEND_SECONDS_MAX = 1.0
UNACKNOWLEDGED_MAX = 16
"""Batches under way; beyond it predictions are left out until Kafka has caught up."""
MESSAGE_BYTES_MAX = (1 << 20) - 4096


class Shadow:
    """The challenger's side of one scorer. All methods run in one event loop."""

    def __init__(
        self, producer: AIOKafkaProducer, share: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """producer: of its own, so that a failure of this topic is none of the predictions'. share: of all time."""
        self._producer = producer
        self._clock = clock
        self._allowance = Allowance(share, clock())
        self._model: Model | None = None
        self._ranking: Ranking | None = None
        self._row_seconds: float | None = None
        self._aside = False
        self._sending_failed = False
        self._unacknowledged: set[asyncio.Future[object]] = set()

    @property
    def model(self) -> Model | None:
        """The model on trial."""
        return self._model

    def swap(self, model: Model | None) -> None:
        """Put another model on trial, or none."""
        if self._model is not None:
            telemetry.CHALLENGER_INFO.set(0, model_version=self._model.version)
        if model is not None:
            telemetry.CHALLENGER_INFO.set(1, model_version=model.version)
        self._model, self._aside, self._row_seconds = model, False, None
        self._ranking = None if model is None else bundle_ranking(model.thresholds, model.metadata.value_quantiles)

    async def score(self, candidates: Sequence[Candidate]) -> None:
        """Predict for as many of the candidates as the time allows. Returns before Kafka has acknowledged."""
        model = self._model
        done = 0
        while model is not None and done < len(candidates):
            left = candidates[done:]
            if (reason := self._hindrance()) is not None:
                telemetry.CHALLENGER_SKIPPED.inc(len(left), reason=reason)
                return
            chunk = left[: self._rows_now()]
            began = self._clock()
            try:
                await self._send(await self._predict(model, chunk))
            except Exception as error:  # noqa: BLE001 - whatever a model does must not reach the champion
                self._aside = True
                telemetry.CHALLENGER_FAILURES.inc(reason="model")
                telemetry.CHALLENGER_SKIPPED.inc(len(chunk), reason="aside")
                log.error("challenger_set_aside", model_version=model.version, problem=repr(error)[:300])
            took = self._clock() - began
            self._allowance.spend(took)
            each = took / len(chunk)
            self._row_seconds = each if self._row_seconds is None else max(each, 0.8 * self._row_seconds)
            done += len(chunk)

    def _hindrance(self) -> str | None:
        if self._aside:
            return "aside"
        if len(self._unacknowledged) >= UNACKNOWLEDGED_MAX:
            return "backlog"
        return None if self._allowance.left(self._clock()) > 0 else "time"

    def _rows_now(self) -> int:
        if self._row_seconds is None:
            return FIRST_ROWS
        fitting = self._allowance.left(self._clock()) / max(self._row_seconds, 1e-7)
        return max(1, min(ROWS_MAX, int(fitting)))

    async def _predict(self, model: Model, candidates: Sequence[Candidate]) -> dict[int, list[Item]]:
        """Messages by partition. Raises whatever the model does, and TimeoutError."""
        assert self._ranking is not None
        rows, matrix = prepare(candidates, model.metadata.quintiles)
        outcomes = await asyncio.wait_for(_in_thread(lambda: model.predict(matrix)), CALL_SECONDS_MAX)
        good = usable(outcomes)
        chosen = [row for row, fine in zip(rows, good, strict=True) if fine]
        kept = Outcomes(*(column[good] for column in outcomes))
        facts = ModelFacts(model.version, model.metadata.horizon_days, model.metadata.currency)
        made = predictions(chosen, matrix[good], kept, [None] * len(chosen), ranking=self._ranking, model=facts)
        refused = int(np.count_nonzero(~good))
        items: dict[int, list[Item]] = {}
        for row, prediction in zip(chosen, made, strict=True):
            candidate, value = row.candidate, encode_prediction(prediction)
            if len(value) > MESSAGE_BYTES_MAX:
                refused += 1
                continue
            item = (prediction.customer_id.encode(), value, candidate.timestamp_ms, origin_headers(candidate.offset))
            items.setdefault(candidate.partition, []).append(item)
        if refused:
            telemetry.CHALLENGER_SKIPPED.inc(refused, reason="refused")
        return items

    async def _send(self, items: dict[int, list[Item]]) -> None:
        for partition, batch in items.items():
            try:
                sending = send_batches(self._producer, CHALLENGER_PREDICTIONS, partition, batch)
                futures = await asyncio.wait_for(sending, SEND_SECONDS_MAX)
            except (KafkaError, TimeoutError) as error:
                self._sending_has_failed(error)
                continue
            share = len(batch) / max(1, len(futures))
            for future in futures:
                self._unacknowledged.add(future)
                future.add_done_callback(partial(self._acknowledged, share))

    def _acknowledged(self, messages: float, future: "asyncio.Future[object]") -> None:
        self._unacknowledged.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._sending_failed = False
            telemetry.CHALLENGER_PUBLISHED.inc(messages)
        else:
            self._sending_has_failed(error)

    def _sending_has_failed(self, error: BaseException) -> None:
        telemetry.CHALLENGER_FAILURES.inc(reason="kafka")
        if not self._sending_failed:
            log.error("challenger_not_sent", problem=repr(error)[:300])
        self._sending_failed = True


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Do the work in a thread that the process does not wait for at its end, should it never come back."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def tell(found: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def run() -> None:
        found, problem = None, None
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            problem = error
        try:
            loop.call_soon_threadsafe(tell, found, problem)
        except RuntimeError:
            return  # the loop has ended meanwhile

    threading.Thread(target=run, name="clv-challenger", daemon=True).start()
    return await answer
