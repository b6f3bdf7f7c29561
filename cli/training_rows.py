"""`./clv customer-states` and `./clv training-rows`: customers' states and training rows by Apache Spark, from order
files that are too large for one machine."""

from typing import Annotated

import typer
from rich.console import Console

from cli.training import parse_day
from services.runtime.shutdown import KnownProblem

_Orders = Annotated[
    str, typer.Option("--orders", help="Orders as Spark reads them: Parquet or CSV files, a folder, a URL.")
]
_Cutoff = Annotated[str, typer.Option("--cutoff", help="Nothing of this day or later is known, YYYY-MM-DD (UTC).")]
_Currency = Annotated[str, typer.Option("--currency", help="Reporting currency, ISO 4217.")]
_Master = Annotated[str, typer.Option("--master", help="Spark's master.")]
_Groups = Annotated[
    int, typer.Option("--groups", help="Groups of customers; the orders of one must fit into memory.", min=1)
]


def customer_states(
    orders: _Orders,
    cutoff: _Cutoff,
    output: Annotated[str, typer.Option(help="Folder or URL for the states, as Parquet. Must not exist.")],
    currency: _Currency = "USD",
    master: _Master = "local[*]",
    groups: _Groups = 200,
) -> None:
    """Fold orders into customers' states by Spark, for `./clv train --from-states` (needs locks/spark.txt and Java)."""
    from services.trainer.sources.states import COUNTS, STATES
    from services.trainer.spark import counted_rows, new_session, one_line_problems, read_orders, states_frame

    day, place = parse_day("--cutoff", cutoff), output.rstrip("/")
    session = new_session(master)
    try:
        with one_line_problems():
            rows = read_orders(session, orders)
            states_frame(rows, day, currency, groups).write.parquet(f"{place}/{STATES}")
            counted_rows(rows, day, currency).coalesce(1).write.parquet(f"{place}/{COUNTS}")
            written = session.read.parquet(f"{place}/{STATES}").count()
    finally:
        session.stop()
    Console().print(f"{written:,} customers' states in {output}", highlight=False, soft_wrap=True)


def training_rows(
    orders: _Orders,
    cutoff: _Cutoff,
    origin: Annotated[list[str], typer.Option(help="Features as of this day, YYYY-MM-DD (UTC). Repeat as needed.")],
    horizon_days: Annotated[int, typer.Option(help="Days from each origin on that the targets are of; 0 for none.")],
    output: Annotated[str, typer.Option(help="Folder or URL for the rows, as Parquet. Must not exist.")],
    currency: _Currency = "USD",
    master: _Master = "local[*]",
    groups: _Groups = 200,
) -> None:
    """Write features and targets of every customer as of some days, made by Spark (needs locks/spark.txt and Java)."""
    from domain.features import day_of
    from services.trainer.spark import new_session, one_line_problems, read_orders, refused_rows, training_frame

    windows = [(day_of(parse_day("--origin", each)), horizon_days) for each in origin]
    session = new_session(master)
    try:
        with one_line_problems():
            rows = read_orders(session, orders)
            try:
                training_frame(rows, windows, parse_day("--cutoff", cutoff), currency, groups).write.parquet(output)
            except ValueError as error:
                raise KnownProblem(str(error)) from None
            refused = sorted((row["reason"], row["rows"]) for row in refused_rows(rows, currency).collect())
            written = session.read.parquet(output).count()
    finally:
        session.stop()
    console = Console()
    console.print(f"{written:,} training rows in {output}", highlight=False, soft_wrap=True)
    for reason, count in refused:
        console.print(f"  {count:,} rows refused: {reason}", highlight=False)
