"""`./clv explain`: what moved one customer's prediction, in money, from MongoDB's document or from an orders file.

Must never explain a stored prediction by another model without saying so.
"""

import asyncio
import math
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.customer_data import Customer, MongoDatabase, MongoUri, Servers, mongo
from cli.training import bundle_folder, parse_columns
from schemas.model_bundle import METADATA_FILE, OUTPUT_NAMES
from services.runtime.bundle import read_head
from services.runtime.shutdown import KnownProblem

if TYPE_CHECKING:
    from services.inference.explain import Contribution, Explanation, Shown

Floats = NDArray[np.float64]

STORED_TOLERANCE = 1e-6
"""Most that a stored prediction may differ from the model's, relative to it, before it is told."""
_OUTPUT_WORDS = {
    "expected_value": "expected value",
    "expected_orders": "expected orders",
    "p_active": "probability of another order",
    "value_p10": "10th percentile of value",
    "value_p50": "median value",
    "value_p90": "90th percentile of value",
    "next_order_days": "days until the next order, if one comes",
}

_Model = Annotated[Path, typer.Option(envvar="CLV_MODELS_DIR", help="A models folder or a bundle's folder.")]


class Subject(NamedTuple):
    """The customer to explain: features as of a day, and what MongoDB holds as the prediction, if it was asked."""

    as_of: str
    features: Floats
    prediction: dict[str, Any] | None


def explain(
    customer: Customer,
    output: Annotated[
        str, typer.Option("--of", help=f"What to explain: {', '.join(OUTPUT_NAMES)}.")
    ] = "expected_value",
    model: _Model = Path("models"),
    orders: Annotated[Path | None, typer.Option(help="Explain from this orders file instead of MongoDB.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="With --orders: from what happened before this day, YYYY-MM-DD (UTC).")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--map", help="With --orders: column of your file for a name, amount=total.")
    ] = None,
    mongo_uri: MongoUri = "mongodb://localhost:27017/?replicaSet=clv",
    mongo_database: MongoDatabase = "clv",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write it to this file as JSON; - for standard output.")
    ] = None,
) -> None:
    """Show which facts about a customer moved its prediction, and by how much."""
    if output not in OUTPUT_NAMES:
        raise KnownProblem(f"--of {output}: it must be one of {', '.join(OUTPUT_NAMES)}")
    if orders is None:
        if as_of is not None or columns:
            raise KnownProblem("--as-of and --map go with --orders: MongoDB holds the features as of a day of its own")
        subject = asyncio.run(stored_subject(customer, Servers("", mongo_uri, mongo_database)))
        bundle = bundle_of(model, subject)
    else:
        bundle = bundle_folder(model)
        subject = subject_in(orders, columns, as_of, customer, bundle)
    explanation = explanation_of(customer, subject, bundle, output)
    for note in notes(explanation, subject):
        print(f"note: {note}", file=sys.stderr)
    if json_file is None:
        show(Console(), explanation)
    else:
        write_json(json_file, explanation)


def explanation_of(customer_id: str, subject: Subject, bundle: Path, output: str) -> "Explanation":
    """The explanation of a customer by the model of a bundle."""
    from services.inference.explain import Explainer, references_of, rescored
    from services.inference.model import load_model

    head = read_head(bundle)
    stored_in = None if subject.prediction is None else subject.prediction.get("currency")
    if stored_in not in (None, head.currency):
        raise KnownProblem(f"the customer's money is in {stored_in}, but bundle {bundle} is in {head.currency}")
    explainer = Explainer(load_model(bundle, head.currency), references_of(bundle))
    row = rescored(subject.features, head.quintiles)
    (found,) = explainer.explain(row, [output], customer_id=customer_id, as_of=subject.as_of)
    return found


def write_json(path: Path, explanation: "Explanation") -> None:
    """Write it to a file, or to standard output where the path is -. Raises KnownProblem if that cannot be."""
    text = msgspec.json.format(msgspec.json.encode(explanation), indent=1).decode()
    if path == Path("-"):
        print(text)
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise KnownProblem(f"cannot write {path}: {error.strerror or error}") from None


# ---------------------------------------------------------------- from MongoDB


