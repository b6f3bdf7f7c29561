"""Live: what arrives now, how fast, how late, and what could not be used. Refreshed without reloading the page."""

from datetime import datetime

import streamlit as st

from schemas.http_api.customers import CustomerRow
from schemas.http_api.live import LettersByReason, Live
from services.dashboard import markup
from services.dashboard.charts.pulse import rate_chart
from services.dashboard.connection import client, settings
from services.dashboard.display import draw
from services.dashboard.formatting import SEGMENTS, count, duration, moment, money, number, percent
from services.dashboard.markup import Cell, Column, Figure
from services.dashboard.problems import ApiProblem
from services.dashboard.states import empty_state, no_customers, tell

LATEST = 12


def show() -> None:
    """The page."""
    st.title("Live")
    st.html(markup.lead("Predictions as they arrive. This page refreshes itself."))
    with st.container(key="live"):
        st.fragment(_now, run_every=settings().dashboard_live_seconds)()


def _now() -> None:
    """Everything on the page, anew each time; a problem is told in its place, and goes when the API is back."""
    try:
        live = client().live()
        latest = client().customers(sort="-updated_at", limit=LATEST)
    except ApiProblem as problem:
        tell(problem)
        return
    st.html(markup.figures(_figures(live)))
    if not live.kafka:
        st.warning("Kafka does not answer: rates and lag are those of before.", icon=":material/warning:")
    st.subheader("Predictions per second")
    if live.rates:
        draw(rate_chart(live), "Predictions in each second of the last five minutes")
    else:
        empty_state("Nothing arrived in the last five minutes", "The next order shows here within about a second.")
    st.subheader("Latest predictions")
    if latest.customers:
        st.html(_latest(latest.customers, live))
    else:
        no_customers()
    left, right = st.columns(2)
    with left:
        st.subheader("Waiting to be processed")
        st.html(_lags(live))
    with right:
        st.subheader("Dead letters by reason")
        _letters(live.dead_letters)


def _figures(live: Live) -> list[Figure]:
    waiting = sum(lag.records for lag in live.lags)
    letters = sum(each.letters for each in live.dead_letters)
    recent = sum(each.letters_last_hour for each in live.dead_letters)
    return [
        Figure(
            "Predictions per second",
            number(live.predictions_per_second, 2 if live.predictions_per_second < 1 else 1),
            f"last minute; {live.predictions_total:,} seen in all",
        ),
        Figure(
            "From order to prediction",
            duration(live.freshness_seconds_p50),
            f"99 of 100 within {duration(live.freshness_seconds_p99)}",
        ),
        Figure(
            "Newest prediction", _ago(live.newest_prediction_seconds), f"{count(live.customers, 'customer')} in all"
        ),
        Figure("Waiting", f"{waiting:,}" if live.lags else "–", "records, all services" if live.lags else "unknown"),
        Figure("Dead letters", f"{letters:,}", f"{recent:,} in the last hour"),
    ]


def _ago(seconds: float | None) -> str:
    return "none yet" if seconds is None else f"{duration(seconds)} ago"


def _latest(rows: list[CustomerRow], live: Live) -> str:
    now = datetime.fromisoformat(live.at)
    columns = [
        Column("At (UTC)"),
        Column("Customer"),
        Column("Segment"),
        Column("Expected value", right=True),
        Column("Range for 8 of 10", right=True),
        Column("Will order again", right=True),
        Column("Change"),
    ]
    table: list[list[Cell]] = [
        [
            f"{moment(row.updated_at)} · {_age(row, now)}",
            markup.customer_link(row.customer_id),
            markup.badge(row.segment),
            money(row.expected_value, row.currency),
            f"{money(row.value_p10, row.currency)} to {money(row.value_p90, row.currency)}",
            percent(row.p_active),
            f"was {SEGMENTS[row.previous_segment].lower()}"
            if row.previous_segment and row.previous_segment != row.segment
            else "–",
        ]
        for row in rows
    ]
    return markup.table("The latest predictions, the newest first", columns, table)


def _age(row: CustomerRow, now: datetime) -> str:
    return f"{duration(max((now - datetime.fromisoformat(row.updated_at)).total_seconds(), 0))} ago"


def _lags(live: Live) -> str:
    if not live.lags:
        return markup.panel("Unknown", "Kafka does not answer.")
    columns = [Column("Service"), Column("Reads"), Column("Records waiting", right=True)]
    rows = [[lag.service, lag.topic, f"{lag.records:,}"] for lag in live.lags]
    return markup.table("Records that each service has still to process", columns, rows)


def _letters(letters: list[LettersByReason]) -> None:
    if not letters:
        st.success("None: every message could be used.", icon=":material/check_circle:")
        return
    columns = [Column("Reason"), Column("Last hour", right=True), Column("All", right=True)]
    rows = [[each.reason.replace("_", " "), f"{each.letters_last_hour:,}", f"{each.letters:,}"] for each in letters]
    st.html(markup.table("Messages that could not be used", columns, rows))
    st.markdown(":small[After the cause is mended: `./clv dead-letters replay --reason …`]")
