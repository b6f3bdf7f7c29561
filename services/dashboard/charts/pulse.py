"""Charts of what happens now: predictions a second."""

from datetime import UTC, datetime

import altair as alt

from schemas.http_api.live import Live
from services.dashboard.charts.axes import count_axis, finished, frame
from services.dashboard.theme import BLUE, Chart

SHOWN_SECONDS = 300


def rate_chart(live: Live) -> Chart:
    """Predictions that arrived in each of the last five minutes' seconds; a second without any is 0."""
    end = int(datetime.fromisoformat(live.at).timestamp())
    by_second = {point.second: point.predictions for point in live.rates}
    rows = [
        {"at": datetime.fromtimestamp(second, UTC).isoformat(), "predictions": by_second.get(second, 0)}
        for second in range(end - SHOWN_SECONDS, end + 1)
    ]
    data = frame(rows, ["at", "predictions"])
    most = max(by_second.values(), default=0)
    chart = (
        alt.Chart(data)
        .mark_area(color=BLUE, opacity=0.25, line={"color": BLUE, "strokeWidth": 1.5}, interpolate="step-after")
        .encode(
            x=alt.X(
                "at:T", scale=alt.Scale(type="utc", nice=False), axis=alt.Axis(title=None, format="%H:%M", tickCount=6)
            ),
            y=alt.Y(
                "predictions:Q", axis=count_axis("Predictions per second"), scale=alt.Scale(domainMax=max(most, 4))
            ),
            tooltip=[
                alt.Tooltip("utchoursminutesseconds(at):T", title="At (UTC)"),
                alt.Tooltip("predictions:Q", title="Predictions", format=","),
            ],
        )
    )
    return finished(chart, 200)
