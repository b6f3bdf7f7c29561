"""`./clv generate`: an orders file of a shop that never was, its truth, and how much of it survives reading. It must
never make anything up itself: the shop is services.trainer.generation's."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.runtime.shutdown import KnownProblem

if TYPE_CHECKING:
    from services.trainer.generation import Shop
    from services.trainer.generation.completeness import Completeness

EXIT_INCOMPLETE = 1


def generate(
    customers: Annotated[int | None, typer.Option(help="Customers, each with at least one order.")] = None,
    years: Annotated[float | None, typer.Option(help="Length of the history; whole years are exact.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed and parameters give the same file.")] = 1,
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD (UTC).")] = None,
    currency: Annotated[str, typer.Option(help="Currency of all amounts, ISO 4217.")] = "USD",
    shop: Annotated[str, typer.Option(help="Kind of shop; --parameters lists them.")] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter of the shop: --set refund_share=0.1. Repeat as needed."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Orders file to write: .csv or .parquet.")] = Path(
        "generated-orders.csv"
    ),
    truth: Annotated[
        Path | None, typer.Option(help="Write the true parameters, customers and counts to this file as JSON.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read the file back and measure how complete it is.")] = False,
    show: Annotated[bool, typer.Option("--parameters", help="List shops and parameters; write nothing.")] = False,
) -> None:
    """Make an orders file with a known truth: seasons, refunds, repeats, late and broken rows at known shares."""
    from services.trainer.generation import generate as generate_shop
    from services.trainer.generation import preset
    from services.trainer.generation.completeness import measure
    from services.trainer.generation.files import write_orders, write_truth

    for path in (output, truth):
        if path is not None and not show and not path.parent.is_dir():
            raise KnownProblem(f"cannot write {path}: there is no folder {path.parent}")
    console = Console()
    options = {"customers": customers, "years": years, "start": start, "seed": seed, "currency": currency}
    given = {name: value for name, value in options.items() if value is not None}
    spec = preset(shop, **{**given, **parse_settings(settings)})
    if show:
        _print_parameters(console, spec, shop)
        return
    with console.status("generating") as status:
        made = generate_shop(spec)
        status.update(f"writing {output}")
        write_orders(made, output)
        if truth is not None:
            write_truth(made, truth)
        status.update("reading it back")
        complete = measure(made, output) if check else None
    _print_shop(console, made, output)
    if complete is not None:
        _print_completeness(console, complete)
        sys.exit(0 if complete.is_enough else EXIT_INCOMPLETE)


def parse_settings(pairs: Sequence[str] | None) -> dict[str, str]:
    """`name=value` pairs as a mapping. Raises KnownProblem for anything else."""
    found = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise KnownProblem(f"--set {pair}: write it as name=value, such as --set refund_share=0.1")
        found[name.strip()] = value.strip()
    return found


def _print_parameters(console: Console, spec: Any, shop: str) -> None:
    from services.trainer.generation.spec import PRESETS, parameters

    shops = Table(title="shops", title_justify="left", box=None, padding=(0, 1), show_header=False)
    for name, preset in PRESETS.items():
        shops.add_row(name, preset.meaning)
    console.print(shops)
    table = Table(title=f"parameters of {shop}", title_justify="left", box=None, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value, meaning in parameters(spec):
        table.add_row(name, ",".join(map(str, value)) if isinstance(value, tuple) else str(value), meaning)
    console.print(table)


def _print_shop(console: Console, shop: "Shop", output: Path) -> None:
    from domain.features import date_of

    counts = shop.counts
    lost, dirty = sum(counts["lost"].values()), sum(counts["dirty"].values())
    first, last = date_of(shop.start_day), date_of(shop.end_day - 1)
    lines = (
        f"{counts['rows']:,} rows in {output}: {len(shop.customers):,} customers from {first} to {last}",
        f"  {counts['orders']:,} orders, {counts['refunds']:,} refunds; {counts['untidy']:,} of them in an untidy "
        f"form, {counts['late']:,} late, {lost:,} lost (no good row)",
        f"  {counts['duplicates']:,} exact repeats, {dirty:,} broken copies beside the good row",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _print_completeness(console: Console, found: "Completeness") -> None:
    from services.trainer.generation.completeness import COMPLETENESS_MIN

    lines = (
        f"complete after reading and judging: {found.events_share:.4%} of orders and refunds are there with exact "
        f"customer, time and amount ({found.events - found.events_found:,} of {found.events:,} are not)",
        f"  {found.cells_share:.4%} of the feature cells that their customers' history suffices for are known "
        f"({found.cells - found.cells_found:,} of {found.cells:,} are not); {found.exact_share:.4%} are exact",
        f"  {found.rows_invented:,} valid rows that never happened",
        *(() if found.is_enough else (f"  this is less than the {COMPLETENESS_MIN:.2%} that are asked for",)),
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
