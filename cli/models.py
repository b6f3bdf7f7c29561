"""`./clv models`: the registry of models, from the command line: what there is, who is champion, who is on trial.

Each command does one thing to the registry (services.runtime.registry) and prints what is true afterwards. Must never
promote a bundle that this version of the code cannot load.
"""

import asyncio
import getpass
import json
import math
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from cli.customer_data import MongoDatabase, MongoUri
from cli.training import bundle_folder
from schemas.models import Model, Pointer
from services.inference.model_comparison import FIGURES, Comparison, compare, warnings
from services.runtime.bundle import read_head
from services.runtime.registry import Registry, connect, mirror, with_registry
from services.runtime.shutdown import KnownProblem
from services.sink.settings import SinkSettings

app = typer.Typer(help="The registry of models: who predicts, who is on trial, what there is.", no_args_is_help=True)

_DEFAULTS = SinkSettings.model_fields
_URI: str = _DEFAULTS["mongo_uri"].default
_DATABASE: str = _DEFAULTS["mongo_database"].default
_Version = Annotated[str, typer.Argument(help="Version of a model, or its beginning.")]
_Why = Annotated[str, typer.Option("--why", help="Reason, kept in the model's history.")]
_By = Annotated[str | None, typer.Option("--by", help="Who does it; you at this machine if left out.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
_Rescore = Annotated[
    list[str] | None,
    typer.Option(
        "--rescore",
        help="Address of a feature worker, such as http://localhost:8002, that is asked to emit its customers anew, so "
        "that the new champion scores them now instead of within the refresh interval. Repeat for each worker.",
    ),
]
_Done = TypeVar("_Done")
SWAP_SECONDS = 10.0
"""How long scorers are given to follow the registry before customers are emitted anew: twice their poll's default."""


def _run(mongo_uri: str, database: str, work: Callable[[Registry], Awaitable[_Done]]) -> _Done:
    return asyncio.run(with_registry(mongo_uri, database, work))


def _who(by: str | None) -> str:
    return by or f"{getpass.getuser()}@{socket.gethostname()}"


@app.command("list")
def list_models(mongo_uri: MongoUri = _URI, mongo_database: MongoDatabase = _DATABASE, as_json: _Json = False) -> None:
    """All models, the last registered first."""

    async def look(registry: Registry) -> tuple[list[Model], Pointer]:
        return await registry.models(), await registry.pointer()

    models, pointer = _run(mongo_uri, mongo_database, look)
    if as_json:
        _print_json({"pointer": pointer, "models": models})
        return
    shown = Table(box=None, padding=(0, 2))
    for heading in ("version", "status", "registered", "by", "promoted", "cutoff", "days", "MAE", "nGini"):
        shown.add_column(heading, justify="right" if heading in ("days", "MAE", "nGini") else "left")
    for model in models:
        quality = _quality(model)
        shown.add_row(
            model.version,
            model.status.value,
            _time(model.registered_at),
            model.registered_by,
            _time(model.promoted_at),
            model.cutoff or "–",
            str(model.horizon_days),
            _figure(quality.get("mae")),
            _figure(quality.get("ngini")),
        )
    console = Console()
    console.print(shown if models else "no model is registered: `./clv models register FOLDER`")


@app.command()
def show(
    version: _Version, mongo_uri: MongoUri = _URI, mongo_database: MongoDatabase = _DATABASE, as_json: _Json = False
) -> None:
    """One model: facts, files, and what became of it when."""
    model = _run(mongo_uri, mongo_database, lambda registry: registry.model(version))
    if as_json:
        _print_json(model)
        return
    console = Console()
    size = sum(each.bytes for each in model.files)
    console.print(
        f"{model.version}: {model.status.value}; {model.horizon_days} days, {model.currency}, trained on what happened "
        f"before {model.cutoff or 'an unknown day'}; {len(model.files)} files, {size:,} bytes",
        highlight=False,
    )
    for each in model.history:
        change = each.now.value if each.was is None else f"{each.was.value} → {each.now.value}"
        reason = f": {each.why}" if each.why else ""
        console.print(f"  {_time(each.at)}  {change} by {each.by}{reason}", highlight=False, markup=False)


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="A bundle's folder, or a models folder, whose `current` is meant.")],
    mongo_uri: MongoUri = _URI,
    mongo_database: MongoDatabase = _DATABASE,
    by: _By = None,
    why: _Why = "",
) -> None:
    """Store a bundle in the registry. The first one becomes champion, as nobody else could predict."""
    register_bundle(Console(), bundle_folder(folder), mongo_uri, mongo_database, by, why)


