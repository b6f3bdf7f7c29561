"""`./clv erase`: asks for a customer to be forgotten, and waits until every place that can forget has done so.

Publishes `customer.erased` like any upstream team; the services do the work. Must never report a place as empty that it
could not look into, and never wait for ever.
"""

import asyncio
import logging
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import typer
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from motor.motor_asyncio import AsyncIOMotorDatabase
from pydantic import ValidationError

from cli.customer_data import (
    PLACE_OF_TOPIC,
    Bootstrap,
    Customer,
    MongoDatabase,
    MongoUri,
    Servers,
    documents_of,
    letter_in,
    mongo,
    places_line,
    record_holds,
)
from cli.reading import CLIENT_ID, present_ends, records_until, topics_reader
from schemas.customer_events import CustomerErasedEvent, erased_event
from schemas.mongo import CUSTOMER_STATES, ERASURES, erasure_id
from schemas.personal_data import PLACES, Find, Goes, Place, collection_places
from schemas.tombstones import Cause, cause_of
from schemas.topics import PREDICTIONS
from services.runtime.erasing import publish_erased
from services.runtime.kafka import new_producer, wait_for_kafka
from services.runtime.shutdown import KnownProblem
from services.sink.letters import CLOCK_SKEW
from services.sink.states import state_key

_PAUSE_SECONDS = 0.2


class Outcome(NamedTuple):
    """What became of an erasure."""

    event_id: str
    still: list[str]
    """What still holds the customer, or is still to happen; empty once it is done."""
    seconds: float


def erase_customer(
    customer: Customer,
    event_id: Annotated[
        str | None, typer.Option("--event-id", help="Id of the event; made up if left out. A repeat changes nothing.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until no place holds the customer.")] = True,
    timeout_seconds: Annotated[float, typer.Option("--timeout-seconds", min=1, help="How long to wait.")] = 60.0,
    bootstrap_servers: Bootstrap = "localhost:9092",
    mongo_uri: MongoUri = "mongodb://localhost:27017/?replicaSet=clv",
    mongo_database: MongoDatabase = "clv",
) -> None:
    """Have a customer forgotten everywhere, and wait until it is so."""
    event = _event(customer, event_id or f"erase-{uuid.uuid4()}")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    servers = Servers(bootstrap_servers, mongo_uri, mongo_database)
    try:
        done = asyncio.run(erase(event, servers, timeout_seconds if wait else 0))
    except KafkaError as error:
        raise KnownProblem(f"Kafka could not do it: {error}") from None
    if not wait:
        print(f"published customer.erased, event {done.event_id}")
        return
    if done.still:
        print(f"after {done.seconds:.0f} s the customer is still in {'; '.join(done.still)}", file=sys.stderr)
        raise typer.Exit(1)
    print(f"erased in {done.seconds:.1f} s; event {done.event_id}")
    expiring = [place for place in PLACES if place.goes is Goes.EXPIRES and place.gone_days]
    print(f"logs that keep single messages until they expire: {places_line(expiring)}")


def _event(customer_id: str, event_id: str) -> CustomerErasedEvent:
    try:
        return erased_event(customer_id, event_id=event_id, occurred_at=datetime.now(UTC), source="clv erase")
    except ValidationError as error:
        first = error.errors()[0]
        option = "--event-id" if first["loc"] == ("event_id",) else "--customer"
        raise typer.BadParameter(first["msg"], param_hint=option) from None


async def erase(event: CustomerErasedEvent, servers: Servers, timeout_seconds: float) -> Outcome:
    """Publish the event and, for at most timeout_seconds, wait. Raises KnownProblem if a server does not answer."""
    if not timeout_seconds:
        await _publish(event, servers.bootstrap_servers)
        return Outcome(event.event_id, [], 0.0)
    async with topics_reader(servers.bootstrap_servers, _TOPICS) as reader, mongo(servers) as database:
        await database.command("ping")  # before anything is published that could then not be waited for
        began = time.monotonic()
        arrived_at = await _publish(event, servers.bootstrap_servers)
        watch = _Watch(event, arrived_at, reader, database)
        while True:
            still = await watch.still()
            seconds = time.monotonic() - began
            if not still or seconds > timeout_seconds:
                return Outcome(event.event_id, still, seconds)
            await asyncio.sleep(_PAUSE_SECONDS)


