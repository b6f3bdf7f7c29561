"""What is held of one customer, place by place as schemas.personal_data lists them: for `export` and `erase`.

Reads only. Must never join a consumer group, and never leave out a place of the list that a customer can be found in.
"""

import base64
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from aiokafka import ConsumerRecord
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.errors import PyMongoError

from domain.customer import CANCELLATION, NO_ORDER, ORDER, REFUND, CustomerState
from schemas.customer_rows import OWN_PREFIX, Row, decode_row
from schemas.dead_letters import DeadLetter, from_record
from schemas.named_customers import contains, holds
from schemas.personal_data import Find, Place, topic_places
from services.runtime.mongo_errors import at
from services.runtime.shutdown import KnownProblem
from services.sink.mongo import connect
from services.sink.settings import SinkSettings

PLACE_OF_TOPIC = {place.name: place for place in topic_places()}

Bootstrap = Annotated[
    str,
    typer.Option("--bootstrap-servers", envvar="CLV_KAFKA_BOOTSTRAP_SERVERS", help="Kafka brokers, host:port,…"),
]
MongoUri = Annotated[str, typer.Option("--mongo-uri", envvar="CLV_MONGO_URI", help="MongoDB connection string.")]
MongoDatabase = Annotated[str, typer.Option("--mongo-database", envvar="CLV_MONGO_DATABASE", help="MongoDB database.")]
Customer = Annotated[str, typer.Option("--customer", help="The customer_id, as the shop knows it.")]


class Servers(NamedTuple):
    """Where to look."""

    bootstrap_servers: str
    mongo_uri: str
    mongo_database: str


# ---------------------------------------------------------------- Kafka


def record_holds(customer_id: str, record: ConsumerRecord) -> bool:
    """Whether a record of a listed topic holds the customer, found in the way that the list says."""
    key = customer_id.encode()
    match PLACE_OF_TOPIC[record.topic].find:
        case Find.KEY:
            return bool(record.key == key)
        case Find.ROW:
            return bool(record.key == key) or _row_names(customer_id, record)
        case Find.LETTER:
            letter = letter_in(record)
            return letter is not None and holds(customer_id, letter.key, letter.value, letter.original_headers)
    return holds(customer_id, record.key, record.value, list(record.headers))


def _row_names(customer_id: str, record: ConsumerRecord) -> bool:
    row = _row(record)
    if row is None or row.links is None:
        return False
    names = {row.links.merged_into, *row.links.parts, *(part.merged_into for part in row.links.parts.values())}
    return customer_id in names


def _row(record: ConsumerRecord) -> Row | None:
    if not record.value or (record.key or b"").startswith(OWN_PREFIX):
        return None
    found = _decoded(record.value)
    return found if isinstance(found, Row) else None


def _decoded(value: bytes) -> Row | bytes:
    """The row of a customer table; the bytes if they are none."""
    try:
        return decode_row(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return value


def letter_in(record: ConsumerRecord) -> DeadLetter | None:
    """The dead letter in a record; None for markers and tombstones."""
    try:
        return from_record(record.key, record.value, list(record.headers))
    except ValueError:
        return None


def exported(record: ConsumerRecord) -> dict[str, Any]:
    """A record as it is shown to a person."""
    row = _row(record) if PLACE_OF_TOPIC[record.topic].find is Find.ROW else None
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": datetime.fromtimestamp(max(0, record.timestamp) / 1000, UTC).isoformat(timespec="milliseconds"),
        "key": readable(record.key),
        "headers": [[name, readable(value)] for name, value in record.headers],
        "value": readable(record.value) if row is None else readable(row),
    }


def readable(found: Any) -> Any:
    """Anything as JSON can hold it: bytes as JSON, else text, else base 64; packed states record by record."""
    if isinstance(found, bytes):
        return _readable_bytes(found)
    if isinstance(found, CustomerState):
        return _readable_state(found)
    if isinstance(found, msgspec.Struct):
        return {name: readable(getattr(found, name)) for name in found.__struct_fields__}
    if isinstance(found, Mapping):
        return {
            str(name): readable(_decoded(value) if name == "row" and isinstance(value, bytes) else value)
            for name, value in found.items()
        }
    if isinstance(found, list | tuple):
        return [readable(each) for each in found]
    if isinstance(found, datetime):
        return found.isoformat()
    return found


def _readable_bytes(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _readable_state(state: CustomerState) -> dict[str, Any]:
    def at(epoch_ms: int) -> str:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat()

    return {
        "orders": [
            {"order_hash": key.hex(), "at": at(at_ms), "amount_minor": minor}
            for key, at_ms, minor in ORDER.iter_unpack(state.orders)
        ],
        "refunds": [
            {
                "refund_hash": key.hex(),
                "order_hash": None if order == NO_ORDER else order.hex(),
                "at": at(at_ms),
                "amount_minor": minor,
            }
            for key, order, at_ms, minor in REFUND.iter_unpack(state.refunds)
        ],
        "cancelled": [
            {"order_hash": key.hex(), "at": at(at_ms)} for key, at_ms in CANCELLATION.iter_unpack(state.cancelled)
        ],
        "profile": readable(state.profile),
        "folded_days": readable(state.folded),
    }


# ---------------------------------------------------------------- MongoDB


@asynccontextmanager
async def mongo(servers: Servers) -> AsyncIterator["AsyncIOMotorDatabase[Any]"]:
    """The database. Raises KnownProblem if no MongoDB answers, or it does not answer a question inside."""
    client = connect(SinkSettings(mongo_uri=servers.mongo_uri, mongo_database=servers.mongo_database))
    try:
        yield client[servers.mongo_database]
    except PyMongoError as error:
        raise KnownProblem(at(servers.mongo_uri, error)) from None
    finally:
        client.close()


async def documents_of(
    database: "AsyncIOMotorDatabase[Any]", place: Place, customer_id: str
) -> AsyncIterator[dict[str, Any]]:
    """The documents of a listed collection that hold the customer."""
    collection = database[place.name]
    wanted: dict[str, Any] = {place.field: customer_id}
    if place.find is Find.ROW_FIELD:
        wanted = {"$or": [wanted, {"linked_ids": customer_id}]}
    async for document in collection.find(wanted):
        yield document
    if place.find is Find.LETTER_FIELD:
        async for document in collection.find({"clear": False, place.field: {"$ne": customer_id}}):
            if contains(customer_id, document.get("value") or b""):
                yield document


def places_line(places: Iterable[Place]) -> str:
    """The places in a sentence: those that expire with their days."""
    return ", ".join(
        place.name + (f" (gone after {place.gone_days} days)" if place.gone_days else "") for place in places
    )