def register_bundle(
    console: Console, folder: Path, mongo_uri: str, mongo_database: str, by: str | None = None, why: str = ""
) -> str:
    """Register a bundle and print what came of it; its version. Raises KnownProblem if it cannot be used or stored."""
    from services.inference.model import load_model

    load_model(folder, read_head(folder).currency)  # what scorers would refuse must not come into question

    async def put(registry: Registry) -> tuple[Model, bool, bool]:
        model, new = await registry.register(folder, _who(by), why)
        pointer = await registry.pointer()
        first = pointer.champion is None
        if first:
            await registry.promote(model.version, _who(by), "the first model", pointer.revision)
        return model, new, first

    model, new, first = _run(mongo_uri, mongo_database, put)
    console.print(f"model {model.version} {'is registered' if new else 'was registered already'}", highlight=False)
    if first:
        console.print("it is the champion, as there was none", highlight=False)
    elif new:
        console.print(
            f"next: `./clv models challenge {model.version}` tries it beside the champion, `promote` puts it in use",
            highlight=False,
            soft_wrap=True,
        )
    return model.version


@app.command()
def promote(
    version: _Version,
    mongo_uri: MongoUri = _URI,
    mongo_database: MongoDatabase = _DATABASE,
    by: _By = None,
    why: _Why = "",
    rescore: _Rescore = None,
) -> None:
    """Make a model the champion: scorers take it into use within seconds."""

    async def move(registry: Registry) -> Pointer:
        pointer = await registry.pointer()
        model = await registry.model(version)
        return await registry.promote(model.version, _who(by), why, pointer.revision)

    _tell(_run(mongo_uri, mongo_database, move))
    _rescore(rescore)


@app.command()
def rollback(
    mongo_uri: MongoUri = _URI,
    mongo_database: MongoDatabase = _DATABASE,
    by: _By = None,
    why: _Why = "",
    rescore: _Rescore = None,
) -> None:
    """Make the former champion the champion again."""

    async def move(registry: Registry) -> Pointer:
        pointer = await registry.pointer()
        return await registry.rollback(_who(by), why, pointer.revision)

    _tell(_run(mongo_uri, mongo_database, move))
    _rescore(rescore)


@app.command()
def challenge(
    version: Annotated[str | None, typer.Argument(help="Version of a model, or its beginning.")] = None,
    none: Annotated[bool, typer.Option("--none", help="End the trial that goes on.")] = False,
    mongo_uri: MongoUri = _URI,
    mongo_database: MongoDatabase = _DATABASE,
    by: _By = None,
    why: _Why = "",
) -> None:
    """Put a model on trial: it predicts beside the champion, for comparison alone."""
    if none == (version is not None):
        raise KnownProblem("name one model, or give --none to end the trial")

    async def move(registry: Registry) -> Pointer:
        pointer = await registry.pointer()
        chosen = None if version is None else (await registry.model(version)).version
        return await registry.challenge(chosen, _who(by), why, pointer.revision)

    _tell(_run(mongo_uri, mongo_database, move))


@app.command()
def fetch(
    models_dir: Annotated[Path, typer.Argument(help="Models folder; `current` in it will name the champion.")],
    mongo_uri: MongoUri = _URI,
    mongo_database: MongoDatabase = _DATABASE,
) -> None:
    """Bring champion and challenger into a folder, for whoever follows a folder instead of the registry."""
    found = _run(mongo_uri, mongo_database, lambda registry: mirror(registry, models_dir))
    if found.champion is None:
        raise KnownProblem("the registry has no champion: `./clv models register FOLDER`")
    Console().print(f"champion {found.champion}, challenger {found.challenger or '–'} in {models_dir}", highlight=False)


