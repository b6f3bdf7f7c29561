"""The card of a profile model, Markdown and HTML: what it answers, how exactly, and that exactness here is arithmetic.
It must never show a figure that the metadata does not hold, nor round a figure up to perfection.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from schemas.profile_model import MODEL_FILE, TIMINGS_FIELD
from services.trainer.profile.candidates import BOOSTED_LINE, LINE, PRODUCT
from services.trainer.profile.plots import Plot

TEMPLATE_FILE = "card.html.jinja"
UNITS_SHOWN = 8
"""Digits of R² behind the point."""


class Table(NamedTuple):
    """A table for people: a heading for each cell of each row; the first cell names the row."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: str | None = None
    """The name of the row that stands out."""


class Section(NamedTuple):
    """A part of the card: paragraphs, then a table."""

    title: str
    paragraphs: Sequence[str]
    table: Table | None = None
    plot: str | None = None
    """Name of the plot that the HTML shows here."""


def r_squared_text(value: float) -> str:
    """R², cut off behind UNITS_SHOWN digits and never rounded up: only what is 1 reads as 1."""
    if not math.isfinite(value):
        return "–"
    unit = 10.0**UNITS_SHOWN
    return f"{math.floor(value * unit) / unit:.{UNITS_SHOWN}f}"


def money_text(value: float) -> str:
    """An amount, or an error in money, which may be far below a cent."""
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.1e}"


def sections(metadata: Mapping[str, Any]) -> list[Section]:
    """The card's content, from profile.json alone."""
    return [
        _what_it_is(metadata),
        _candidates(metadata),
        _choice(metadata),
        _importance(metadata),
        _unscaled(metadata),
        _data(metadata),
    ]


def _what_it_is(metadata: Mapping[str, Any]) -> Section:
    product = metadata["references"][PRODUCT]
    return Section(
        "Arithmetic, not foresight",
        [
            f"The model gives a customer's monetary value so far, in {metadata['currency']}, from the seven inputs of "
            "the what-if form. That value is (almost) total_orders × average_order_value, and both are inputs: the "
            "figures below measure how well a model multiplies, not how well anything is foreseen. What customers will "
            "spend is the work of the forecasting model (`./clv train`), whose card is measured on a later period.",
            "The target is the sum of the customer's order amounts, before refunds. What “almost” stands for: "
            "average_order_value is that sum divided by the orders, so multiplying back differs by the rounding of one "
            f"division, {product['relative_error_max']:.0e} of the value at most. With the average rounded to what "
            f"money has, as a person types it, the product reaches R² {r_squared_text(product['r2_rounded_average'])}. "
            f"Refunds ({metadata['refunded_share']:.1%} of the money) are left out because none of the seven inputs "
            "knows of them: against the value after refunds the product reaches R² "
            f"{product['r2_of_net_value']:.4f}, and no input tells whose orders came back.",
        ],
    )


def _candidates(metadata: Mapping[str, Any]) -> Section:
    counts = metadata["customers"]
    left_out = [f"Left out: {reason}." for reason in metadata["left_out"].values()]
    return Section(
        f"On {counts['test']:,} held-out customers",
        [
            f"{counts['all']:,} customers, split by customer: {counts['training']:,} to fit to, "
            f"{counts['validation']:,} to choose by, {counts['test']:,} looked at once, after all was chosen. Every "
            "figure is the ONNX graph's. MAE and RMSE are in money, MAPE relative. “fit ×” and “run ×” are processor "
            "time to fit and to predict a row, as multiples of the ridge regression's; kB is the graph's size; parity "
            "is the largest relative difference from the Python original on the held-out rows and on absurd ones.",
            *left_out,
        ],
        candidates_table(metadata),
        "errors",
    )


def candidates_table(metadata: Mapping[str, Any]) -> Table:
    """Every candidate and reference, a row each; the chosen one is marked."""
    headings = ("", "R²", "MAE", "MAPE", "RMSE", "fit ×", "kB", "run ×", "parity")
    timings = metadata[TIMINGS_FIELD]
    rows = []
    for name, figures in {**metadata["references"], **metadata["candidates"]}.items():
        costs = _cost_cells(figures, timings[name], timings[LINE]) if name in timings else ["–"] * 4
        rows.append([f"{name} (reference)" if figures["is_reference"] else name, *_error_cells(figures), *costs])
    return Table(headings, rows, metadata["chosen"])