async def stored_subject(customer_id: str, servers: Servers) -> Subject:
    """The customer's current document in `customers`. Raises KnownProblem if there is none, or no MongoDB answers."""
    from schemas.customer_features import feature_matrix
    from schemas.mongo import CUSTOMERS

    async with mongo(servers) as database:
        found: dict[str, Any] | None = await database[CUSTOMERS].find_one({"_id": customer_id})
    if found is None:
        raise KnownProblem(
            f"database {servers.mongo_database} holds no customer {customer_id!r}: is that the shop's id?"
        )
    try:
        return Subject(found["as_of"], feature_matrix([found["features"]])[0], found["prediction"])
    except (KeyError, TypeError, ValueError) as error:
        raise KnownProblem(
            f"the document of {customer_id!r} is of another version of this product: {error!r}"
        ) from None


def bundle_of(model: Path, subject: Subject) -> Path:
    """The bundle that made the stored prediction, if the models folder has it; else the one that is current."""
    version = str((subject.prediction or {}).get("model_version", ""))
    if version and Path(version).name == version and (model / version / METADATA_FILE).is_file():
        return model / version
    return bundle_folder(model)


def notes(explanation: "Explanation", subject: Subject) -> list[str]:
    """In what the explained prediction is not the one that is stored."""
    stored = subject.prediction
    if stored is None:
        return []
    if stored.get("model_version") != explanation.model_version:
        return [
            f"the stored prediction is by model {stored.get('model_version')}, this is {explanation.model_version}'s"
        ]
    value = stored.get(explanation.output)
    if value is not None and not math.isclose(value, explanation.prediction, rel_tol=STORED_TOLERANCE, abs_tol=1e-9):
        return [f"the stored {explanation.output} is {value}, the model now says {explanation.prediction}"]
    return []


# ---------------------------------------------------------------- from an orders file


def subject_in(orders: Path, columns: list[str] | None, as_of: str | None, customer_id: str, bundle: Path) -> Subject:
    """The customer as the orders file tells it before the day. Raises KnownProblem if it tells nothing."""
    from domain.features import day_of
    from services.trainer.orders_file import read_any
    from services.trainer.sources.orders import from_table

    try:
        day = date.fromisoformat(as_of or "")
    except ValueError:
        raise KnownProblem("--orders needs --as-of, a day such as 2026-01-31") from None
    head = read_head(bundle)
    history = from_table(read_any(orders, parse_columns(columns)), day, head.currency).history
    (known,) = history.training_sets([(day_of(day), 0)])
    if customer_id not in known.customer_ids:
        raise KnownProblem(f"{orders} has no valid order of customer {customer_id!r} before {day.isoformat()}")
    place = known.customer_ids.index(customer_id)
    return Subject(day.isoformat(), known.with_quintiles(head.quintiles).features[place], None)


# ---------------------------------------------------------------- for people


def show(console: Console, explanation: "Explanation") -> None:
    """The explanation as a sum, from typical customers down to the prediction."""
    unit = explanation.unit
    shown = Table(box=None, padding=(0, 2), show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    shown.add_column()
    shown.add_row(Text("Typical customers", style="bold"), Text(_amount(explanation.base, unit), style="bold"), "")
    for union in explanation.unions:
        members = [each for each in explanation.contributions if each.union == union.union and each.amount]
        if members:
            shown.add_row(Text(union.label, style="bold"), _change(union.amount, unit, "bold"), "")
        for each in members:
            shown.add_row(Text(f"  {each.label}"), _change(each.amount, unit), Text(_told(each), style="dim"))
    shown.add_row(Text("This customer", style="bold"), Text(_amount(explanation.prediction, unit), style="bold"), "")
    what = _OUTPUT_WORDS.get(explanation.output, explanation.output)
    days = explanation.horizon_days
    in_unit = "" if unit == "probability" else f", in {unit}"
    console.print(
        Text(f"Customer {explanation.customer_id} as of {explanation.as_of}: {what} within {days} days{in_unit}")
    )
    console.print(shown)
    idle = [each.label for each in explanation.contributions if not each.amount]
    if idle:
        console.print(Text(f"Without influence: {'; '.join(idle)}", style="dim"))
    console.print(Text(f"model {explanation.model_version}", style="dim"))


def _told(contribution: "Contribution") -> str:
    return "; ".join(_fact(each) for each in contribution.features[:2])


def _fact(shown: "Shown") -> str:
    return f"{_number(shown.value, shown.unit)} {shown.label} (typical: {_number(shown.typical, shown.unit)})"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "unknown"
    if len(unit) == 3 and unit.isupper():  # a currency
        return f"{value:,.2f} {unit}"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


def _amount(value: float, unit: str, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} %" if unit == "probability" else f"{value:{sign},.2f}"


def _change(value: float, unit: str, style: str = "") -> Text:
    return Text(_amount(value, unit, "+"), style=f"{style} {'green' if value > 0 else 'red'}".strip())