async def _publish(event: CustomerErasedEvent, bootstrap_servers: str) -> datetime:
    """Publish customer.erased; when the broker took it."""
    await wait_for_kafka(bootstrap_servers, 0.0)
    producer = new_producer(bootstrap_servers, CLIENT_ID)
    await producer.start()
    try:
        return await publish_erased(producer, event)
    finally:
        await producer.stop()


_TOPICS = [place.name for place in PLACE_OF_TOPIC.values() if place.goes is Goes.TOMBSTONE]


class _Watch:
    """Follows the topics that can forget, and asks MongoDB, until neither holds the customer."""

    def __init__(
        self,
        event: CustomerErasedEvent,
        arrived_at: datetime,
        reader: AIOKafkaConsumer,
        database: "AsyncIOMotorDatabase[Any]",
    ) -> None:
        self._customer_id, self._arrived_at = event.customer_id, arrived_at
        occurred_at = event.occurred_at
        self._occurred_at = occurred_at.replace(microsecond=occurred_at.microsecond // 1000 * 1000)
        self._reader, self._database = reader, database
        self._held: dict[str, set[bytes | None]] = {name: set() for name in _TOPICS}
        self._passed_on = False
        self._begun = False

    async def still(self) -> list[str]:
        """What still holds the customer, or is still to happen. Reads what has come since the last call."""
        ends = await present_ends(self._reader)
        async for record in records_until(self._reader, ends, from_beginning=not self._begun):
            self._take(record)
        self._begun = True
        found = [f"{name} ({len(keys)})" for name, keys in self._held.items() if keys]
        if not self._passed_on:  # until then, what was published before may still be on its way
            found.append(f"(no tombstone has come to {PREDICTIONS} yet: do all services run?)")
        return found + await self._still_in_mongo()

    def _take(self, record: ConsumerRecord) -> None:
        held = self._held[record.topic]
        held.discard(record.key)
        if record.value is None:
            self._passed_on = self._passed_on or self._is_ours(record)
        elif record_holds(self._customer_id, record) and not self._is_new_letter(record):
            held.add(record.key)

    def _is_ours(self, record: ConsumerRecord) -> bool:
        """Whether the tombstone is of this erasure or a later one: it carries the time of the event."""
        return (
            record.topic == PREDICTIONS
            and record.key == self._customer_id.encode()
            and cause_of(record.headers) is Cause.ERASED
            and datetime.fromtimestamp(record.timestamp / 1000, UTC) >= self._arrived_at
        )

    def _is_new_letter(self, record: ConsumerRecord) -> bool:
        """A letter of what arrived after the erasure is not concerned."""
        if PLACE_OF_TOPIC[record.topic].find is not Find.LETTER:
            return False
        letter = letter_in(record)
        arrived_ms = 0 if letter is None else letter.arrived_at_ms or letter.rejected_at_ms
        return arrived_ms > (self._arrived_at + CLOCK_SKEW).timestamp() * 1000

    async def _still_in_mongo(self) -> list[str]:
        found = []
        for place in collection_places():
            count = 0
            async for document in documents_of(self._database, place, self._customer_id):
                count += self._concerned(place, document)
            if count:
                found.append(f"MongoDB {place.name} ({count})")
        # Until the sink has come to it in each topic, what was published before may still be on its way.
        done = await self._database[ERASURES].find_one({"_id": erasure_id(self._customer_id)}) or {}
        for field in ("erased_at", "challengers_erased_at"):
            if field not in done or done[field] < self._arrived_at:
                found.append(f"(the sink has not come to the erasure yet: {field})")
        state = await self._database[CUSTOMER_STATES].find_one({"key": state_key(self._customer_id)}, {"erased_at": 1})
        if state is None or "erased_at" not in state or state["erased_at"] < self._occurred_at:
            found.append(f"(the sink has not come to the erasure yet: {CUSTOMER_STATES})")
        return found

    def _concerned(self, place: Place, document: dict[str, Any]) -> bool:
        is_letter = place.find is Find.LETTER_FIELD
        return not is_letter or document["arrived_at"] <= self._arrived_at + CLOCK_SKEW
