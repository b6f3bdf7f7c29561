"""`./clv bench`: the benchmarks in benchmarks/, which print their figures and can write them as JSON."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.training import ObjectiveName, parse_day

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
def recovery(
    customers: Annotated[int, typer.Option(help="Customers whose rows are in the changelog.", min=1)] = 1_000_000,
    chunk_records: Annotated[int, typer.Option(help="Most records of a chunk.", min=1)] = 10_000,
    json_file: JsonFile = None,
) -> None:
    """Seconds until a feature worker without local state is ready: all of it comes from the changelog."""
    from benchmarks.recovery import run

    _report(run(customers, chunk_records), json_file)


@app.command()
def takeover(
    customers: Annotated[int, typer.Option(help="Customers whose rows are in the changelog.", min=1)] = 200_000,
    orders_per_second: Annotated[int, typer.Option(help="Load meanwhile.", min=10)] = 200,
    json_file: JsonFile = None,
) -> None:
    """Seconds without features after one of two feature workers is killed, with a standby copy and without."""
    from benchmarks.takeover import run

    _report(run(customers, orders_per_second), json_file)


@app.command()
def training(
    orders: Annotated[int, typer.Option(help="Orders.", min=1000)] = 1_000_000,
    customers: Annotated[int, typer.Option(help="Customers, of whom some never order.", min=10)] = 120_000,
    windows: Annotated[int, typer.Option(help="Training sets made of it.", min=1, max=24)] = 10,
    whole: Annotated[bool, typer.Option("--whole", help="To a model with its card, as `./clv train` does.")] = False,
    source: Annotated[
        str,
        typer.Option(help="file; topic: orders not folded yet; states: of a feature worker; mongo: the sink's copy."),
    ] = "file",
    json_file: JsonFile = None,
) -> None:
    """Seconds and memory from orders to training sets, or to a model."""
    from benchmarks.training import Source, run

    try:
        chosen = Source(source)
    except ValueError:
        raise typer.BadParameter(f"{source}: one of {', '.join(Source)}", param_hint="--source") from None
    _report(run(customers, orders, windows, whole, chosen), json_file)


@app.command()
def model(
    orders: Annotated[Path | None, typer.Option(help="Orders file; CDNOW if left out.")] = None,
    cutoff: Annotated[
        str, typer.Option(help="Train on what happened before this day alone, YYYY-MM-DD.")
    ] = "1997-10-01",
    horizon_days: Annotated[int, typer.Option(help="Days after the cutoff that are predicted and compared.")] = 273,
    currency: Annotated[str, typer.Option(help="Reporting currency, ISO 4217.")] = "USD",
    objective: Annotated[ObjectiveName, typer.Option(help="As of `./clv train`.")] = ObjectiveName.balanced,
    json_file: JsonFile = None,
) -> None:
    """Quality of the model on a period after its training, beside baselines."""
    from benchmarks.model import run

    _report(run(orders, parse_day("--cutoff", cutoff), horizon_days, currency, objective.value), json_file)


@app.command()
def shops(
    seed: Annotated[int, typer.Option(help="Another seed is other shops.", min=0)] = 1,
    json_file: JsonFile = None,
) -> None:
    """How often the model beats Pareto/NBD + Gamma-Gamma on generated shops of every kind."""
    from benchmarks.shops import run

    _report(run(seed), json_file)


@app.command()
def explanation(
    model: Annotated[
        Path | None, typer.Option(help="A models folder or a bundle's folder; one trained on CDNOW if left out.")
    ] = None,
    customers: Annotated[int, typer.Option(help="Customers to explain.", min=1)] = 200,
    json_file: JsonFile = None,
) -> None:
    """Milliseconds for one customer's explanation, beside one prediction."""
    from benchmarks.explanation import run
    from cli.training import bundle_folder

    _report(run(None if model is None else bundle_folder(model), customers), json_file)


@app.command()
def predict(
    model: Annotated[
        Path | None, typer.Option(help="A models folder or a bundle's folder; one trained on CDNOW if left out.")
    ] = None,
    requests_per_second: Annotated[int, typer.Option(help="Forms sent a second.", min=1)] = 500,
    seconds: Annotated[int, typer.Option(help="For how long, after a warm-up.", min=1)] = 20,
    json_file: JsonFile = None,
) -> None:
    """Latency of POST /v1/predict on one core at a fixed rate, and rows a second of batches."""
    from benchmarks.predict import run
    from cli.training import bundle_folder

    _report(run(None if model is None else bundle_folder(model), requests_per_second, seconds), json_file)


@app.command()
def freshness(
    orders: Annotated[int, typer.Option(help="Orders that are followed.", min=1)] = 200,
    orders_per_second: Annotated[float, typer.Option(help="How many come a second.", min=0.1)] = 10.0,
    json_file: JsonFile = None,
) -> None:
    """Seconds from ingest's 202 until the API shows an order, through every service."""
    from benchmarks.freshness import run

    _report(run(orders, orders_per_second), json_file)


@app.command()
def outage(
    minutes: Annotated[float, typer.Option(help="How long Kafka is dead.", min=0.1, max=60)] = 5.0,
    json_file: JsonFile = None,
) -> None:
    """Kafka dead for minutes under HTTP load: events accepted, refused and lost, memory, and time to recover."""
    from benchmarks.outage import run

    _report(run(minutes), json_file)


def _report(figures: dict[str, Any], json_file: Path | None) -> None:
    Console().print_json(data=figures)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
