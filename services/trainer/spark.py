"""Customers' states and training sets on Apache Spark, for a history that outgrows one machine: the same rules for
rows, the same fold and the same features as in one process, a group of customers at a time. It must never have a rule
of its own.

Optional: needs the dependencies of locks/spark.txt and Java. The project must be importable on the executors.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from domain.customer import DAY_MS
from domain.features import FEATURE_NAMES, INPUT_NAMES, date_of, day_of
from schemas.currencies import minor_per_major
from schemas.customer_rows import encode_state
from services.runtime.shutdown import KnownProblem
from services.trainer.history import Targets, TrainingSet, training_rows
from services.trainer.judged_rows import judge
from services.trainer.orders_file import COLUMNS, OrdersTable
from services.trainer.sources.orders import Events
from services.trainer.sources.states import EARLIER, LATER, STATES_SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GROUPS = 200
"""Groups of customers. A group must fit into an executor's memory; Python is called once for each."""
_JAVA_MIN = 17
_GROUP = "_group"
_INPUTS = tuple(f"input_{name}" for name in INPUT_NAMES)
TRAINING_SCHEMA = ", ".join(
    [
        "customer_id string",
        "origin date",
        "horizon_days int",
        *(f"{name} double" for name in (*_INPUTS, *FEATURE_NAMES)),
        "target_orders double",
        "target_value double",
    ]
)
"""A row is a customer as of an origin. Inputs and features as in TrainingSet, without scores; null is a missing value.
Targets as in Targets, null where the window was not asked for."""

Window = tuple[int, int]


def new_session(master: str = "local[2]") -> "SparkSession":
    """A session. Raises KnownProblem if pyspark or Java is missing."""
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise KnownProblem("training on Spark needs pyspark: pip install -r locks/spark.txt") from None
    home = os.environ.get("JAVA_HOME")
    if not (shutil.which("java") or (home and (Path(home) / "bin" / "java").is_file())):
        raise KnownProblem(
            f"Spark needs Java {_JAVA_MIN} or later: install openjdk-{_JAVA_MIN}-jre-headless, or set JAVA_HOME"
        )
    project = str(Path(__file__).parents[2])
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # For the Python workers on this machine, who inherit it; those of a cluster get it by name.
    known = os.environ.get("PYTHONPATH", "")
    if project not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [project, known]))
    builder = (
        SparkSession.builder.master(master)
        .appName("clv-trainer")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.executorEnv.PYTHONPATH", project)
    )
    try:
        return builder.getOrCreate()
    except (PySparkException, OSError) as error:
        raise KnownProblem(f"Spark did not start ({_line(error)}): it needs Java {_JAVA_MIN} or later") from None


