"""`./clv train` and `./clv score`: a model from an orders file, the stream, MongoDB or what Spark folded; predictions
for a file's customers.
"""

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from cli.customer_data import Bootstrap, MongoDatabase, MongoUri
from cli.progress import ProgressBars
from services.runtime.bundle import POINTER, current_bundle, read_head
from services.runtime.shutdown import KnownProblem

if TYPE_CHECKING:
    from services.trainer.orders_file import OrdersTable
    from services.trainer.sources import TrainingData


class ObjectiveName(StrEnum):
    """services.trainer.fitting.Objective, as an option."""

    balanced = "balanced"
    totals = "totals"


class AfterErasure(StrEnum):
    """CLV_FEATURES_AFTER_ERASURE, as an option."""

    refuse = "refuse"
    anew = "anew"


OUTPUTS = ("expected_value", "expected_orders", "p_active", "value_p10", "value_p50", "value_p90")

_Orders = Annotated[Path, typer.Option("--orders", help="Orders: CSV, Parquet or the CDNOW text file.")]
_Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="Column of your file for a name: --map amount=total. Repeat as needed."),
]


def parse_columns(pairs: Sequence[str] | None) -> dict[str, str]:
    """`name=column` pairs as a mapping. Raises KnownProblem for anything else."""
    found = {}
    for pair in pairs or ():
        name, equals, column = pair.partition("=")
        if not (name.strip() and equals and column.strip()):
            raise KnownProblem(f"--map {pair}: write it as name=column, such as --map amount=total")
        found[name.strip()] = column.strip()
    return found


def train(
    cutoff: Annotated[str, typer.Option(help="Train on what happened before this day alone, YYYY-MM-DD (UTC).")],
    horizon_days: Annotated[int, typer.Option(help="Days ahead that the model predicts.")],
    output: Annotated[Path, typer.Option(help="Models folder: the bundle goes into it, and becomes its current one.")],
    orders: Annotated[Path | None, typer.Option(help="Orders: CSV, Parquet or the CDNOW text file.")] = None,
    from_topic: Annotated[
        bool,
        typer.Option("--from-topic", help="Train from the stream: the feature workers' states and the orders since."),
    ] = False,
    from_mongo: Annotated[
        bool, typer.Option("--from-mongo", help="Train from the sink's copy of the workers' states.")
    ] = False,
    from_states: Annotated[
        Path | None,
        typer.Option("--from-states", help="Train from a folder that `./clv customer-states` folded by Spark."),
    ] = None,
    columns: _Map = None,
    currency: Annotated[
        str, typer.Option(envvar="CLV_CURRENCY", help="Reporting currency, ISO 4217; the platform's, if from there.")
    ] = "USD",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metadata to this file as JSON.")] = None,
    objective: Annotated[
        ObjectiveName,
        typer.Option(
            help="balanced: no measure behind the purchase model's. totals: expected values add up to what is expected "
            "of the shop, at some cost in mean absolute error."
        ),
    ] = ObjectiveName.balanced,
    after_erasure: Annotated[
        AfterErasure,
        typer.Option(
            envvar="CLV_FEATURES_AFTER_ERASURE",
            help="Later orders of an erased customer in the stream: as the feature workers are set.",
        ),
    ] = AfterErasure.refuse,
    bootstrap_servers: Bootstrap = "localhost:9092",
    mongo_uri: MongoUri = "mongodb://localhost:27017/?replicaSet=clv",
    mongo_database: MongoDatabase = "clv",
    register: Annotated[
        bool | None,
        typer.Option(
            "--register/--no-register",
            help="Store the model in the registry too (`./clv models`); if left out: where CLV_MONGO_URI is set.",
        ),
    ] = None,
) -> None:
    """Train a model on orders from one source; measure it on a later period beside baselines."""
    if (orders is not None) + from_topic + from_mongo + (from_states is not None) != 1:
        raise KnownProblem("name one source: --orders FILE, --from-topic, --from-mongo or --from-states FOLDER")
    if columns and orders is None:
        raise KnownProblem("--map names columns of a file: it goes with --orders alone")
    from services.trainer.train import train as train_bundle

    day, console = parse_day("--cutoff", cutoff), Console()
    with ProgressBars() as progress:
        if orders is not None:
            data = _of_file(orders, columns, day, currency, progress)
        elif from_states is not None:
            data = _of_states(from_states, day, currency, progress)
        elif from_topic:
            data = _of_topic(bootstrap_servers, day, currency, after_erasure is AfterErasure.anew, progress)
        else:
            data = _of_mongo(mongo_uri, mongo_database, day, currency, progress)
        bundle = train_bundle(data, horizon_days, output, progress, objective.value)
    _print_bundle(console, bundle.metadata, bundle.path, data.missing)
    if json_file is not None:
        _write_text(json_file, msgspec.json.format(msgspec.json.encode(bundle.metadata), indent=1).decode())
    if register or (register is None and os.environ.get("CLV_MONGO_URI")):
        from cli.models import register_bundle

        register_bundle(console, bundle.path, mongo_uri, mongo_database)


# The libraries of each source are loaded when it is used: `./clv --help` needs none of them.


def _of_file(
    path: Path, columns: list[str] | None, cutoff: date, currency: str, progress: ProgressBars
) -> "TrainingData":
    from services.trainer.sources.orders import from_file

    return from_file(path, parse_columns(columns), cutoff, currency, progress)


def _of_topic(
    bootstrap_servers: str, cutoff: date, currency: str, start_anew: bool, progress: ProgressBars
) -> "TrainingData":
    from services.trainer.sources.stream import from_topic

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its own lines say the same, many times
    return from_topic(bootstrap_servers, cutoff, currency, progress, start_anew=start_anew)


