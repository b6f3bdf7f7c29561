"""Segments: how the customers divide, what each part is worth, who moved, and lists to take away."""

from datetime import date, timedelta
from urllib.parse import urlencode

import streamlit as st

from schemas.http_api.customers import CustomerPage, Sort
from schemas.http_api.outlook import SEGMENT_NAMES, SegmentName
from schemas.http_api.segments import Segments
from services.dashboard import markup
from services.dashboard.charts.population import migration_chart, shares_chart
from services.dashboard.charts.value import population_chart
from services.dashboard.client import list_parameters
from services.dashboard.connection import client
from services.dashboard.display import draw
from services.dashboard.formatting import (
    SEGMENTS,
    STRATEGIES,
    count,
    currency_prefix,
    day,
    money,
    percent,
)
from services.dashboard.markup import Column, Figure
from services.dashboard.server import EXPORT_PATH
from services.dashboard.states import empty_state, loading, no_customers, page

ROWS = 25
SORTS: dict[Sort, str] = {
    "-expected_value": "Highest expected value",
    "expected_value": "Lowest expected value",
    "-p_active": "Most likely to order again",
    "p_active": "Most at risk of not ordering again",
    "-historical_value": "Highest value so far",
    "customer_id": "Customer id",
}


@page
def show() -> None:
    """The page."""
    st.title("Segments")
    st.html(markup.lead("Quarters of all customers by what they are expected to spend, and what to do about each."))
    with loading("the segments", 420):
        population = client().segments()
    if population.customers == 0:
        no_customers()
        return
    _overview(population)
    st.subheader("Shares")
    draw(shares_chart(population), "Each segment's share of customers and of expected value")
    st.subheader("Distribution of expected value")
    draw(population_chart(population), "Customers by expected value, coloured by segment")
    _flows(population)
    _lists(population)


def _overview(population: Segments) -> None:
    currency = population.currency
    best = population.segments[0] if population.segments else None
    figures = [
        Figure("Customers", f"{population.customers:,}", f"as of {day(population.as_of)}"),
        Figure(
            "Expected value",
            money(population.expected_value, currency, whole=True),
            f"all together, next {population.horizon_days or 0} days",
        ),
        Figure("Per customer", money(population.expected_value / population.customers, currency), "on average"),
    ]
    if best is not None:
        figures.append(
            Figure("High value brings", percent(best.value_share), f"of it, from {percent(best.share)} of customers")
        )
    st.html(markup.figures(figures))
    columns = [
        Column("Segment"),
        Column("Customers", right=True),
        Column("Expected value", right=True),
        Column("Per customer", right=True),
        Column("Will order again", right=True),
        Column("Value so far", right=True),
        Column("Range of expected value", right=True),
        Column("Strategy"),
    ]
    rows: list[list[markup.Cell]] = [
        [
            markup.badge(each.segment),
            f"{each.customers:,}",
            money(each.expected_value, currency, whole=True),
            money(each.mean_expected_value, currency),
            percent(each.mean_p_active),
            money(each.historical_value, currency, whole=True),
            _range(each.from_value, each.to_value, currency),
            STRATEGIES.get(each.strategy, (each.strategy, ""))[0],
        ]
        for each in population.segments
    ]
    st.html(markup.table("Segments", columns, rows))


def _range(low: float | None, high: float | None, currency: str) -> str:
    if low is None:
        return f"below {money(high, currency)}"
    return f"from {money(low, currency)}" if high is None else f"{money(low, currency)} to {money(high, currency)}"


