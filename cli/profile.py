"""`./clv train-profile` and `./clv what-if`: the classic profile model, and one form answered by it. The work is in
services.trainer.profile.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from services.runtime.shutdown import KnownProblem

SEED_MAX = 2**32 - 1


def train_profile(
    output: Annotated[Path, typer.Option(help="Folder for profile.onnx, profile.json and the card.")],
    customers: Annotated[int, typer.Option(help="Customers of the generated shop.", min=1)] = 20_000,
    years: Annotated[float, typer.Option(help="Years of history of the generated shop.", min=0.1)] = 3.0,
    seed: Annotated[int, typer.Option(help="Of the shop, the split and the models.", min=0, max=SEED_MAX)] = 7,
    orders: Annotated[
        Path | None, typer.Option(help="Your own orders (CSV, Parquet or CDNOW) instead of a generated shop.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Profiles at the end of this day, YYYY-MM-DD (UTC); the last one if left out.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="Column of your file for a name: --map amount=total. Repeat as needed."),
    ] = None,
    currency: Annotated[str, typer.Option(help="Reporting currency of your orders, ISO 4217.")] = "USD",
    with_keras: Annotated[
        bool, typer.Option("--with-keras/--without-keras", help="With the neural network among the candidates.")
    ] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metadata to this file as JSON.")] = None,
) -> None:
    """Train the what-if form's model: monetary value from seven inputs, candidates compared in one table."""
    from services.trainer.profile.network import MISSING, keras_is_installed
    from services.trainer.profile.table import generated_table
    from services.trainer.profile.train import train_profile as train

    console = Console()
    if with_keras and not keras_is_installed():
        console.print(MISSING, highlight=False, soft_wrap=True)
        with_keras = False
    with console.status("the customers' profiles") as status:
        if orders is None:
            table = generated_table(customers, years, seed)
        else:
            table = _own_table(orders, columns, currency, as_of)
        trained = train(table, output, seed=seed, with_network=with_keras, progress=status.update)
    _print_profile(console, trained.metadata, output)
    if json_file is not None:
        try:
            json_file.write_bytes(msgspec.json.format(msgspec.json.encode(trained.metadata), indent=1) + b"\n")
        except OSError as error:
            raise KnownProblem(f"cannot write {json_file}: {error.strerror or error}") from None


def what_if(
    model: Annotated[Path, typer.Option(help="Folder that `./clv train-profile` wrote.")],
    total_orders: Annotated[float, typer.Option(help="Orders so far.")],
    average_order_value: Annotated[float, typer.Option(help="Mean amount of an order.")],
    purchase_frequency: Annotated[float, typer.Option(help="Orders a month.")],
    customer_lifetime_days: Annotated[float, typer.Option(help="Days since the first order.")],
    days_since_last_purchase: Annotated[float, typer.Option(help="Days since the last order.")],
    frequency_score: Annotated[float, typer.Option(help="1 (fewest orders) to 5.")],
    customer_age: Annotated[float | None, typer.Option(help="Years; unknown if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Answer one what-if form by the profile model: value so far, from seven inputs."""
    from services.inference.profile_model import input_row, load_profile

    inputs = {
        "customer_age": customer_age,
        "purchase_frequency": purchase_frequency,
        "average_order_value": average_order_value,
        "total_orders": total_orders,
        "customer_lifetime_days": customer_lifetime_days,
        "days_since_last_purchase": days_since_last_purchase,
        "frequency_score": frequency_score,
    }
    loaded = load_profile(model)
    try:
        row = input_row(inputs)
    except ValueError as error:
        raise KnownProblem(str(error)) from None
    value = float(loaded.predict(row)[0])
    if as_json:
        told = {"monetary_value": value, "currency": loaded.head.currency, "model_version": loaded.head.model_version}
        print(msgspec.json.encode(told).decode())
        return
    console = Console()
    console.print(f"monetary value {value:,.2f} {loaded.head.currency}, by profile model {loaded.head.model_version}",
                  highlight=False, soft_wrap=True)  # fmt: skip
    console.print(
        f"orders × average order value is {total_orders * average_order_value:,.2f}: the model knows (almost) nothing "
        "else, and says nothing of what is to come",
        highlight=False,
        soft_wrap=True,
    )


def _own_table(orders: Path, columns: list[str] | None, currency: str, as_of: str | None) -> Any:
    from cli.training import parse_columns, parse_day
    from domain.features import day_of
    from services.trainer.orders_file import read_any
    from services.trainer.profile.table import table_of

    day = None if as_of is None else day_of(parse_day("--as-of", as_of))
    read = read_any(orders, parse_columns(columns))
    return table_of(read, currency, day, {}, {"kind": "orders file", "file": orders.name})


def _print_profile(console: Console, metadata: Mapping[str, Any], folder: Path) -> None:
    from services.trainer.profile.card import candidates_table

    table = candidates_table(metadata)
    title = f"{metadata['customers']['test']:,} held-out customers of {metadata['customers']['all']:,}"
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in table.headings:
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    for row in table.rows:
        shown.add_row(*row, style="bold" if row[0] == table.marked else "")
    console.print(shown)
    console.print(
        "the target is (almost) orders × average order value, two of the inputs: arithmetic, not foresight",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"profile model {metadata['model_version']}, {metadata['chosen']}, in {folder}",
        highlight=False,
        soft_wrap=True,
    )
