"""Charts of the segments: how many customers, how much of the value, and who moved."""

import altair as alt

from schemas.http_api.outlook import SEGMENT_NAMES
from schemas.http_api.segments import Migration, Segments
from services.dashboard.charts.axes import LABEL_LINES, finished, frame, share_axis, wrapped
from services.dashboard.charts.value import segment_colour
from services.dashboard.formatting import SEGMENTS, count, money, percent
from services.dashboard.theme import HEAT, INK, PAPER, Chart

NEW = "New customer"
CUSTOMERS, VALUE = "Customers", "Value"


def shares_chart(segments: Segments) -> Chart:
    """Each segment's share of the customers beside its share of the expected value."""
    rows = [
        {
            "segment": SEGMENTS[each.segment],
            "of": of,
            "share": share,
            "text": percent(share),
            "what": what,
            # White cannot be read on orange.
            "ink": INK if each.segment == "medium_value" else PAPER,
        }
        for each in segments.segments
        for of, share, what in (
            (CUSTOMERS, each.share, count(each.customers, "customer")),
            (VALUE, each.value_share, money(each.expected_value, segments.currency, whole=True)),
        )
    ]
    data = alt.Chart(frame(rows, ["segment", "of", "share", "text", "what", "ink"]))
    names = list(SEGMENTS.values())
    y = alt.Y(
        "of:N",
        sort=[CUSTOMERS, VALUE],
        axis=alt.Axis(title=None, labelColor=INK, ticks=False, domain=False, labelPadding=6),
    )
    order = alt.Order("rank:Q")
    ranked = data.transform_calculate(rank=f"indexof({names!r}, datum.segment)")
    bars = ranked.mark_bar(height=34, stroke="white", strokeWidth=1.5).encode(
        y=y,
        x=alt.X("share:Q", axis=share_axis(None), scale=alt.Scale(domain=[0, 1]), stack="zero"),
        color=segment_colour(),
        order=order,
        tooltip=[
            alt.Tooltip("segment:N", title="Segment"),
            alt.Tooltip("of:N", title="Share of"),
            alt.Tooltip("text:N", title="Share"),
            alt.Tooltip("what:N", title="That is"),
        ],
    )
    texts = (
        ranked.transform_filter("datum.share >= 0.07")
        .mark_text(fontWeight=600, fontSize=13)
        .encode(
            y=y,
            x=alt.X("share:Q", stack="zero", bandPosition=0.5, axis=share_axis(None), scale=alt.Scale(domain=[0, 1])),
            order=order,
            detail="segment:N",
            text="text:N",
            color=alt.Color("ink:N", scale=None),
        )
    )
    return finished(alt.layer(bars, texts), alt.Step(46))


def migration_chart(migration: Migration) -> Chart:
    """Who was where on the first day and is where on the second: a row adds up to all who were there."""
    moved = {(flow.from_segment, flow.to_segment): flow.customers for flow in migration.flows}
    froms = [name for name in (*SEGMENT_NAMES, None) if any(key[0] == name for key in moved)]
    rows = []
    for begin in froms:
        total = sum(moved.get((begin, end), 0) for end in SEGMENT_NAMES)
        for end in SEGMENT_NAMES:
            customers = moved.get((begin, end), 0)
            share = customers / total if total else 0.0
            rows.append(
                {
                    "from": wrapped_name(SEGMENTS[begin] if begin else NEW),
                    "to": wrapped_name(SEGMENTS[end]),
                    "customers": customers,
                    "share": share,
                    "text": f"{customers:,}",
                    "of": f"{percent(share)} of the row",
                }
            )
    base = alt.Chart(frame(rows, ["from", "to", "customers", "share", "text", "of"]))
    names = [wrapped_name(name) for name in SEGMENTS.values()]
    axis = alt.Axis(labelExpr=LABEL_LINES, labelColor=INK, labelAngle=0, domain=False, ticks=False)
    to_axis = alt.Axis(**(axis.to_dict() | {"orient": "top", "title": "To", "labelPadding": 20, "labelOverlap": False}))
    x = alt.X("to:N", sort=names, scale=alt.Scale(domain=names), axis=to_axis)
    everybody = [wrapped_name(SEGMENTS[name] if name else NEW) for name in froms]
    y = alt.Y(
        "from:N",
        sort=everybody,
        scale=alt.Scale(domain=everybody),
        axis=alt.Axis(**(axis.to_dict() | {"title": "From"})),
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2, cornerRadius=4).encode(
        x=x,
        y=y,
        color=alt.Color("share:Q", scale=alt.Scale(domain=[0, 1], range=HEAT), legend=None),
        tooltip=[
            alt.Tooltip("from:N", title="From"),
            alt.Tooltip("to:N", title="To"),
            alt.Tooltip("text:N", title="Customers"),
            alt.Tooltip("of:N", title="That is"),
        ],
    )
    colour = alt.condition("datum.share > 0.55", alt.value("white"), alt.value(INK))
    counts = base.mark_text(dy=-7, fontSize=14, fontWeight=600).encode(x=x, y=y, text="text:N", color=colour)
    shares = base.mark_text(dy=10, fontSize=11).encode(x=x, y=y, text=alt.Text("share:Q", format=".0%"), color=colour)
    return finished(alt.layer(cells, counts, shares), alt.Step(54))


def wrapped_name(name: str) -> str:
    """A segment's name in two short lines."""
    return wrapped(name).replace(" value", "\nvalue").replace(" customer", "\ncustomer")
