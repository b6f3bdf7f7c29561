"""Axes and frames of tables that charts share, so that money, shares and days read alike everywhere."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from services.dashboard.formatting import currency_prefix
from services.dashboard.theme import INK, Chart, chart_config

NARROW_LABEL_LETTERS = 21
"""Longest line of a label beside a bar: it must leave room for the bar on a telephone."""


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A table of the rows, with its columns even where there are none."""
    return pd.DataFrame(list(rows), columns=list(columns))


def money_axis(currency: str, title: str | None, **options: Any) -> alt.Axis:
    """Amounts with the currency before them."""
    prefix = currency_prefix(currency).replace("'", "\\'")
    return alt.Axis(
        title=title,
        labelExpr=f"(datum.value < 0 ? '−' : '') + '{prefix}' + format(abs(datum.value), ',~r')",
        **({"tickCount": 5} | options),
    )


def share_axis(title: str | None, **options: Any) -> alt.Axis:
    """Shares (0 to 1) in percent."""
    return alt.Axis(title=title, format=".0%", **({"tickCount": 5} | options))


def count_axis(title: str | None, **options: Any) -> alt.Axis:
    """Whole numbers."""
    return alt.Axis(title=title, format=",~d", **({"tickCount": 5, "tickMinStep": 1} | options))


def wrapped(label: str) -> str:
    """The label in lines that fit beside a bar; LABEL_LINES makes them lines of an axis."""
    return "\n".join(textwrap.wrap(label, NARROW_LABEL_LETTERS)) or label


LABEL_LINES = "split(datum.label, '\\n')"


def names_axis(**options: Any) -> alt.Axis:
    """The names of bars, each in the lines that wrapped() made. options: of alt.Axis."""
    return alt.Axis(
        title=None,
        labelExpr=LABEL_LINES,
        labelLimit=170,
        labelColor=INK,
        labelOverlap=False,
        ticks=False,
        domain=False,
        **options,
    )


def finished(chart: Chart, height: int | alt.Step) -> Chart:
    """The chart in the product's type, as wide as its place."""
    return chart_config(chart.properties(height=height))
