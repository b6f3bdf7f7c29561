"""`./clv export`: everything that is held of one customer, as JSON, from every place of schemas.personal_data.

Of a compacted topic, what stands: what a tombstone took back is no longer held, though the log may keep its bytes for
some days. Must never say that nothing is held when a place could not be read.
"""

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from aiokafka.errors import KafkaError

from cli.customer_data import (
    PLACE_OF_TOPIC,
    Bootstrap,
    Customer,
    MongoDatabase,
    MongoUri,
    Servers,
    documents_of,
    exported,
    mongo,
    readable,
    record_holds,
)
from cli.reading import present_ends, records_until, topics_reader
from schemas.personal_data import PLACES, Goes, collection_places
from services.runtime.shutdown import KnownProblem

Found = dict[str, list[dict[str, Any]]]
"""What is held, by the place's name."""


def export_customer(
    customer: Customer,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file; standard output if left out.")] = None,
    bootstrap_servers: Bootstrap = "localhost:9092",
    mongo_uri: MongoUri = "mongodb://localhost:27017/?replicaSet=clv",
    mongo_database: MongoDatabase = "clv",
) -> None:
    """Write out everything that is held of a customer, as JSON."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        found = asyncio.run(held_of(customer, Servers(bootstrap_servers, mongo_uri, mongo_database)))
    except KafkaError as error:
        raise KnownProblem(f"Kafka could not do it: {error}") from None
    text = json.dumps(_document(customer, found), indent=2, ensure_ascii=False, default=str)
    if out is None:
        print(text)
    else:
        try:
            out.write_text(text + "\n")
        except OSError as error:
            raise KnownProblem(f"cannot write {out}: {error.strerror}") from None
    count = sum(map(len, found.values()))
    where = ", ".join(f"{name} ({len(records)})" for name, records in found.items() if records)
    print(f"{count} records held: {where}" if count else "nothing is held of this customer", file=sys.stderr)


async def held_of(customer_id: str, servers: Servers) -> Found:
    """Everything that is held of the customer. Raises KnownProblem if a server does not answer or lacks a topic."""
    found = await _in_topics(customer_id, servers.bootstrap_servers)
    async with mongo(servers) as database:
        for place in collection_places():
            found[place.name] = [readable(each) async for each in documents_of(database, place, customer_id)]
    return found


async def _in_topics(customer_id: str, bootstrap_servers: str) -> Found:
    standing: dict[str, dict[Any, dict[str, Any]]] = {name: {} for name in PLACE_OF_TOPIC}
    async with topics_reader(bootstrap_servers, list(PLACE_OF_TOPIC)) as reader:
        async for record in records_until(reader, await present_ends(reader)):
            of_topic = standing[record.topic]
            newest_only = PLACE_OF_TOPIC[record.topic].goes is Goes.TOMBSTONE
            name = record.key if newest_only else (record.partition, record.offset)
            if newest_only:
                of_topic.pop(name, None)
            if (record.value is not None or not newest_only) and record_holds(customer_id, record):
                of_topic[name] = exported(record)
    return {name: list(records.values()) for name, records in standing.items()}


def _document(customer_id: str, found: Found) -> dict[str, Any]:
    return {
        "customer_id": customer_id,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "records": sum(map(len, found.values())),
        "places": [
            {"name": place.name, "kind": place.store.value, "holds": place.holds, "records": found[place.name]}
            for place in PLACES
            if place.name in found
        ],
        "not_searched": [
            {"name": place.name, "kind": place.store.value, "holds": place.holds}
            for place in PLACES
            if place.name not in found
        ],
    }