def _cost_cells(figures: Mapping[str, Any], took: Mapping[str, float], line_took: Mapping[str, float]) -> list[str]:
    return [
        f"{took['fit_seconds'] / line_took['fit_seconds']:,.0f}",
        f"{figures['onnx_bytes'] / 1000:,.0f}",
        f"{took['microseconds_per_row'] / line_took['microseconds_per_row']:,.1f}",
        f"{figures['parity_error_max']:.0e}",
    ]


def _error_cells(figures: Mapping[str, Any]) -> list[str]:
    return [
        r_squared_text(figures["r2"]), money_text(figures["mae"]), f"{figures['mape']:.1e}",
        money_text(figures["rmse"]), ]  # fmt: skip


def _choice(metadata: Mapping[str, Any]) -> Section:
    chosen = metadata["chosen"]
    said = [
        f"{chosen[0].upper()}{chosen[1:]} is {MODEL_FILE}: of the candidates that are no mere reference it had the "
        "lowest RMSE on the customers that choose. All candidates predict the value as a multiple of a power of two "
        "near the customer's total spending, so that small and large customers are alike to them and one larger than "
        "any seen is nothing new."
    ]
    if chosen == BOOSTED_LINE:
        said.append(
            "It starts from the ridge regression and its trees correct what that leaves over, which is little: a line "
            "is already right, because total_spending is one of the columns."
        )
    return Section("The choice", said)


def _importance(metadata: Mapping[str, Any]) -> Section:
    inputs, columns = metadata["importance"]["inputs"], metadata["importance"]["columns"]
    ranked = sorted(inputs.items(), key=lambda item: -item[1])
    leading = [
        f"{name} ({lost:.2g})" for name, lost in sorted(columns.items(), key=lambda item: -item[1]) if lost > 1e-6
    ]
    return Section(
        "What it rests on",
        [
            "R² lost when one input is shuffled among the held-out customers; more than 1 is worse than not knowing "
            "the customer at all. The others carry nothing that the target holds.",
            "Shuffling one of the 21 columns that the inputs are made into, the rest left as they are: "
            f"{', '.join(leading[:5]) or 'nothing is lost'}.",
        ],
        Table(("input", "R² lost"), [(name, f"{lost:.2g}" if abs(lost) >= 1e-9 else "0") for name, lost in ranked]),
        "importance",
    )


def _unscaled(metadata: Mapping[str, Any]) -> Section:
    return Section(
        "What did not work",
        [
            "The same ensembles on the same customers, fitted to the value itself or to its logarithm. They answer in "
            "steps and do not extrapolate, so they miss the few large customers that make up most of the variance."
        ],
        Table(
            ("ensemble", "fitted to", "R²"),
            [(each["name"], each["target"], r_squared_text(each["r2"])) for each in metadata["unscaled"]],
        ),
    )


def _data(metadata: Mapping[str, Any]) -> Section:
    source = ", ".join(f"{name} {value}" for name, value in metadata["source"].items())
    libraries = ", ".join(f"{name} {version}" for name, version in metadata["libraries"].items())
    return Section(
        "Data",
        [
            f"{metadata['orders']:,} orders of {metadata['customers']['all']:,} customers from {metadata['first_day']} "
            f"to {metadata['as_of']} ({source}). The age is unknown for {metadata['age_missing_share']:.0%} and is a "
            "missing value to the model. Scores are quintiles of the customers that were fitted to.",
            f"Fingerprint of the table: {metadata['data_fingerprint']}. Made with {libraries}; "
            f"seed {metadata['seed']}.",
        ],
    )


def markdown(metadata: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    lines = [f"# Classic profile model {metadata['model_version']}", ""]
    for section in sections(metadata):
        lines += [f"## {section.title}", ""]
        for paragraph in section.paragraphs:
            lines += [paragraph, ""]
        if section.table is not None:
            lines += [_row(section.table.headings), "|---" + "|--:" * (len(section.table.headings) - 1) + "|"]
            lines += [
                _row([f"**{row[0]}**", *row[1:]] if row[0] == section.table.marked else row)
                for row in section.table.rows
            ]
            lines.append("")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _with_code(text: str) -> Markup:
    """A paragraph for HTML: what stands in backticks is code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def html(metadata: Mapping[str, Any], plots: Mapping[str, Plot]) -> str:
    """The card as one HTML file. plots: by the names that sections give."""
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    pages.filters["with_code"] = _with_code
    return pages.get_template(TEMPLATE_FILE).render(
        version=metadata["model_version"], sections=sections(metadata), plots=plots, chosen=metadata["chosen"]
    )
