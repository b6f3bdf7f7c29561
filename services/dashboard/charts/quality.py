"""Charts of a model: calibration, gain, and drift."""

from collections.abc import Sequence

import altair as alt

from schemas.http_api.models import DecileRow, FeatureDrift, GainPoint
from services.dashboard.charts.axes import (
    finished,
    frame,
    money_axis,
    names_axis,
    share_axis,
    wrapped,
)
from services.dashboard.formatting import feature_label, money, percent
from services.dashboard.theme import BLUE, INK, MUTED, ORANGE, SKY, VERMILLION, Chart

DRIFT_SOME, DRIFT_MUCH = 0.1, 0.25
"""Population stability index from which on a distribution has moved somewhat, and much."""
PREDICTED, REALISED = "Predicted", "Came true"
HARDLY, SOME, MUCH = "Hardly any", "Some", "Much"


def calibration_chart(deciles: Sequence[DecileRow], currency: str) -> Chart:
    """Mean predicted and realised value of each tenth of the held-out customers, the highest predicted first."""
    rows = [
        {"decile": row.decile, "of": of, "value": value, "text": money(value, currency), "customers": row.customers}
        for row in deciles
        for of, value in ((PREDICTED, row.predicted), (REALISED, row.realised))
    ]
    chart = (
        alt.Chart(frame(rows, ["decile", "of", "value", "text", "customers"]))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X("decile:O", axis=alt.Axis(title="Tenth of customers, best predicted first", labelAngle=0)),
            xOffset=alt.XOffset("of:N", sort=[PREDICTED, REALISED]),
            y=alt.Y("value:Q", axis=money_axis(currency, "Mean spend per customer")),
            color=alt.Color(
                "of:N",
                scale=alt.Scale(domain=[PREDICTED, REALISED], range=[SKY, INK]),
                legend=alt.Legend(symbolType="square"),
            ),
            tooltip=[
                alt.Tooltip("decile:O", title="Tenth"),
                alt.Tooltip("of:N", title="What"),
                alt.Tooltip("text:N", title="Mean per customer"),
                alt.Tooltip("customers:Q", title="Customers", format=","),
            ],
        )
    )
    return finished(chart, 260)


def gain_chart(gains: Sequence[GainPoint]) -> Chart:
    """Share of all value that the best-ranked customers turned out to be, beside picking customers at random."""
    rows = [
        {
            "customers": point.customers_share,
            "value": point.value_share,
            "of": percent(point.customers_share),
            "found": percent(point.value_share),
            "lift": f"{point.value_share / point.customers_share:.1f} × random" if point.customers_share else "–",
        }
        for point in gains
    ]
    x = alt.X("customers:Q", axis=share_axis("Best-ranked share of customers"), scale=alt.Scale(domain=[0, 1]))
    y = alt.Y("value:Q", axis=share_axis("Share of all spend"), scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(frame(rows, ["customers", "value", "of", "found", "lift"]))
    random = alt.Chart(frame([{"customers": 0, "value": 0}, {"customers": 1, "value": 1}], ["customers", "value"]))
    diagonal = random.mark_line(color=MUTED, strokeDash=[5, 4], strokeWidth=1.5).encode(x=x, y=y)
    area = base.mark_area(color=BLUE, opacity=0.12).encode(x=x, y=y)
    line = base.mark_line(color=BLUE, strokeWidth=2.5).encode(x=x, y=y)
    points = base.mark_point(filled=True, color=BLUE, size=50, opacity=0.0001).encode(
        x=x,
        y=y,
        tooltip=[
            alt.Tooltip("of:N", title="Best customers"),
            alt.Tooltip("found:N", title="Are of all spend"),
            alt.Tooltip("lift:N", title="Lift"),
        ],
    )
    name = (
        alt.Chart(frame([{"customers": 0.62, "value": 0.56, "text": "At random"}], ["customers", "value", "text"]))
        .mark_text(align="left", color=MUTED, fontSize=12)
        .encode(x=x, y=y, text="text:N")
    )
    return finished(alt.layer(area, diagonal, line, points, name), 260)


def lift_at(gains: Sequence[GainPoint], share: float) -> float | None:
    """Share of all value among the best-ranked `share` of customers; between two points, on the line between them."""
    before = None
    for point in sorted(gains, key=lambda point: point.customers_share):
        if point.customers_share >= share:
            if before is None or point.customers_share == share:
                return point.value_share
            width = point.customers_share - before.customers_share
            weight = (share - before.customers_share) / width if width else 0.0
            return before.value_share + weight * (point.value_share - before.value_share)
        before = point
    return None


def drift_level(psi: float) -> str:
    """What a population stability index means, in a word or two."""
    return HARDLY if psi < DRIFT_SOME else SOME if psi < DRIFT_MUCH else MUCH


def drift_chart(drift: Sequence[FeatureDrift]) -> Chart:
    """How far each column has moved from training, beside the two thresholds."""
    rows = [
        {
            "feature": wrapped(feature_label(each.name)),
            "psi": each.psi,
            "shown": min(each.psi, 1.0),
            "level": drift_level(each.psi),
            "text": f"{each.psi:.2f}",
        }
        for each in drift
    ]
    data = alt.Chart(frame(rows, ["feature", "psi", "shown", "level", "text"]))
    y = alt.Y(
        "feature:N",
        sort=[wrapped(feature_label(each.name)) for each in drift],
        axis=names_axis(),
    )
    top = max(0.32, *(min(each.psi, 1.0) for each in drift)) * 1.12
    x = alt.X(
        "shown:Q",
        axis=alt.Axis(
            title="Population stability index (bars end at 1)",
            format=".2~f",
            values=[0, DRIFT_SOME, DRIFT_MUCH, 0.5, 1],
        ),
        scale=alt.Scale(domain=[0, top], nice=False),
    )
    bars = data.mark_bar(height=16, cornerRadiusEnd=3).encode(
        y=y,
        x=x,
        color=alt.Color(
            "level:N",
            scale=alt.Scale(domain=[HARDLY, SOME, MUCH], range=[BLUE, ORANGE, VERMILLION]),
            legend=alt.Legend(symbolType="square"),
        ),
        tooltip=[
            alt.Tooltip("feature:N", title="Column"),
            alt.Tooltip("text:N", title="Index"),
            alt.Tooltip("level:N", title="Drift"),
        ],
    )
    texts = data.mark_text(align="left", dx=5).encode(y=y, x=x, text="text:N")
    rules = (
        alt.Chart(frame([{"at": DRIFT_SOME}, {"at": DRIFT_MUCH}], ["at"]))
        .mark_rule(color=INK, strokeDash=[4, 3])
        .encode(x="at:Q")
    )
    return finished(alt.layer(bars, rules, texts), alt.Step(34))
