"""`./clv`: the operator's commands. Each is a thin function here; the work is in the module that it names."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli import (
    api_keys,
    bench,
    dead_letters,
    erase,
    explain,
    export,
    generate,
    models,
    profile,
    training,
    training_rows,
)
from deploy.local.errors import LocalStackError
from services.runtime.shutdown import KnownProblem

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Real-time customer lifetime value: order events in Kafka, predictions within a second.",
)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")
app.command()(training.train)
app.command()(training.score)
app.command()(training_rows.customer_states)
app.command()(training_rows.training_rows)
app.command()(profile.train_profile)
app.command()(profile.what_if)
app.command()(explain.explain)
app.command()(generate.generate)
app.command("export")(export.export_customer)
app.command("erase")(erase.erase_customer)

EXIT_KNOWN_PROBLEM = 2

Orders = Annotated[
    Path | None, typer.Option(help="Your own orders, CSV or Parquet; the CDNOW purchase history if left out.")
]
Columns = Annotated[
    list[str], typer.Option("--map", help="Column of your file for a name: --map amount=total. Repeat as needed.")
]
Currency = Annotated[str, typer.Option(help="Reporting currency, ISO 4217.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the outcome to this file as JSON.")]


@app.command()
def demo(
    orders: Orders = None,
    columns: Columns = [],  # noqa: B006 - typer copies it
    currency: Currency = "USD",
    exit_at_end: Annotated[bool, typer.Option("--exit", help="Stop at the end instead of running on.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Run the whole product on real order history and check every number."""
    from cli.demo import Demo
    from cli.training import parse_columns

    run = Demo(Console(), orders, parse_columns(columns), currency)
    sys.exit(run.run(stay=not exit_at_end, json_file=json_file))


@app.command()
def up(
    model: Annotated[Path | None, typer.Option(help="Models folder to use; one trained on CDNOW if left out.")] = None,
    currency: Currency = "USD",
    json_file: JsonFile = None,
) -> None:
    """Run servers and services for your own producers and subscribers, until Ctrl-C."""
    from cli.up import run_until_stopped

    run_until_stopped(Console(), model, currency, json_file)


@app.command()
def setup() -> None:
    """Create the declared topics, collections and indexes that are missing on the servers named in the environment."""
    from cli.platform import create_all
    from deploy.local.stack import Addresses
    from services.sink.settings import SinkSettings

    settings = SinkSettings()
    created = create_all(Addresses(settings.kafka_bootstrap_servers, settings.mongo_uri))
    Console().print(f"created topics: {', '.join(created) or 'none, all were there'}")


@app.command()
def doctor() -> None:
    """Check what this machine has and lacks."""
    from deploy.local.doctor import checks

    found = checks()
    table = Table(box=None, padding=(0, 2))
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading)
    for check in found:
        mark = "[green]ok[/green]" if check.ok else "[red]missing[/red]"
        table.add_row(mark, check.name, check.detail, check.remedy)
    Console().print(table)
    sys.exit(0 if all(check.ok for check in found) else EXIT_KNOWN_PROBLEM)


@app.command()
def chaos(
    minutes: Annotated[float, typer.Option(help="How long load and faults go on.", min=0.5)] = 10.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same load and the same faults.")] = 1,
    brokers: Annotated[int, typer.Option(help="Kafka brokers: 1, or 3 with replicas on all of them.")] = 1,
    json_file: JsonFile = None,
    keep: Annotated[Path | None, typer.Option(help="Keep logs and local state in this folder.")] = None,
) -> None:
    """Break everything at random, under load, and check that nothing was lost or counted twice."""
    from cli.chaos.command import main as run_chaos
    from cli.chaos.load import shape_for
    from cli.chaos.run import Options

    if brokers not in (1, 3):
        raise typer.BadParameter("1 or 3", param_hint="--brokers")
    options = Options(seconds=60 * minutes, seed=seed, brokers=brokers, shape=shape_for(minutes))
    sys.exit(run_chaos(options, json_file, keep))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(
    context: typer.Context,
    fast: Annotated[bool, typer.Option("--fast", help="Only what needs no server: under two minutes.")] = False,  # noqa: PT028
    everything: Annotated[bool, typer.Option("--all", help="What takes a minute by itself too, as CI does.")] = False,  # noqa: PT028
) -> None:
    """Run the checks and tests. What follows goes to pytest."""
    from cli.testing import Tier, run_tests

    if fast and everything:
        raise KnownProblem("--fast and --all exclude each other")
    sys.exit(run_tests(Tier.FAST if fast else Tier.ALL if everything else Tier.USUAL, context.args))


@app.command()
def lock() -> None:
    """Pin every dependency group anew in locks/ (needs the network)."""
    from cli.locking import lock_all

    lock_all()


def main() -> None:
    """Run a command. What the operator can mend is one line on standard error and exit code 2."""
    for number in (signal.SIGINT, signal.SIGTERM):  # both end a command cleanly, in the background too
        signal.signal(number, signal.default_int_handler)
    try:
        app()
    except (KnownProblem, LocalStackError) as problem:
        print(f"clv: {problem}", file=sys.stderr)
        sys.exit(EXIT_KNOWN_PROBLEM)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
