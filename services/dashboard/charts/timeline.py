"""Charts of one customer over time, drawn below one another over the same days."""

from collections.abc import Sequence
from datetime import date, timedelta

import altair as alt

from schemas.http_api.customers import CustomerOrders, CustomerPrediction
from services.dashboard.charts.axes import finished, frame, money_axis, share_axis
from services.dashboard.formatting import count, day, money, percent
from services.dashboard.theme import BLUE, GREEN, INK, MUTED, PURPLE, VERMILLION, Chart

AXIS_PIXELS = 62
"""Room for the vertical axis, the same in each chart, so that a day is at the same place in all."""
Days = tuple[str, str]


def span(orders: CustomerOrders, predictions: Sequence[CustomerPrediction]) -> Days:
    """First and last day to show: all orders and predictions, and a little room."""
    found = [line.placed_on for line in orders.orders] + [prediction.as_of for prediction in predictions]
    first, last = date.fromisoformat(min(found)), date.fromisoformat(max(found))
    room = timedelta(days=max((last - first).days // 40, 2))
    return (first - room).isoformat(), (last + room).isoformat()


def _days_axis(days: Days, *, labels: bool) -> alt.X:
    return alt.X(
        "day:T",
        scale=alt.Scale(domain=list(days)),
        axis=alt.Axis(title=None, labels=labels, ticks=labels, tickCount=6, format="%b %Y", labelFlush=True),
    )


def orders_chart(orders: CustomerOrders, days: Days) -> Chart:
    """A stem an order, as high as it was worth; what was refunded is told apart, and so is what was cancelled."""
    rows = [
        {
            "day": line.placed_on,
            "value": line.gross,
            "state": "Cancelled" if line.cancelled else "Refunded, at least in part" if line.refunded else "Order",
            "when": day(line.placed_on),
            "what": count(line.orders, "order"),
            "gross": money(line.gross, orders.currency),
            "refunded": money(line.refunded, orders.currency),
        }
        for line in orders.orders
    ]
    data = alt.Chart(frame(rows, ["day", "value", "state", "when", "what", "gross", "refunded"]))
    y = alt.Y("value:Q", axis=money_axis(orders.currency, None, minExtent=AXIS_PIXELS, tickCount=3))
    colour = alt.Color(
        "state:N",
        scale=alt.Scale(domain=["Order", "Refunded, at least in part", "Cancelled"], range=[BLUE, PURPLE, VERMILLION]),
        legend=alt.Legend() if {row["state"] for row in rows} - {"Order"} else None,
    )
    tooltip = [
        alt.Tooltip("what:N", title="What"),
        alt.Tooltip("when:N", title="Day"),
        alt.Tooltip("gross:N", title="Value"),
        alt.Tooltip("refunded:N", title="Refunded"),
    ]
    x = _days_axis(days, labels=True)
    stems = data.mark_rule(strokeWidth=1.5, opacity=0.55).encode(x=x, y=y, color=colour)
    heads = data.mark_point(filled=True, size=65, opacity=1).encode(x=x, y=y, color=colour, tooltip=tooltip)
    return finished(alt.layer(stems, heads), 130)


def value_chart(predictions: Sequence[CustomerPrediction], days: Days) -> Chart:
    """Expected value as it was predicted on each day, between value_p10 and value_p90."""
    currency = predictions[0].currency
    rows = [
        {
            "day": each.as_of,
            "expected": each.expected_value,
            "low": each.value_p10,
            "high": each.value_p90,
            "when": day(each.as_of),
            "text": money(each.expected_value, currency),
            "range": f"{money(each.value_p10, currency)} to {money(each.value_p90, currency)}",
        }
        for each in _one_a_day(predictions)
    ]
    base = alt.Chart(frame(rows, ["day", "expected", "low", "high", "when", "text", "range"])).encode(
        x=_days_axis(days, labels=True)
    )
    axis = money_axis(currency, None, minExtent=AXIS_PIXELS, tickCount=4)
    band = base.mark_area(color=GREEN, opacity=0.18, interpolate="step-after").encode(
        y=alt.Y("low:Q", axis=axis, scale=alt.Scale(zero=True)), y2="high:Q"
    )
    line = base.mark_line(color=GREEN, strokeWidth=2.5, interpolate="step-after").encode(y="expected:Q")
    points = base.mark_point(filled=True, color=GREEN, size=40, opacity=1).encode(
        y="expected:Q",
        tooltip=[
            alt.Tooltip("when:N", title="Predicted on"),
            alt.Tooltip("text:N", title="Expected value"),
            alt.Tooltip("range:N", title="8 of 10 such customers"),
        ],
    )
    return finished(alt.layer(band, line, points), 170)


def active_chart(predictions: Sequence[CustomerPrediction], days: Days) -> Chart:
    """Probability of another order within the horizon, as it was predicted on each day."""
    rows = [
        {"day": each.as_of, "p": each.p_active, "when": day(each.as_of), "text": percent(each.p_active)}
        for each in _one_a_day(predictions)
    ]
    base = alt.Chart(frame(rows, ["day", "p", "when", "text"])).encode(x=_days_axis(days, labels=True))
    y = alt.Y("p:Q", scale=alt.Scale(domain=[0, 1]), axis=share_axis(None, minExtent=AXIS_PIXELS, tickCount=3))
    half = alt.Chart(frame([{"p": 0.5}], ["p"])).mark_rule(color=MUTED, strokeDash=[4, 4]).encode(y="p:Q")
    line = base.mark_line(color=INK, strokeWidth=2, interpolate="step-after").encode(y=y)
    points = base.mark_point(filled=True, color=INK, size=36, opacity=1).encode(
        y=y, tooltip=[alt.Tooltip("when:N", title="Predicted on"), alt.Tooltip("text:N", title="Probability active")]
    )
    return finished(alt.layer(half, line, points), 110)


def _one_a_day(predictions: Sequence[CustomerPrediction]) -> list[CustomerPrediction]:
    """The last prediction of each day, the earliest day first; given the newest first."""
    last: dict[str, CustomerPrediction] = {}
    for prediction in predictions:
        last.setdefault(prediction.as_of, prediction)
    return [last[at] for at in sorted(last)]
