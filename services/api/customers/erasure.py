"""DELETE /v1/customers/{customer_id}: asks for a customer to be forgotten, as an upstream team would.

Must never answer 202 before Kafka has acknowledged the event.
"""

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime
from http import HTTPStatus

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import ValidationError

from schemas.customer_events import CustomerErasedEvent, erased_event
from schemas.http_api.live import Erasure
from services.api import examples
from services.api.answers import CustomerPath, json_answer
from services.runtime.erasing import publish_erased
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.problems import Refused, responses
from services.runtime.http.request_ids import request_id_of
from services.runtime.kafka import new_producer
from services.runtime.logs import logger

_CLOSE_SECONDS = 2.0
_RETRY_AFTER = {"Retry-After": "1"}
log = logger(__name__)


class Eraser:
    """Publishes erasures. Its producer begins with the first one, and is made anew after a failure."""

    def __init__(self, bootstrap_servers: str, timeout_seconds: float) -> None:
        self._bootstrap_servers, self._timeout_seconds = bootstrap_servers, timeout_seconds
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def publish(self, event: CustomerErasedEvent) -> None:
        """Returns once Kafka has acknowledged. Raises Refused (503) otherwise; it may have taken the event then."""
        producer = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                producer = await self._started()
                await publish_erased(producer, event)
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning("kafka_did_not_acknowledge", problem=repr(error))
            if producer is not None:
                await self._drop(producer)
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"Kafka did not acknowledge within {self._timeout_seconds:g} s: send it again, a repeat is harmless",
                headers=_RETRY_AFTER,
            ) from None

    async def close(self) -> None:
        """Let go of Kafka."""
        if self._producer is not None:
            await self._drop(self._producer)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = new_producer(self._bootstrap_servers, "clv-api")
                try:
                    await producer.start()
                except BaseException:
                    await _stop(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
        await _stop(producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    """Close it in bounded time. One that waits for an absent broker goes on closing by itself."""
    closing = asyncio.ensure_future(producer.stop())
    closing.add_done_callback(lambda done: done.cancelled() or done.exception())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)


def erasure_router(eraser: Eraser) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1/customers", tags=["customers"], dependencies=[Depends(requires(Scope.ERASE))])

    @router.delete(
        "/{customer_id:path}",
        summary="Have a customer forgotten everywhere",
        status_code=202,
        response_model=Erasure,
        responses=examples.example(examples.ERASURE, 202) | responses(401, 403, 422, 429, 503),
    )
    async def erase(customer_id: CustomerPath, request: Request) -> Response:
        """Also for a customer who is not known (yet): events may be on their way."""
        try:
            event = erased_event(
                customer_id, event_id=f"erase-{uuid.uuid4()}", occurred_at=datetime.now(UTC), source="api"
            )
        except ValidationError as error:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"customer_id cannot be used: {error.errors()[0]['msg']}"
            ) from None
        await eraser.publish(event)
        return json_answer(
            Erasure(
                customer_id=customer_id,
                event_id=event.event_id,
                request_id=request_id_of(request),
                detail="Kafka has taken customer.erased. The services forget the customer within seconds; "
                "`./clv erase --customer` waits until every place has",
            ),
            HTTPStatus.ACCEPTED,
        )

    return router