def _of_mongo(uri: str, database: str, cutoff: date, currency: str, progress: ProgressBars) -> "TrainingData":
    from services.trainer.sources.mongo import from_mongo

    return from_mongo(uri, database, cutoff, currency, progress)


def _of_states(folder: Path, cutoff: date, currency: str, progress: ProgressBars) -> "TrainingData":
    from services.trainer.sources.states import from_states

    return from_states(folder, cutoff, currency, progress)


def score(
    orders: _Orders,
    as_of: Annotated[
        str, typer.Option(help="Predict from this day on, from what happened before it, YYYY-MM-DD (UTC).")
    ],
    model: Annotated[Path, typer.Option(help="A models folder or a bundle's folder.")],
    output: Annotated[Path, typer.Option(help="CSV file to write.")],
    columns: _Map = None,
) -> None:
    """Predict every customer with a valid order before a day."""
    day = parse_day("--as-of", as_of)
    _check_readable(orders)  # before the model, whose currency is needed to read on
    bundle = bundle_folder(model)
    currency = read_head(bundle).currency
    with ProgressBars() as progress:
        found = score_data(_of_file(orders, columns, day, currency, progress), bundle, progress)
    names = ("customer_id", *OUTPUTS, "segment", "expected_next_order_at")
    rows = zip(*(found[name] for name in names), strict=True)
    try:
        with output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(rows)
    except OSError as error:
        raise KnownProblem(f"cannot write {output}: {error.strerror or error}") from None
    Console().print(f"{len(found['customer_id']):,} customers in {output}", highlight=False)


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise KnownProblem(f"{path} cannot be read: {error.strerror or error}") from None


def bundle_folder(model: Path) -> Path:
    """The bundle that a models folder's pointer names, or the folder itself if it is a bundle."""
    return current_bundle(model) if (model / POINTER).is_file() or not (model / "metadata.json").is_file() else model


def score_customers(table: "OrdersTable", as_of: date, bundle: Path) -> dict[str, list[Any]]:
    """score_data() of what the table says happened before the day."""
    from services.trainer.sources.orders import from_table

    return score_data(from_table(table, as_of, read_head(bundle).currency), bundle)


def score_data(data: "TrainingData", bundle: Path, progress: ProgressBars | None = None) -> dict[str, list[Any]]:
    """Columns customer_id, OUTPUTS, segment and expected_next_order_at (a date, or None where none is likely) of every
    customer with a valid order before the cutoff, sorted by id.

    Segments are percentiles of these customers. Raises KnownProblem if there are none, or the bundle is no good.
    """
    import numpy as np

    from domain.features import date_of
    from domain.segments import Thresholds, classify
    from services.inference.model import load_model
    from services.inference.outlook import next_order_at
    from services.trainer.progress import silent

    head = read_head(bundle)
    loaded = load_model(bundle, head.currency)
    (known,) = data.history.training_sets([(data.cutoff_day, 0)], progress or silent)
    if not len(known):
        raise KnownProblem(f"no customer of {data.name} has a valid order before {date_of(data.cutoff_day)}")
    outcomes = loaded.predict(known.with_quintiles(head.quintiles).features)
    value = outcomes.expected_value
    thresholds = Thresholds(*(float(each) for each in np.quantile(value, [0.25, 0.5, 0.75])))
    return {
        "customer_id": list(known.customer_ids),
        **{name: getattr(outcomes, name).tolist() for name in OUTPUTS},
        "segment": [classify(each, thresholds).value for each in value.tolist()],
        "expected_next_order_at": [
            next_order_at(date_of(data.cutoff_day).isoformat(), p, days)
            for p, days in zip(outcomes.p_active.tolist(), outcomes.next_order_days.tolist(), strict=True)
        ],
    }


def parse_day(option: str, text: str) -> date:
    """A day as an option gives it. Raises KnownProblem for anything else."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise KnownProblem(f"{option} {text!r} is no day such as 2026-01-31") from None


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise KnownProblem(f"cannot write {path}: {error.strerror or error}") from None


def _print_bundle(console: Console, metadata: Mapping[str, Any], folder: Path, missing: int) -> None:
    from services.trainer.bundle_writer import FIGURES, figure
    from services.trainer.card_facts import gone, quiet_end

    counts = metadata["counts"]
    console.print(
        f"{counts['customers']:,} customers, {counts['events']:,} orders and refunds before {metadata['cutoff']}; "
        f"structural model {metadata['structural']['name']}",
        highlight=False,
    )
    for reason, count in counts["rejected"].items():
        console.print(f"  {count:,} rows refused: {reason}", highlight=False)
    quiet = quiet_end(metadata["data"])
    for note in (*gone(missing), *metadata["fallbacks"], *(() if quiet is None else (quiet,))):
        console.print(f"  note: {note}", highlight=False)
    holdout = metadata["holdout"]
    if holdout:
        title = f"{holdout['days']} days from {holdout['from']} on, which training had not seen"
        shown = Table(title=title, title_justify="left", box=None, padding=(0, 1))
        for heading in ("", *FIGURES.values()):
            shown.add_column(heading, justify="left" if not heading else "right", no_wrap=bool(not heading))
        for name, figures in holdout["metrics"].items():
            shown.add_row(name.replace("Gamma-Gamma", "GG"), *(figure(each, figures.get(each)) for each in FIGURES))
        console.print(shown)
    console.print(f"model {metadata['model_version']} in {folder}", highlight=False, soft_wrap=True)