def _flows(population: Segments) -> None:
    st.subheader("Movement between two days")
    if population.first_date is None or population.as_of is None or population.first_date >= population.as_of:
        empty_state("No movement to show yet", "It needs predictions of at least two days.")
        return
    first, last = date.fromisoformat(population.first_date), date.fromisoformat(population.as_of)
    left, right = st.columns(2)
    begin = left.date_input(
        "From", max(first, last - timedelta(days=90)), first, last, format="YYYY-MM-DD", key="movement-from"
    )
    end = right.date_input("To", last, first, last, format="YYYY-MM-DD", key="movement-to")
    if not isinstance(begin, date) or not isinstance(end, date) or begin >= end:
        st.warning("Choose a first day that is before the second.", icon=":material/warning:")
        return
    with loading("the movement", 300):
        migration = client().segments(begin.isoformat(), end.isoformat()).migration
    if migration is None or not migration.flows:
        empty_state("Nobody moved", "There are no predictions from these days.")
        return
    stayed = sum(flow.customers for flow in migration.flows if flow.from_segment == flow.to_segment)
    known = sum(flow.customers for flow in migration.flows if flow.from_segment is not None)
    new = sum(flow.customers for flow in migration.flows if flow.from_segment is None)
    st.html(
        markup.lead(
            f"Of {count(known, 'customer')} known on {day(migration.from_date)}, "
            f"{percent(stayed / known) if known else '–'} are in the same segment on {day(migration.to_date)}; "
            f"{count(new, 'customer') if new else 'no customers'} came new."
        )
    )
    draw(migration_chart(migration), "Customers by segment on the first and the second day")


def _lists(population: Segments) -> None:
    st.subheader("Lists")
    first, second, third = st.columns([2, 2, 1])
    segment = first.selectbox(
        "Segment", [None, *SEGMENT_NAMES], format_func=lambda name: SEGMENTS[name] if name else "All segments"
    )
    sort = second.selectbox("Order", list(SORTS), format_func=SORTS.__getitem__)
    minimum = third.number_input(
        f"At least ({currency_prefix(population.currency).strip()})", 0.0, 1e9, 0.0, 10.0, format="%.2f",
        help="Least expected value of a customer in the list.",
    )  # fmt: skip
    _list(segment, sort, minimum or 0.0)


def _list(segment: SegmentName | None, sort: Sort, minimum: float) -> None:
    choice = (segment, sort, minimum)
    if st.session_state.get("list-choice") != choice:
        st.session_state["list-choice"], st.session_state["list-pages"] = choice, [None]
    pages: list[str | None] = st.session_state["list-pages"]
    with loading("the list", 300):
        found = client().customers(segment=segment, sort=sort, min_value=minimum, limit=ROWS, cursor=pages[-1])
    if not found.customers:
        empty_state("Nobody matches", "Choose another segment or a smaller least value.")
        return
    begin = (len(pages) - 1) * ROWS
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{begin + 1:,} to {begin + len(found.customers):,}** of {count(found.total, 'customer')}")
        st.button("Previous", disabled=len(pages) == 1, on_click=_back, icon=":material/chevron_left:")
        st.button(
            "Next", disabled=found.next_cursor is None, on_click=pages.append, args=(found.next_cursor,),
            icon=":material/chevron_right:",
        )  # fmt: skip
        st.link_button(
            f"Export {found.total:,} as CSV",
            f"{EXPORT_PATH}?{urlencode(list_parameters('', segment, minimum, sort))}",
            icon=":material/download:",
            type="primary",
        )
    st.html(customer_table(found))


def _back() -> None:
    st.session_state["list-pages"].pop()


def customer_table(found: CustomerPage) -> str:
    """Customers as a table; each id leads to the customer's page."""
    columns = [
        Column("Customer"),
        Column("Segment"),
        Column("Expected value", right=True),
        Column("Range for 8 of 10", right=True),
        Column("Will order again", right=True),
        Column("Value so far", right=True),
        Column("Next order", right=True),
    ]
    rows: list[list[markup.Cell]] = [
        [
            markup.customer_link(row.customer_id),
            markup.badge(row.segment),
            money(row.expected_value, row.currency),
            f"{money(row.value_p10, row.currency)} to {money(row.value_p90, row.currency)}",
            percent(row.p_active),
            money(row.historical_value, row.currency),
            day(row.expected_next_order_at),
        ]
        for row in found.customers
    ]
    return markup.table("Customers", columns, rows)
