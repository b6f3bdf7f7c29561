"""The model card: what a model is, how good it was on days that it had not seen, how sure that is and what it cannot
know, as one HTML file and as Markdown with pictures. It must never say anything that is not in the facts it is given,
nor load anything from elsewhere when it is read."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from schemas.model_bundle import VERSION_FIELD
from services.trainer.card_plots import Plot, plots
from services.trainer.evaluation import MODEL, Backtest
from services.trainer.quality import BETTER, HEADINGS, UNDECIDED

MARKDOWN_FILE, HTML_FILE, PLOTS_FOLDER = "model_card.md", "model_card.html", "plots"

COMPARED = ("mae", "rmse", "spearman", "ngini", "bias", "decile_mape", "auc_active")
_SHARES = ("bias", "decile_mape", "coverage_p10_p90", "share_above_p90", "share_below_p10")


def figure(name: str, value: float | None) -> str:
    """A figure for a person."""
    if value is None:
        return "–"
    if name in _SHARES:
        return (f"{value:+.1%}" if name == "bias" else f"{value:.1%}").replace("-", "−")
    return f"{value:,.2f}" if name in ("mae", "rmse") else f"{value:.3f}"


def figure_interval(name: str, interval: Sequence[float] | None) -> str:
    """Its 95 % interval for a person; '' if there is none."""
    return "" if interval is None else f"{figure(name, interval[0])} to {figure(name, interval[1])}"


def signed(name: str, value: float) -> str:
    """A difference of two figures for a person."""
    text = figure(name, abs(value)).lstrip("+−")
    if not any(digit in text for digit in "123456789"):
        return text
    return ("+" if value > 0 else "−") + text


def card_files(metadata: Mapping[str, Any], backtests: Sequence[Backtest] = ()) -> dict[str, bytes]:
    """The files of a card by their path within the bundle, from complete metadata (with its version).

    backtests: those that metadata's `backtests` were made from; without them the card has no plots. The same arguments
    give the same bytes.
    """
    facts = metadata.get("backtests") or []
    latest = max(backtests, key=lambda each: each.origin_day, default=None)
    pictures: list[Plot] = []
    if latest is not None and facts:
        pictures = plots(latest, facts, metadata.get("importance") or {}, metadata["currency"])
    shared = {"facts": metadata, "latest": facts[-1] if facts else None, "version": metadata[VERSION_FIELD]}
    files = {f"{PLOTS_FOLDER}/{plot.name}.svg": plot.svg for plot in pictures}
    inline = [(plot, "data:image/svg+xml;base64," + b64encode(plot.svg).decode()) for plot in pictures]
    linked = [(plot, f"{PLOTS_FOLDER}/{plot.name}.svg") for plot in pictures]
    templates = environment()
    files[HTML_FILE] = templates.get_template("model_card.html").render(**shared, plots=inline).encode()
    files[MARKDOWN_FILE] = templates.get_template("model_card.md").render(**shared, plots=linked).encode()
    return files


def environment() -> Environment:
    """Of the templates; HTML is escaped. An unknown name in a template is an error, never an empty place."""
    made = Environment(
        loader=PackageLoader("services.trainer"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["cell"] = cell
    made.filters["leaves"] = leaves
    made.filters["customers_told_apart"] = customers_told_apart
    made.globals.update(
        FIGURES=HEADINGS, COMPARED=COMPARED, COMPARED_ABOVE=(*COMPARED, "share_above_p90"), MODEL=MODEL, figure=figure,
        figure_interval=figure_interval, signed=signed, verdict=verdict,
    )  # fmt: skip
    return made


def verdict(found: Mapping[str, Any]) -> str:
    """Whether the model wins, in a word or two."""
    if found["verdict"] == UNDECIDED:
        return "undecided"
    return "model, certain" if found["verdict"] == BETTER else "baseline, certain"


def cell(text: object) -> str:
    """Text for a cell of a Markdown table or an item of a list: on one line, without what would end it or be markup."""
    plain = " ".join(str(text).split())
    for sign in ("\\", "|", "<", "*", "`", "["):
        plain = plain.replace(sign, "\\" + sign)
    return plain


def customers_told_apart(choices: Mapping[str, Any]) -> str:
    """What was found of customers in two classes, in a sentence; '' where they are of one, or nobody looked."""
    second = choices.get("second_class") or {}
    if not second.get("found"):
        return ""
    return (
        f"Customers are told apart in two classes: {second['share']:.1%} spend {second['spend_factor']:.1f} times as "
        f"much a day that they order, and order {second['rate_factor']:.1f} times as often, as the others."
    )


def leaves(choices: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Nested choices as (dotted name, value as text), in their own order."""
    found: list[tuple[str, str]] = []
    for name, value in choices.items():
        where = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            found += leaves(value, where)
        else:
            found.append((where, f"{value + 0.0:.6g}" if isinstance(value, float) else str(value)))  # no −0
    return found
