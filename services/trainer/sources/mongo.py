"""Training data from MongoDB: the sink's copy of the customers' states. It must never write."""

from datetime import date

from pymongo import MongoClient
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError

from domain.features import day_of
from schemas.mongo import CUSTOMER_STATES, STATES_WITH_ROW
from services.runtime.mongo_errors import at
from services.runtime.shutdown import KnownProblem
from services.trainer.history import History
from services.trainer.progress import Progress, silent
from services.trainer.sources import TrainingData
from services.trainer.sources.rows import KnownRows, minor_units_of

SELECTION_SECONDS = 5.0
_BATCH_DOCUMENTS = 1000
_TELL_EVERY_ROWS = 5000


def from_mongo(uri: str, database: str, cutoff: date, currency: str, progress: Progress = silent) -> TrainingData:
    """What the sink has stored of everybody before the cutoff (UTC). currency: the platform's reporting currency.

    Raises KnownProblem if MongoDB or the collection is not there, or if there is no such currency.
    """
    minor_per_major, cutoff_day = minor_units_of(currency), day_of(cutoff)
    rows = KnownRows()
    try:
        client: MongoClient[dict[str, bytes]] = MongoClient(
            uri,
            appname="clv-trainer",
            serverSelectionTimeoutMS=round(SELECTION_SECONDS * 1000),
            connectTimeoutMS=round(SELECTION_SECONDS * 1000),
            readConcernLevel="majority",
        )
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise KnownProblem(f"CLV_MONGO_URI: {error}") from None
    try:
        with client:
            _read(client, database, rows, progress)
    except PyMongoError as error:
        raise KnownProblem(at(uri, error)) from None
    history = History(rows.customers(progress), cutoff_day, minor_per_major)
    return TrainingData(f"{database}.{CUSTOMER_STATES}", currency, history, rows.rejected)


def _read(client: "MongoClient[dict[str, bytes]]", database: str, rows: KnownRows, progress: Progress) -> None:
    states = client[database][CUSTOMER_STATES]
    total = states.estimated_document_count()
    if not total:
        raise KnownProblem(f"MongoDB has nothing in {database}.{CUSTOMER_STATES}: has the sink run, and stored states?")
    done = 0
    for done, document in enumerate(states.find(STATES_WITH_ROW, {"row": 1}, batch_size=_BATCH_DOCUMENTS), 1):
        rows.take(str(document["_id"]).encode(), bytes(document["row"]))
        if done % _TELL_EVERY_ROWS == 0:
            progress("rows read", done, max(done, total))
    progress("rows read", done, done)
