"""`./clv train` and `./clv score`: a model from an orders file, and predictions for its customers."""

import csv
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from services.runtime.bundle import POINTER, current_bundle, read_head
from services.runtime.shutdown import KnownProblem

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
    orders: _Orders,
    cutoff: Annotated[str, typer.Option(help="Train on what happened before this day alone, YYYY-MM-DD (UTC).")],
    horizon_days: Annotated[int, typer.Option(help="Days ahead that the model predicts.")],
    output: Annotated[Path, typer.Option(help="Models folder: the bundle goes into it, and becomes its current one.")],
    columns: _Map = None,
    currency: Annotated[str, typer.Option(help="Reporting currency, ISO 4217.")] = "USD",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metadata to this file as JSON.")] = None,
) -> None:
    """Train a model on an orders file and measure it on a later period beside baselines."""
    from services.trainer.orders_file import read_any
    from services.trainer.train import train as train_bundle

    console = Console()
    day = _date("--cutoff", cutoff)
    with console.status("reading the orders") as status:
        table = read_any(orders, parse_columns(columns))
        bundle = train_bundle(table, day, horizon_days, currency, output, progress=status.update)
    _print_bundle(console, bundle.metadata, bundle.path)
    if json_file is not None:
        _write_text(json_file, msgspec.json.format(msgspec.json.encode(bundle.metadata), indent=1).decode())


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
    from services.trainer.orders_file import read_any

    day = _date("--as-of", as_of)
    found = score_customers(read_any(orders, parse_columns(columns)), day, bundle_folder(model))
    rows = zip(*(found[name] for name in ("customer_id", *OUTPUTS, "segment")), strict=True)
    try:
        with output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["customer_id", *OUTPUTS, "segment"])
            writer.writerows(rows)
    except OSError as error:
        raise KnownProblem(f"cannot write {output}: {error.strerror or error}") from None
    Console().print(f"{len(found['customer_id']):,} customers in {output}", highlight=False)


def bundle_folder(model: Path) -> Path:
    """The bundle that a models folder's pointer names, or the folder itself if it is a bundle."""
    return current_bundle(model) if (model / POINTER).is_file() or not (model / "metadata.json").is_file() else model


def score_customers(table: Any, as_of: date, bundle: Path) -> dict[str, list[Any]]:
    """Columns customer_id, OUTPUTS and segment of every customer with a valid order before the day, sorted by id.

    Segments are percentiles of these customers. Raises KnownProblem if there are none, or the bundle is no good.
    """
    import numpy as np

    from domain.features import day_of
    from domain.segments import Thresholds, classify
    from schemas.currencies import minor_per_major
    from services.scorer.model import load_model
    from services.trainer.history import History
    from services.trainer.judged_rows import judge

    head = read_head(bundle)
    loaded = load_model(bundle, head.currency)
    day = day_of(as_of)
    history = History(judge(table, head.currency), day, minor_per_major(head.currency))
    (known,) = history.training_sets([(day, 0)])
    if not len(known):
        raise KnownProblem(f"no customer of {table.name} has a valid order before {as_of.isoformat()}")
    outcomes = loaded.predict(known.with_quintiles(head.quintiles).features)
    value = outcomes.expected_value
    thresholds = Thresholds(*(float(each) for each in np.quantile(value, [0.25, 0.5, 0.75])))
    return {
        "customer_id": list(known.customer_ids),
        **{name: getattr(outcomes, name).tolist() for name in OUTPUTS},
        "segment": [classify(each, thresholds).value for each in value.tolist()],
    }


def _date(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise KnownProblem(f"{option} {text!r} is no day such as 2026-01-31") from None


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise KnownProblem(f"cannot write {path}: {error.strerror or error}") from None


def _print_bundle(console: Console, metadata: Mapping[str, Any], folder: Path) -> None:
    from services.trainer.bundle_writer import FIGURES, figure

    counts = metadata["counts"]
    console.print(
        f"{counts['customers']:,} customers, {counts['events']:,} orders and refunds before {metadata['cutoff']}; "
        f"structural model {metadata['structural']['name']}",
        highlight=False,
    )
    for reason, count in counts["rejected"].items():
        console.print(f"  {count:,} rows refused: {reason}", highlight=False)
    for fallback in metadata["fallbacks"]:
        console.print(f"  note: {fallback}", highlight=False)
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
