"""Training data from a folder of customers' states, which Spark has folded from order files (services.trainer.spark).

It must never take a folder for whole that is not, nor for another cutoff or currency than it was made for.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from domain.customer import CustomerState
from domain.features import day_of
from schemas.customer_rows import decode_state
from schemas.dead_letters import Reason
from services.runtime.shutdown import KnownProblem
from services.trainer.history import History
from services.trainer.progress import Progress, silent
from services.trainer.sources import TrainingData
from services.trainer.sources.rows import minor_units_of

STATES, COUNTS = "states", "counts"
"""Parquet folders in the folder; the counts are written last."""
STATES_SCHEMA = "customer_id string, state binary"
"""A row is a customer; state as schemas.customer_rows.encode_state() gives it."""
COUNTS_SCHEMA = "cutoff date, currency string, what string, rows long"
"""How many rows of the orders are EARLIER, LATER or refused for the reason `what`, of those not known to be later."""
EARLIER, LATER = "earlier", "later"
"""Valid rows before the cutoff, and from then on."""
_BATCH_CUSTOMERS = 5000


def from_states(folder: Path, cutoff: date, currency: str, progress: Progress = silent) -> TrainingData:
    """What the orders say that were folded into the folder: the same as from_file() of them.

    Raises KnownProblem if the folder is none, is not whole, or was made for another cutoff or currency.
    """
    minor_per_major = minor_units_of(currency)
    counts = _counts(folder, cutoff, currency)
    earlier, later = counts.pop(EARLIER, 0), counts.pop(LATER, 0)
    try:
        rejected = Counter({Reason(what): count for what, count in counts.items()})
        history = History(_customers(folder, progress), day_of(cutoff), minor_per_major)
    except (OSError, pa.ArrowException, msgspec.DecodeError, ValueError) as error:
        raise KnownProblem(f"{folder}: no customers' states: {_line(error)}") from None
    return TrainingData(folder.name, currency, history, rejected, later, repeated=earlier - len(history))


def _counts(folder: Path, cutoff: date, currency: str) -> dict[str, int]:
    try:
        rows = ds.dataset(folder / COUNTS, format="parquet").to_table().to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise KnownProblem(f"{folder} is no finished folder of `./clv customer-states`: {_line(error)}") from None
    for option, given in (("cutoff", cutoff), ("currency", currency)):
        if made_with := {row[option] for row in rows} - {given}:
            raise KnownProblem(f"{folder} was made with --{option} {made_with.pop()}: name that one, or make it anew")
    return {row["what"]: row["rows"] for row in rows}


def _customers(folder: Path, progress: Progress) -> Iterator[tuple[str, CustomerState]]:
    states = ds.dataset(folder / STATES, format="parquet")
    total, done = states.count_rows(), 0
    for batch in states.to_batches(["customer_id", "state"], batch_size=_BATCH_CUSTOMERS):
        if pc.any(pc.is_null(batch["customer_id"])).as_py() or pc.any(pc.is_null(batch["state"])).as_py():
            raise ValueError("a row without a customer or a state")
        for customer, state in zip(batch["customer_id"].to_pylist(), batch["state"].to_pylist(), strict=True):
            yield customer, decode_state(state)
        done += len(batch)
        progress("customers read", done, total)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
