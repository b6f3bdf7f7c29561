"""`./clv bench`: the benchmarks in benchmarks/, which print their figures and can write them as JSON."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(help="Measure: one feature worker, the whole path, the model.", no_args_is_help=True)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as JSON.")]


@app.command()
def features(
    customers: Annotated[int, typer.Option(help="Customers with state.", min=1)] = 20_000,
    history_events: Annotated[int, typer.Option(help="Events folded before the clock starts.", min=1)] = 200_000,
    events: Annotated[int, typer.Option(help="Events that are timed.", min=1)] = 400_000,
    chunk_records: Annotated[int, typer.Option(help="Most records of a chunk.", min=1)] = 10_000,
    json_file: JsonFile = None,
) -> None:
    """Order events a second through one feature worker on one core."""
    from benchmarks.features import run

    _report(run(customers, history_events, events, chunk_records), json_file)


@app.command()
def pipeline(
    customers: Annotated[int, typer.Option(help="Customers.", min=1)] = 20_000,
    events: Annotated[int, typer.Option(help="Events that are timed.", min=1)] = 150_000,
    json_file: JsonFile = None,
) -> None:
    """Events a second from customer-events to MongoDB, everything on this machine."""
    from benchmarks.pipeline import run

    _report(run(customers, events), json_file)


@app.command()
def model(
    orders: Annotated[Path | None, typer.Option(help="Orders file; CDNOW if left out.")] = None,
    cutoff: Annotated[
        str, typer.Option(help="Train on what happened before this day alone, YYYY-MM-DD.")
    ] = "1997-10-01",
    horizon_days: Annotated[int, typer.Option(help="Days after the cutoff that are predicted and compared.")] = 273,
    currency: Annotated[str, typer.Option(help="Reporting currency, ISO 4217.")] = "USD",
    json_file: JsonFile = None,
) -> None:
    """Quality of the model on a period after its training, beside baselines."""
    from datetime import date

    from benchmarks.model import run

    _report(run(orders, date.fromisoformat(cutoff), horizon_days, currency), json_file)


def _report(figures: dict[str, Any], json_file: Path | None) -> None:
    Console().print_json(data=figures)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
