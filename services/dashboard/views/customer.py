"""Customer: find one, and see their orders, what was expected of them over time, and why."""

import streamlit as st

from schemas.http_api.customers import Customer, CustomerHistory, CustomerOrders, CustomerPage
from services.dashboard import markup
from services.dashboard.charts.timeline import active_chart, orders_chart, span, value_chart
from services.dashboard.charts.value import interval_chart, waterfall_chart
from services.dashboard.connection import client
from services.dashboard.display import draw
from services.dashboard.formatting import (
    SEGMENTS,
    STRATEGIES,
    amount,
    count,
    day,
    feature_label,
    feature_meaning,
    money,
    named_feature_value,
    number,
    ordinal,
    percent,
    plain,
)
from services.dashboard.markup import Column, Figure
from services.dashboard.problems import ApiProblem
from services.dashboard.states import empty_state, loading, no_customers, page, tell

MATCHES = 20
PREDICTIONS_MAX = 500
OUTPUTS = {
    "expected_value": "Expected value",
    "p_active": "Will order again",
    "expected_orders": "Expected orders",
}


@page
def show() -> None:
    """The page."""
    st.title("Customer")
    st.html(markup.lead("Find a customer by the beginning of their id. Without one, the most valuable come first."))
    customer_id = _search()
    if customer_id is None:
        return
    with loading(f"customer {customer_id}", 420):
        customer = client().customer(customer_id)
        history = client().history(customer_id, PREDICTIONS_MAX)
        orders = client().orders(customer_id)
    _head(customer)
    _timeline(history, orders)
    _explanation(customer)
    _details(customer, orders)


def _search() -> str | None:
    """The customer to show, or None, which has been told then."""
    left, right = st.columns(2)
    prefix = left.text_input("Customer id", key="id", bind="query-params", placeholder="c-42, or the beginning of it")
    prefix = prefix.strip()
    found = client().customers(prefix=prefix, sort="customer_id" if prefix else "-expected_value", limit=MATCHES)
    if not found.customers:
        if prefix:
            empty_state("No such customer", f"No customer's id begins with “{plain(prefix)}”. Try fewer letters.")
        else:
            no_customers()
        return None
    described = {row.customer_id: _described(row.customer_id, found) for row in found.customers}
    label = f"{count(found.total, 'customer')} found"
    if found.total > len(described):
        label += f", the first {len(described)} to choose from"
    chosen: str | None = right.selectbox(label, list(described), format_func=lambda each: described.get(each, each))
    return chosen


def _described(customer_id: str, found: CustomerPage) -> str:
    row = next(row for row in found.customers if row.customer_id == customer_id)
    return f"{customer_id} · {money(row.expected_value, row.currency)} · {SEGMENTS[row.segment]}"


def _head(customer: Customer) -> None:
    now = customer.prediction
    st.subheader(f"Customer {plain(customer.customer_id)}")
    st.html(
        markup.figures(
            [
                Figure(
                    f"Expected value, {now.horizon_days} days",
                    money(now.expected_value, now.currency),
                    f"8 of 10: {money(now.value_p10, now.currency)} to {money(now.value_p90, now.currency)}",
                ),
                Figure("Segment", "", _rank(customer), now.segment),
                Figure("Will order again", percent(now.p_active), f"churn risk {percent(now.churn_risk)}"),
                Figure(
                    "Next order",
                    day(now.expected_next_order_at) if now.expected_next_order_at else "none in sight",
                    f"{number(now.expected_orders, 2)} orders expected",
                ),
                Figure("Value so far", money(now.historical_value, now.currency), _orders_so_far(customer)),
                Figure("Total value", money(now.total_value, now.currency), "so far and expected"),
            ]
        )
    )
    title, words = STRATEGIES.get(now.strategy, (now.strategy.replace("_", " ").capitalize(), ""))
    st.html(markup.panel(f"What to do: {title.lower()}", words, now.segment))
    draw(interval_chart(now), "Expected value with its interval")


def _rank(customer: Customer) -> str:
    now = customer.prediction
    text = f"{ordinal(now.percentile)} percentile"
    if now.previous_segment and now.previous_segment != now.segment:
        text += f"; was {SEGMENTS[now.previous_segment].lower()}"
    return text


def _orders_so_far(customer: Customer) -> str:
    return f"net of refunds, {count(customer.orders.orders, 'order')}"


def _timeline(history: CustomerHistory, orders: CustomerOrders) -> None:
    st.subheader("Over time")
    if not history.predictions and not orders.orders:
        empty_state("No history yet", "It begins with the next order or the next daily refresh.")
        return
    shown = span(orders, history.predictions)
    if orders.orders:
        st.markdown(f"**Orders** :small[value of each, {plain(orders.currency)}]")
        draw(orders_chart(orders, shown), f"{len(orders.orders)} orders over time")
    if history.predictions:
        horizon = history.predictions[0].horizon_days
        st.markdown(f"**Expected value** :small[for the {horizon} days that followed; the band holds 8 of 10]")
        draw(value_chart(history.predictions, shown), "Expected value and interval, by day of prediction")
        st.markdown(f"**Will order again** :small[probability of an order within {horizon} days]")
        draw(active_chart(history.predictions, shown), "Probability active, by day of prediction")
        kept = count(len(history.predictions), "prediction")
        st.html(markup.quiet(f"The newest {kept} are shown." if history.next_cursor else f"{kept} kept."))


def _explanation(customer: Customer) -> None:
    st.subheader("What moved it")
    output = st.segmented_control(
        "Explain", list(OUTPUTS), default="expected_value", required=True, format_func=OUTPUTS.__getitem__
    )
    try:
        with loading("the explanation", 300):
            explanation = client().explanation(customer.customer_id, output or "expected_value")
    except ApiProblem as problem:
        if problem.heals_itself:
            raise
        tell(problem)
        return
    st.html(
        markup.lead(
            f"Typical customers: {amount(explanation.base, explanation.unit)}. This customer: "
            f"{amount(explanation.prediction, explanation.unit)}. Between them, one fact at a time:"
        )
    )
    draw(waterfall_chart(explanation, "This customer"), "What each fact about the customer adds")


def _details(customer: Customer, orders: CustomerOrders) -> None:
    currency = customer.prediction.currency
    summary = customer.orders
    with st.expander(f"Orders: {summary.orders:,}, net {money(summary.net, currency)}"):
        st.html(
            markup.table(
                "Orders, the newest first",
                [
                    Column("Day"),
                    Column("Order"),
                    Column("Value", right=True),
                    Column("Refunded", right=True),
                    Column(""),
                ],
                [
                    [
                        day(line.placed_on),
                        count(line.orders, "order"),
                        money(line.gross, orders.currency),
                        money(line.refunded, orders.currency) if line.refunded else "–",
                        "cancelled" if line.cancelled else "",
                    ]
                    for line in orders.orders
                ],
            )
        )
    with st.expander("Features behind the prediction"):
        st.html(
            markup.table(
                "Features",
                [Column("Feature"), Column("Value", right=True), Column("What it is", wide=True)],
                [
                    [feature_label(name), named_feature_value(name, value, currency), feature_meaning(name)]
                    for name, value in customer.features.items()
                ],
            )
        )
    st.html(
        markup.quiet(
            f"Model {customer.prediction.model_version} · as of {day(customer.prediction.as_of)} · "
            f"stored {day(customer.updated_at)} {customer.updated_at[11:19]} UTC"
        )
    )
