"""Predict: a customer described by seven inputs, and what is expected of them."""

import re

import streamlit as st
from pydantic import ValidationError

from domain.features import ENGINEERED
from schemas.http_api.predict import EXAMPLE, WhatIf, WhatIfPrediction
from schemas.http_api.segments import Segments
from services.dashboard import markup
from services.dashboard.charts.value import interval_chart, population_chart, waterfall_chart
from services.dashboard.connection import client
from services.dashboard.display import draw
from services.dashboard.formatting import (
    STRATEGIES,
    count,
    day,
    days,
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
from services.dashboard.states import loading, page, told

LABELS = {
    "total_orders": "Orders",
    "average_order_value": "Average order value",
    "customer_lifetime_days": "Days since the first order",
    "days_since_last_purchase": "Days since the last order",
    "purchase_frequency": "Orders per month",
    "frequency_score": "Frequency score (1 to 5)",
    "customer_age": "Age in years (optional)",
}
"""By the contract's name of an input: what the form calls it."""
_FORM, _ASKED, _ANSWER = "predict-form", "predict-asked", "predict-answer"


@page
def show() -> None:
    """The page."""
    st.title("Predict")
    st.html(markup.lead("Describe a customer. See what they will probably spend, how sure that is, and why."))
    left, right = st.columns([1, 2], gap="large")
    with left:
        form, asked = _form()
    with right, told():
        answer = _answer(form, asked)
        if answer is None:
            return
        with loading("all customers", 240):
            population = client().segments()
        _result(answer, population)


def _form() -> tuple[WhatIf | None, bool]:
    """The form as it was last sent, or None while it contradicts itself; and whether it was sent just now."""
    with st.form("predict", border=True):
        orders = st.number_input(
            LABELS["total_orders"],
            1,
            1_000_000,
            int(str(EXAMPLE["total_orders"])),
            1,
            help="Placed so far and not cancelled.",
        )
        average = st.number_input(
            LABELS["average_order_value"], 0.0, 1e9, float(str(EXAMPLE["average_order_value"])), 5.0, format="%.2f",
            help="All spending divided by the number of orders, in the shop's reporting currency.",
        )  # fmt: skip
        lifetime = st.number_input(
            LABELS["customer_lifetime_days"], 0, 36_525, int(str(EXAMPLE["customer_lifetime_days"])), 1,
            help="How long they have been a customer.",
        )  # fmt: skip
        recency = st.number_input(
            LABELS["days_since_last_purchase"], 0, 36_525, int(str(EXAMPLE["days_since_last_purchase"])), 1,
            help="With a single order, the same as the days since the first.",
        )  # fmt: skip
        frequency = st.number_input(
            LABELS["purchase_frequency"], 0.0, 3_100.0, float(str(EXAMPLE["purchase_frequency"])), 0.1, format="%.2f",
            help="Orders divided by months as a customer (a month has 30.44 days; at least one month).",
        )  # fmt: skip
        score = st.number_input(
            LABELS["frequency_score"], 1, 5, int(str(EXAMPLE["frequency_score"])), 1,
            help="Fifth of all customers by repeat orders: 5 orders the most often.",
        )  # fmt: skip
        age = st.number_input(
            LABELS["customer_age"], 0, 130, None, 1, placeholder="unknown", help="Leave empty if it is not known.",
        )  # fmt: skip
        asked = st.form_submit_button("Predict value", type="primary", width="stretch")
    try:
        form = WhatIf(
            customer_age=age, purchase_frequency=frequency or 0.0, average_order_value=average or 0.0,
            total_orders=orders or 1, customer_lifetime_days=lifetime or 0, days_since_last_purchase=recency or 0,
            frequency_score=score or 1,
        )  # fmt: skip
    except ValidationError as error:
        found = [_problem(problem["loc"], problem["msg"]) for problem in error.errors()]
        st.error("**Please correct the form**\n\n" + "\n".join(f"- {plain(line)}" for line in found))
        return None, asked
    return form, asked


def _problem(place: tuple[int | str, ...], message: str) -> str:
    """What is wrong with an input, as in "Orders: must be at least 1"."""
    words = in_words(message.removeprefix("Value error, "))
    return f"{LABELS.get(str(place[0]), place[0])}: {words}" if place else words[:1].upper() + words[1:]


def in_words(message: str) -> str:
    """A message of the API, with the form's names for the inputs."""
    return re.sub("|".join(LABELS), lambda found: f"“{LABELS[found[0]]}”", message)


def _answer(form: WhatIf | None, asked: bool) -> WhatIfPrediction | None:
    """The prediction for the form as it stands. The example that a visitor begins with is not stored."""
    if form is None:
        return None
    if asked or st.session_state.get(_FORM) != form:
        with loading("the prediction", 420):
            st.session_state[_ANSWER] = client().predict(form, store=asked)
        st.session_state[_FORM], st.session_state[_ASKED] = form, asked
    answer: WhatIfPrediction = st.session_state[_ANSWER]
    return answer


def _result(answer: WhatIfPrediction, population: Segments) -> None:
    st.subheader(f"Next {answer.horizon_days} days")
    inputs = answer.inputs
    described = (
        f"{count(int(inputs.get('total_orders') or 0), 'order')} of "
        f"{money(inputs.get('average_order_value'), answer.currency)} on average, the first "
        f"{days(inputs.get('customer_lifetime_days'))} ago, the last {days(inputs.get('days_since_last_purchase'))} ago"
    )
    st.html(markup.lead(f"For {described}."))
    st.html(markup.figures(_figures(answer), beside=True))
    for warning in answer.warnings:
        st.warning(plain(in_words(warning)), icon=":material/warning:")
    draw(
        interval_chart(answer),
        f"8 of 10 such customers spend {money(answer.value_p10, answer.currency)} to "
        f"{money(answer.value_p90, answer.currency)}; on average {money(answer.expected_value, answer.currency)}",
    )
    title, words = STRATEGIES.get(answer.strategy, (answer.strategy.replace("_", " ").capitalize(), ""))
    st.html(markup.panel(f"What to do: {title.lower()}", words, answer.segment))
    _among_all(answer, population)
    if answer.explanation is not None:
        st.subheader("What moved it")
        st.html(markup.lead("From what is expected of typical customers to this one, one fact at a time."))
        draw(
            waterfall_chart(answer.explanation, "This customer"),
            "What each fact adds to the expected value of a typical customer",
        )
    st.subheader("The 18 features behind it")
    st.html(_features(answer))
    st.html(markup.quiet(_small_print(answer)))


def _figures(answer: WhatIfPrediction) -> list[Figure]:
    currency = answer.currency
    return [
        Figure(
            "Expected value",
            money(answer.expected_value, currency),
            f"8 of 10: {money(answer.value_p10, currency)} to {money(answer.value_p90, currency)}",
        ),
        Figure("Segment", "", f"{ordinal(answer.percentile)} percentile", answer.segment),
        Figure("Will order again", percent(answer.p_active), f"churn risk {percent(answer.churn_risk)}"),
        Figure("Expected orders", number(answer.expected_orders, 2), _next_order(answer.expected_next_order_at)),
        Figure("Value so far", money(answer.historical_value, currency), "as described"),
        Figure("Total value", money(answer.total_value, currency), "so far and expected"),
    ]


def _next_order(at: str | None) -> str:
    return f"next about {day(at)}" if at else "no next order in sight"


def _among_all(answer: WhatIfPrediction, population: Segments) -> None:
    st.subheader("Among all customers")
    if population.customers == 0:
        st.info("There are no customers yet to compare with. The segment comes from the model's training data.")
        return
    st.html(
        markup.lead(
            f"Expected to spend more than {percent(answer.percentile / 100)} of "
            f"{count(population.customers, 'customer')}."
        )
    )
    draw(
        population_chart(
            population, answer.expected_value, f"This customer: {money(answer.expected_value, answer.currency)}"
        ),
        f"Customers by expected value; this one is at the {ordinal(answer.percentile)} percentile",
    )


def _features(answer: WhatIfPrediction) -> str:
    rows = [
        [
            feature_label(each.name),
            named_feature_value(each.name, answer.features.get(each.name), answer.currency),
            feature_meaning(each.name),
        ]
        for each in ENGINEERED
    ]
    columns = [Column("Feature"), Column("Value", right=True), Column("What it is", wide=True)]
    return markup.table("The 18 engineered features", columns, rows)


def _small_print(answer: WhatIfPrediction) -> str:
    parts = [f"Model {answer.model_version}", f"as of {day(answer.as_of)}"]
    if answer.profile_value is not None:
        parts.append(f"classic profile model: {money(answer.profile_value, answer.currency)} so far")
    if answer.stored:
        parts.append("kept as a what-if prediction")
    else:
        parts.append("its keeping was not confirmed in time" if st.session_state[_ASKED] else "an example, not kept")
    return " · ".join(parts)
