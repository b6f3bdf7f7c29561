"""Every place where a customer's data can be: what is there, how it is keyed, how it goes, and how to find it.

The one list behind `./clv export`, `./clv erase`, docs/personal-data.md and the tests of erasure: a topic or collection
that is declared and not listed here fails a test. Pure declarations: must never talk to a server.
"""

from enum import StrEnum
from typing import NamedTuple

from schemas import mongo
from schemas.topic_pages import markdown_table
from schemas.topics import topic

_DAY_MS = 86_400_000


class Store(StrEnum):
    """What kind of place it is."""

    TOPIC = "Kafka topic"
    COLLECTION = "MongoDB collection"
    SERVICE = "a service's memory or disk"
    FILE = "file"


class Goes(StrEnum):
    """How a customer's data leaves the place."""

    TOMBSTONE = "tombstone, at once for every reader; the bytes when the log is compacted"
    DELETED = "deleted"
    EXPIRES = "expires: single messages cannot be taken out of a log"
    NOT_STORED = "nothing to erase"
    BY_HAND = "by whoever made it"


class Find(StrEnum):
    """How a customer is found there."""

    KEY = "the record's key"
    ROW = "the record's key, and the ids of merged customers in the row"
    CONTENT = "key, headers and value of each message"
    LETTER = "key, headers and value of the original message in each letter"
    FIELD = "a field of the documents"
    ROW_FIELD = "the document's id, and the ids of merged customers in `linked_ids`"
    LETTER_FIELD = "the field customer_ids, and the bytes of letters that do not say whom they are about"
    NONE = "not at all"


class Place(NamedTuple):
    """One place."""

    name: str
    """Of the topic or collection; a description of anything else."""
    store: Store
    holds: str
    keyed_by: str
    goes: Goes
    find: Find
    gone_days: int | None = None
    """After how many days at most the bytes are gone, where that takes time."""
    field: str = ""
    """The field of a collection that holds the customer."""


def _expires(short: str, holds: str) -> Place:
    declared = topic(short)
    days = _days(int(declared.config["retention.ms"]) + int(declared.config["segment.ms"]))
    return Place(declared.name, Store.TOPIC, holds, declared.key, Goes.EXPIRES, Find.CONTENT, days)


def _compacted(short: str, holds: str, find: Find) -> Place:
    """The value goes with the first compaction, the key with the one after the tombstone's own time."""
    config = topic(short).config
    days = _days(2 * int(config["max.compaction.lag.ms"]) + int(config["delete.retention.ms"]))
    return Place(topic(short).name, Store.TOPIC, holds, topic(short).key, Goes.TOMBSTONE, find, days)


def _collection(name: str, holds: str, field: str, find: Find = Find.FIELD) -> Place:
    return Place(name, Store.COLLECTION, holds, field, Goes.DELETED, find, field=field)