@contextmanager
def one_line_problems() -> Iterator[None]:
    """What Spark complains of inside becomes a KnownProblem of one line."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise KnownProblem(f"Spark: {_line(error)}") from None


def read_orders(session: "SparkSession", place: str) -> "DataFrame":
    """Rows for training_frame(): CSV with a header where the name ends in .csv or .csv.gz, else Parquet."""
    if place.endswith((".csv", ".csv.gz")):
        return session.read.csv(place, header=True, escape='"', multiLine=True)
    return session.read.parquet(place)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def training_frame(
    orders: "DataFrame", windows: Sequence[Window], cutoff: date, currency: str, groups: int = GROUPS
) -> "DataFrame":
    """Rows of TRAINING_SCHEMA for each (origin day since 1970, horizon in days), from rows of orders.

    orders: columns as of an orders file (orders_file.COLUMNS), text; those that are missing count as empty, as null
    does. cutoff: rows from this day on (UTC) are not known. Refused rows are left out: count them with refused_rows().
    Raises ValueError if a window reaches beyond the cutoff, KnownProblem if a column or the currency is missing.
    """
    from pyspark.sql import functions as f

    before_day, asked = day_of(cutoff), list(dict.fromkeys(windows))
    for origin, horizon in asked:
        if origin + horizon > before_day:
            raise ValueError(f"day {origin} + {horizon} days is after {cutoff}, where the history ends")
    judge(_table(pd.DataFrame({"order_id": []})), currency)  # for its complaint, here rather than on an executor

    def rows_of_group(group: pd.DataFrame) -> pd.DataFrame:
        return _training_rows(group, asked, before_day, currency)

    # All rows of a customer are in one group; one call of Python for each single customer would take ten times as long.
    group = f.pmod(f.xxhash64("customer_id"), f.lit(groups))
    return _texts(orders).withColumn(_GROUP, group).groupBy(_GROUP).applyInPandas(rows_of_group, TRAINING_SCHEMA)


def states_frame(orders: "DataFrame", cutoff: date, currency: str, groups: int = GROUPS) -> "DataFrame":
    """Each customer's state, of what happened before the cutoff (UTC): columns as in sources.states.STATES_SCHEMA.

    orders: as training_frame() takes them. Raises KnownProblem if a column or the currency is missing.
    """
    from pyspark.sql import functions as f

    before_day = day_of(cutoff)
    judge(_table(pd.DataFrame({"order_id": []})), currency)  # for its complaint, here rather than on an executor

    def states_of_group(group: pd.DataFrame) -> pd.DataFrame:
        events = Events()
        events.add(judge(_table(group), currency), before_day)
        found = [(customer, encode_state(state)) for customer, state in events.customers()]
        return pd.DataFrame(found, columns=["customer_id", "state"], dtype=object)

    group = f.pmod(f.xxhash64("customer_id"), f.lit(groups))
    return _texts(orders).withColumn(_GROUP, group).groupBy(_GROUP).applyInPandas(states_of_group, STATES_SCHEMA)


def counted_rows(orders: "DataFrame", cutoff: date, currency: str) -> "DataFrame":
    """How many rows of the orders are what: columns as in sources.states.COUNTS_SCHEMA."""
    from pyspark.sql import functions as f

    before_ms = day_of(cutoff) * DAY_MS

    def counts(parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for part in parts:
            judged = judge(_table(part), currency)
            early = int((judged.valid & (judged.at_ms < before_ms)).sum())
            found = {EARLIER: early, LATER: int(judged.valid.sum()) - early}
            found |= {reason.value: count for reason, count in judged.rejected(before_ms).items()}
            yield pd.DataFrame({"what": pd.Series(list(found), dtype=object), "rows": list(found.values())})

    found = _texts(orders).mapInPandas(counts, "what string, rows long").groupBy("what")
    return found.agg(f.sum("rows").alias("rows")).select(
        f.lit(cutoff).alias("cutoff"), f.lit(currency).alias("currency"), "what", "rows"
    )


def refused_rows(orders: "DataFrame", currency: str) -> "DataFrame":
    """`reason` and `rows`: how many rows of the orders are refused for what."""
    from pyspark.sql import functions as f

    def reasons(parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for part in parts:
            found = judge(_table(part), currency).rejected()
            names = pd.Series([each.value for each in found], dtype=object)
            yield pd.DataFrame({"reason": names, "rows": list(found.values())})

    found = _texts(orders).mapInPandas(reasons, "reason string, rows long")
    return found.groupBy("reason").agg(f.sum("rows").alias("rows"))


def training_sets(frame: "DataFrame", windows: Sequence[Window]) -> list[TrainingSet]:
    """The rows of training_frame() in this process: what History.training_sets(windows) gives."""
    found = frame.toPandas().sort_values("customer_id", kind="stable")
    return [_training_set(found, origin, horizon) for origin, horizon in windows]


def _training_set(rows: pd.DataFrame, origin: int, horizon: int) -> TrainingSet:
    own = rows[(rows["origin"] == date_of(origin)) & (rows["horizon_days"] == horizon)]
    targets = Targets(*(own[name].to_numpy(np.float64) for name in ("target_orders", "target_value")))
    return TrainingSet(
        origin,
        horizon,
        tuple(own["customer_id"]),
        own[list(_INPUTS)].to_numpy(np.float64),
        own[list(FEATURE_NAMES)].to_numpy(np.float64),
        targets if horizon else None,
    )


def _texts(orders: "DataFrame") -> "DataFrame":
    """The columns of an orders file, as text."""
    from pyspark.sql import functions as f

    missing = sorted({"order_id", "customer_id", "occurred_at", "amount"} - set(orders.columns))
    if missing:
        raise KnownProblem(f"the orders have no column {missing[0]!r}: rename yours")
    texts = [
        f.coalesce(f.col(name).cast("string"), f.lit("")) if name in orders.columns else f.lit("") for name in COLUMNS
    ]
    return orders.select(*(text.alias(name) for text, name in zip(texts, COLUMNS, strict=True)))


def _table(rows: pd.DataFrame) -> OrdersTable:
    empty = np.full(len(rows), "", dtype=object)
    return OrdersTable(
        "Spark", {name: rows[name].to_numpy(dtype=object) if name in rows.columns else empty for name in COLUMNS}
    )


def _training_rows(rows: pd.DataFrame, windows: Sequence[Window], before_day: int, currency: str) -> pd.DataFrame:
    events = Events()
    events.add(judge(_table(rows), currency), before_day)
    customers = list(events.customers())
    ids, states = [customer for customer, _ in customers], [state for _, state in customers]
    parts = [_frame(part) for part in training_rows(ids, states, windows, minor_per_major(currency))]
    return pd.concat(parts, ignore_index=True)


def _frame(part: TrainingSet) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "customer_id": pd.Series(part.customer_ids, dtype=object),  # pyspark cannot send pandas' own texts
        "origin": date_of(part.origin_day),
        "horizon_days": part.horizon_days,
        **dict(zip(_INPUTS, part.inputs.T, strict=True)),
        **dict(zip(FEATURE_NAMES, part.features.T, strict=True)),
        "target_orders": np.nan if part.targets is None else part.targets.orders,
        "target_value": np.nan if part.targets is None else part.targets.value,
    }
    return pd.DataFrame(columns, index=range(len(part)))