@app.command("compare")
def compare_models(
    first: Annotated[str | None, typer.Argument(help="A model; the champion if left out.")] = None,
    second: Annotated[str | None, typer.Argument(help="Another; the challenger if left out.")] = None,
    mongo_uri: MongoUri = _URI,
    mongo_database: MongoDatabase = _DATABASE,
    as_json: _Json = False,
) -> None:
    """Two models side by side: quality when they were trained, what they say of the same customers, what came true."""

    async def look() -> Comparison:
        client = connect(mongo_uri)
        try:
            registry = Registry(client, mongo_database)
            pointer = await registry.pointer()
            chosen = [first or pointer.champion, second or pointer.challenger]
            if None in chosen:
                raise KnownProblem("name two models: there is no champion or no challenger; see `./clv models list`")
            one, other = [await registry.model(str(each)) for each in chosen]
            return await compare(client[mongo_database], one, other)
        finally:
            client.close()

    found = asyncio.run(look())
    if as_json:
        differ = found.on_same_customers
        _print_json(
            {
                "models": [found.first, found.second],
                "on_same_customers": differ and differ._asdict(),
                "realised": found.realised,
                "warnings": warnings(found.first, found.second),
            }
        )
        return
    _print_comparison(Console(), found)


def _print_comparison(console: Console, found: Comparison) -> None:
    first, second = found.first, found.second
    shown = Table(box=None, padding=(0, 2))
    for heading in ("", *(f"{each.version} ({each.status.value})" for each in (first, second))):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, heading in FIGURES.items():
        shown.add_row(f"{heading}, held-out period", *(_figure(_quality(each).get(name)) for each in (first, second)))
    for name in dict.fromkeys(key for figures in found.realised.values() for key in figures):
        values = [_figure(found.realised.get(each.version, {}).get(name)) for each in (first, second)]
        shown.add_row(f"{name.replace('_', ' ')}, came true", *values)
    differ = found.on_same_customers
    if differ is not None:
        shown.add_row("total, same customers", _figure(differ.total_first), _figure(differ.total_second))
    console.print(shown)
    if differ is None:
        console.print("neither was on trial beside the other: no customer has predictions by both", highlight=False)
    else:
        console.print(
            f"{differ.customers:,} customers were predicted by both from the same features: rank correlation "
            f"{_figure(differ.rank_correlation)}, mean difference {_figure(differ.mean_difference)} {first.currency}, "
            f"{differ.segment_differs:.1%} in another quarter, p_active differs by {_figure(differ.active_difference)}",
            highlight=False,
        )
    if not found.realised:
        console.print("no prediction of theirs has come to the end of its horizon yet", highlight=False)
    for warning in warnings(first, second):
        console.print(f"note: {warning}", highlight=False)


def _tell(pointer: Pointer) -> None:
    told = f"champion {pointer.champion or '–'}, challenger {pointer.challenger or '–'}"
    Console().print(f"{told} (revision {pointer.revision})", highlight=False)


def _rescore(urls: list[str] | None) -> None:
    """Ask feature workers to emit their customers anew, once the scorers have had the time to follow."""
    if not urls:
        return
    console = Console()
    with console.status("waiting for the scorers to follow"):
        time.sleep(SWAP_SECONDS)
    for url in urls:
        try:
            answer = httpx.post(f"{url.rstrip('/')}/v1/refresh", timeout=30)
        except httpx.HTTPError as error:
            raise KnownProblem(f"{url} was not asked to emit its customers anew: {error}") from None
        if answer.status_code != httpx.codes.ACCEPTED:
            raise KnownProblem(f"{url} refused to emit its customers anew: {answer.text[:200]}")
        console.print(f"{url} emits its customers anew", highlight=False)


def _quality(model: Model) -> dict[str, Any]:
    return dict((model.metrics.get("metrics") or {}).get("model") or {})


def _figure(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:,.3f}"


def _time(at: Any) -> str:
    return at.strftime("%Y-%m-%d %H:%M") if at else "–"


def _print_json(found: Any) -> None:
    print(json.dumps(json.loads(msgspec.json.encode(found)), indent=2))