def _days(ms: int) -> int:
    return -(-ms // _DAY_MS)


PLACES: tuple[Place, ...] = (
    _expires("customer-events", "events as upstream teams sent them"),
    _expires("orders", "validated events, and the states of merged customers on their way to another customer"),
    _compacted(
        "customer-state-changelog",
        "the customer's orders, refunds and profile; of an erased customer a hash of the id, without anything personal",
        Find.ROW,
    ),
    _compacted("customer-features", "inputs and features of the customer", Find.KEY),
    _compacted("predictions", "predictions, with the features they were made from", Find.KEY),
    _compacted("challenger-predictions", "what a model on trial says of the same customers", Find.KEY),
    _compacted("dead-letters", "messages that could not be used, as they came", Find.LETTER),
    Place(
        topic("segment-thresholds").name,
        Store.TOPIC,
        "a sketch of all customers' expected values, without any customer",
        topic("segment-thresholds").key,
        Goes.NOT_STORED,
        Find.NONE,
    ),
    _collection(mongo.CUSTOMERS, "newest features and prediction", "_id"),
    _collection(mongo.PREDICTION_HISTORY, "every prediction of the last months", "customer_id"),
    _collection(
        mongo.CUSTOMER_STATES,
        "the customer's orders, refunds and profile, as in the changelog; of an erased customer a hash of the id, "
        "without anything personal",
        "_id",
        Find.ROW_FIELD,
    ),
    _collection(mongo.CHALLENGER_PREDICTIONS, "what models on trial say of the customer", "customer_id"),
    _collection(mongo.MATURED_PREDICTIONS, "predictions, and what the customer then spent", "customer_id"),
    Place(
        mongo.SINK_WORK,
        Store.COLLECTION,
        "how far the sink has come",
        "what it is about",
        Goes.NOT_STORED,
        Find.NONE,
    ),
    Place(
        mongo.WHAT_IF_PREDICTIONS,
        Store.COLLECTION,
        "what was asked of the API about customers who are described and not named, and its answers",
        "a random id",
        Goes.NOT_STORED,
        Find.NONE,
    ),
    _collection(mongo.DEAD_LETTERS, "messages that could not be used, as they came", "customer_ids", Find.LETTER_FIELD),
    Place(
        mongo.ERASURES,
        Store.COLLECTION,
        "a hash of the id and the time of the erasure, so that letters which come late are removed too",
        "hash of customer_id",
        Goes.NOT_STORED,
        Find.NONE,
        gone_days=mongo.ERASURES_DAYS,
    ),
    Place(
        "table of the feature worker (CLV_FEATURES_DATA_DIR)",
        Store.SERVICE,
        "a copy of the changelog's rows",
        "customer_id",
        Goes.DELETED,
        Find.NONE,
    ),
    Place(
        "population of the scorer",
        Store.SERVICE,
        "last value and segment of each customer, in memory",
        "customer_id",
        Goes.DELETED,
        Find.NONE,
    ),
    Place(
        "logs and metrics of the services",
        Store.SERVICE,
        "no ids and no messages: where a dead letter came from, not what it says",
        "",
        Goes.NOT_STORED,
        Find.NONE,
    ),
    Place(
        "MongoDB's journal and oplog",
        Store.SERVICE,
        "recent writes to the collections, deletions included",
        "",
        Goes.EXPIRES,
        Find.NONE,
    ),
    Place(
        "model bundles, in folders and in the registry's collections (schemas/models.py)",
        Store.FILE,
        "figures about all customers together",
        "",
        Goes.NOT_STORED,
        Find.NONE,
    ),
    Place(
        "files given to or written by a command (orders files, score --output, export --out)",
        Store.FILE,
        "whatever is in them",
        "customer_id",
        Goes.BY_HAND,
        Find.NONE,
    ),
)


def topic_places() -> list[Place]:
    """The topics in which a customer can be found."""
    return [place for place in PLACES if place.store is Store.TOPIC and place.find is not Find.NONE]


def collection_places() -> list[Place]:
    """The collections in which a customer can be found."""
    return [place for place in PLACES if place.store is Store.COLLECTION and place.find is not Find.NONE]


def personal_data_page(command: str) -> str:
    """docs/personal-data.md."""
    rows = [
        [
            f"`{place.name}`" if place.store in (Store.TOPIC, Store.COLLECTION) else place.name,
            place.store.value,
            place.holds,
            place.keyed_by,
            place.goes.value,
            "" if place.gone_days is None else f"{place.gone_days} days",
            place.find.value,
        ]
        for place in PLACES
    ]
    head = ["place", "kind", "holds", "keyed by", "how it goes", "gone at the latest after", "how a customer is found"]
    return f"# Personal data\n\n<!-- Made by `{command}`. Do not edit. -->\n\n{_INTRODUCTION}\n" + markdown_table(
        head, rows
    )


_INTRODUCTION = """\
Every place where a customer's data can be, from one list (`schemas/personal_data.py`) that the commands below, and the
tests of erasure, go by.

- `./clv export --customer ID` writes out all that is held of a customer.
- `./clv erase --customer ID` publishes `customer.erased` and waits until no place holds the customer any more, but for
  those that expire, which it names.

What erasing does: the customer's state, features and predictions get a tombstone, the MongoDB documents are deleted
(a marker without the id keeps older rows of the state from coming back), and so are the dead letters that name the
customer, in MongoDB and, by a tombstone each, in their topic. Customers who were merged with the erased one are erased
with it. A letter that says nowhere whom it is about is searched for the id
as a word, and goes if it is there. Letters that come later are removed too if their event arrived before the erasure.
What arrives after it is new data: the feature worker refuses it without keeping it, or starts anew
(`CLV_FEATURES_AFTER_ERASURE`); an event that cannot be read is a dead letter like any other, until the customer is
erased again.

A tombstone takes effect at once for whoever reads the topic from its beginning. The bytes go when Kafka compacts the
log: that needs a newer segment, so a partition to which nothing is written at all keeps them until something is (the
daily refresh writes to every partition that has customers; dead letters expire in any case after their retention; to
the challengers' topic nothing but tombstones comes while no model is on trial). The key itself stays with the tombstone
until readers that were away have had time to hear of it.
"""
