"""Charts of one prediction: its interval, its place among all customers, and what moved it."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from schemas.http_api.outlook import Explanation, Outlook
from schemas.http_api.segments import Segments
from services.dashboard.charts.axes import count_axis, finished, frame, money_axis, names_axis, wrapped
from services.dashboard.formatting import SEGMENTS, amount, count, money
from services.dashboard.theme import INK, MINUS, MUTED, PLUS, SEGMENT_COLOURS, Chart

CONTRIBUTIONS_MAX = 8
"""Most facts with a bar of their own; the rest share one."""
SMALLEST_SHARE = 0.005
"""Share of the largest step below which a fact's bar could not be seen."""


def interval_chart(outlook: Outlook) -> Chart:
    """From value_p10 to value_p90, with the median and the mean marked and named."""
    colour = SEGMENT_COLOURS[outlook.segment]
    low, high = outlook.value_p10, outlook.value_p90
    between = f"{money(low, outlook.currency)} to {money(high, outlook.currency)}"
    data = frame([{"low": low, "high": high, "range": between}], ["low", "high", "range"])
    marks = frame(
        [
            {"value": outlook.value_p50, "name": "Median", "text": money(outlook.value_p50, outlook.currency)},
            {"value": outlook.expected_value, "name": "Mean", "text": money(outlook.expected_value, outlook.currency)},
        ],
        ["value", "name", "text"],
    )
    scale = alt.Scale(domainMin=0, zero=True, nice=True)
    axis = money_axis(outlook.currency, f"Spend in the next {outlook.horizon_days} days")
    bar = (
        alt.Chart(data)
        .mark_bar(color=colour, opacity=0.3, height=26, cornerRadius=4)
        .encode(
            x=alt.X("low:Q", scale=scale, axis=axis),
            x2="high:Q",
            tooltip=[alt.Tooltip("range:N", title="8 of 10 such customers spend")],
        )
    )
    points = (
        alt.Chart(marks)
        .mark_point(filled=True, size=130, opacity=1, stroke="white", strokeWidth=1.5)
        .encode(
            x="value:Q",
            color=alt.Color("name:N", scale=alt.Scale(domain=["Mean", "Median"], range=[INK, colour])),
            shape=alt.Shape("name:N", scale=alt.Scale(domain=["Mean", "Median"], range=["diamond", "circle"])),
            tooltip=[alt.Tooltip("name:N", title="What"), alt.Tooltip("text:N", title="Value")],
        )
    )
    return finished(alt.layer(bar, points), 112)


def population_chart(segments: Segments, mark: float | None = None, mark_name: str = "") -> Chart:
    """How many customers are expected to spend how much, by segment; `mark`: where one customer stands among them."""
    # Segments are bands of the same value, so two share a bin at a border alone: stacked there, at risk lowest.
    rows: list[dict[str, Any]] = []
    below: dict[tuple[float, float], int] = {}
    for summary in reversed(segments.segments):
        for part in summary.distribution:
            edges = (part.from_value, part.to_value)
            begin = below.get(edges, 0)
            below[edges] = begin + part.customers
            rows.append(
                {
                    "from": part.from_value,
                    "to": part.to_value,
                    "bottom": begin,
                    "top": begin + part.customers,
                    "segment": SEGMENTS[summary.segment],
                    "range": " to ".join(money(edge, segments.currency) for edge in edges),
                    "text": count(part.customers, "customer"),
                }
            )
    scale = alt.Scale(type="symlog", constant=_middle(segments), nice=False, zero=True)
    end = max((row["to"] for row in rows), default=1.0)
    axis = money_axis(
        segments.currency,
        f"Expected value, next {segments.horizon_days or 0} days",
        values=_ticks(max(end, mark or 0.0)),
    )
    room = max((row["top"] for row in rows), default=1) * (1.04 if mark is None else 1.2)  # the mark's name is on top
    bars = (
        alt.Chart(frame(rows, ["from", "to", "bottom", "top", "segment", "range", "text"]))
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X("from:Q", scale=scale, axis=axis),
            x2="to:Q",
            y=alt.Y("bottom:Q", axis=count_axis("Customers"), scale=alt.Scale(domain=[0, room], nice=False)),
            y2="top:Q",
            color=segment_colour(),
            tooltip=[
                alt.Tooltip("segment:N", title="Segment"),
                alt.Tooltip("range:N", title="Expected value"),
                alt.Tooltip("text:N", title="How many"),
            ],
        )
    )
    if mark is None:
        return finished(bars, 240)
    at = frame([{"value": mark, "name": mark_name}], ["value", "name"])
    rule = alt.Chart(at).mark_rule(color=INK, strokeWidth=2.5).encode(x="value:Q")
    late = mark > (segments.thresholds[2] if segments.thresholds else 0)
    text = (
        alt.Chart(at)
        .mark_text(align="right" if late else "left", dx=-7 if late else 7, dy=-4, fontWeight=600, fontSize=13)
        .encode(x="value:Q", y=alt.value(10), text="name:N")
    )
    return finished(alt.layer(bars, rule, text), 240)


def _middle(segments: Segments) -> float:
    """The value from which on the axis widens: most customers are below it, the best are far above."""
    return max(segments.thresholds[1], 1.0) if segments.thresholds else 1.0


def _ticks(end: float) -> list[float]:
    """Round values of the axis up to `end`: each about twice the one before."""
    found = [0.0, *(step * 10.0**power for power in range(-1, 9) for step in (1, 2, 5) if step * 10.0**power <= end)]
    return [0.0, *found[1:][-9:]]


def segment_colour(legend: alt.Legend | None = None) -> alt.Color:
    """Segments in their colours, from high value to at risk."""
    return alt.Color(
        "segment:N",
        scale=alt.Scale(
            domain=list(SEGMENTS.values()),
            range=[SEGMENT_COLOURS[name] for name in SEGMENTS],
        ),
        legend=legend or alt.Legend(symbolType="square", columns=2),  # two lines fit a telephone,
    )


def waterfall_rows(explanation: Explanation, subject: str) -> list[dict[str, Any]]:
    """From what is expected of typical customers to this prediction, one step a fact; small ones share a step.

    Each row: label, start, end, kind ("total", "plus" or "minus"), text. The steps end where the prediction is.
    """
    unit = explanation.unit
    base = explanation.base
    rows = [
        {"label": "Typical customer", "start": 0.0, "end": base, "kind": "total", "text": amount(base, unit)},
    ]
    at = base
    steps = [(each.label, each.amount) for each in explanation.contributions if each.amount != 0]
    seen = max((abs(moved) for _, moved in steps), default=0.0) * SMALLEST_SHARE
    own = [step for step in steps if abs(step[1]) >= seen][: CONTRIBUTIONS_MAX - 1]
    if len(steps) - len(own) > 1:
        steps = [*own, ("Everything else", sum(step[1] for step in steps if step not in own))]
    for label, moved in steps:
        rows.append(
            {
                "label": label,
                "start": at,
                "end": at + moved,
                "kind": "plus" if moved >= 0 else "minus",
                "text": amount(moved, unit, signed=True),
            }
        )
        at += moved
    end = explanation.prediction
    rows.append({"label": subject, "start": 0.0, "end": end, "kind": "total", "text": amount(end, unit)})
    return rows


def waterfall_chart(explanation: Explanation, subject: str) -> Chart:
    """What moved the prediction: a bar a fact, from left to right, with its amount."""
    rows = [row | {"label": wrapped(row["label"])} for row in waterfall_rows(explanation, subject)]
    data = frame(rows, ["label", "start", "end", "kind", "text"])
    data["right"] = data[["start", "end"]].max(axis=1)
    low, high = _room(rows)
    order = list(data["label"])
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    y = alt.Y(
        "label:N",
        sort=order,
        axis=names_axis(labelPadding=8),
    )
    axis = _unit_axis(explanation.unit)
    bars = (
        alt.Chart(data)
        .mark_bar(height=18, cornerRadius=3)
        .encode(
            y=y,
            x=alt.X("start:Q", scale=scale, axis=axis),
            x2="end:Q",
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=["total", "plus", "minus"], range=[MUTED, PLUS, MINUS]),
                legend=None,
            ),
            tooltip=[alt.Tooltip("label:N", title="What"), alt.Tooltip("text:N", title="How much")],
        )
    )
    texts = (
        alt.Chart(data)
        .mark_text(align="left", dx=6, fontSize=12)
        .encode(y=y, x=alt.X("right:Q", scale=scale), text="text:N")
    )
    return finished(alt.layer(bars, texts), alt.Step(38))


def _room(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Ends of the axis: all bars, 0, and room on the right for the amounts."""
    ends = [0.0, *(row["start"] for row in rows), *(row["end"] for row in rows)]
    low, high = min(ends), max(ends)
    width = (high - low) or 1.0
    return low - (0.02 * width if low < 0 else 0), high + 0.32 * width


def _unit_axis(unit: str) -> alt.Axis:
    match unit:
        case "probability":
            return alt.Axis(title=None, format=".0%", tickCount=4)
        case "orders" | "days":
            return alt.Axis(title=unit, format=",~r", tickCount=4)
    return money_axis(unit, None, tickCount=4)
