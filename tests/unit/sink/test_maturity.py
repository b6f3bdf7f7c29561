"""When predictions are due, which of them are compared, and with what."""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import bson
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.customer import DAY_MS, OrderPlaced, OrderRefunded, fold
from domain.features import day_of
from schemas.customer_rows import Links, Part, Row
from schemas.predictions import encode_prediction
from services.sink.documents import Write, judge
from services.sink.maturity import compared, due_on, firsts, knew_the_day, over_until, turn_of
from tests.unit.sink.examples import prediction
from tests.unit.sink.test_documents import FakeRecord

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
DAY_0 = day_of(date(2024, 1, 1))


def pending(
    customer: str = "a", as_of: str = "2024-01-10", *, recency: float | None = 3.0, version: int = 1, **changes: Any
) -> dict[str, Any]:
    figures = dict.fromkeys(("expected_orders", "p_active", "value_p10", "value_p50", "value_p90"), 0.5)
    return {
        "_id": f"{customer}-{as_of}-{version}-{changes.get('model_version', 'm')}",
        "customer_id": customer,
        "feature_version": version,
        "as_of": as_of,
        "inputs": {"days_since_last_purchase": recency},
        "prediction": {
            **figures,
            "expected_value": 20.0,
            "historical_value": 5.0,
            "horizon_days": 10,
            "currency": "USD",
            "model_version": "m",
            **changes,
        },
    }


def at(day: int) -> int:
    return (DAY_0 + day - 1) * DAY_MS + 3600_000


@given(st.dates(date(1970, 1, 1), date(9000, 1, 1)), st.integers(1, 4000), st.booleans())
def test_a_prediction_is_due_when_its_window_is_over(as_of: date, horizon: int, knew: bool):
    assert due_on(as_of.isoformat(), horizon, knew) == (as_of + timedelta(days=horizon + knew)).isoformat()


@pytest.mark.parametrize(("as_of", "horizon"), [("2024-02-31", 5), ("9999-12-01", 40), ("2024-01-01", 10**12)])
def test_what_no_calendar_has_is_never_due(as_of: str, horizon: int):
    assert due_on(as_of, horizon, False) is None


def test_the_document_says_when_it_is_due_unless_it_never_is():
    for as_of, recency, due in [
        ("2024-01-31", 4.0, "2024-04-30"),
        ("2024-01-31", 0.0, "2024-05-01"),
        ("2024-02-31", 1.0, None),
    ]:
        message = msgspec.structs.replace(prediction(), as_of=as_of, inputs={"days_since_last_purchase": recency})
        write = judge(FakeRecord(b"a", encode_prediction(message), partition=3), NOW)
        assert isinstance(write, Write)
        history = bson.decode(write.history.raw)
        assert history.get("due_on") == due
        assert history["partition"] == 3
        assert "due_on" not in bson.decode(write.customer.raw)


@pytest.mark.parametrize(("recency", "knew"), [(0, True), (0.0, True), (1.0, False), (None, False)])
def test_features_know_the_day_itself_when_the_last_order_is_of_that_day(recency: float | None, knew: bool):
    assert knew_the_day({"days_since_last_purchase": recency}) is knew
    assert knew_the_day({}) is False


def test_time_must_have_come_past_the_window_and_the_grace():
    noon_ms = (DAY_0 * 24 + 12) * 3600_000
    assert over_until(noon_ms, 0) == "2024-01-01"
    assert over_until(noon_ms, 2) == "2023-12-30"
    assert over_until(noon_ms, 10**9) is None
    assert over_until(2**62, 0) is None


def test_of_a_customers_week_the_first_is_compared_once_a_model():
    monday = [pending("a", "2024-01-11", version=1), pending("a", "2024-01-11", version=2)]
    rest = [pending("a", "2024-01-17"), pending("b", "2024-01-12"), pending("a", "2024-01-12", model_version="n")]
    later = pending("a", "2024-01-18")
    found = firsts([*monday, *rest, later], [])
    assert found == [monday[0], rest[1], rest[2], later]
    assert firsts([*monday, *rest, later], [turn_of(monday[1])]) == [rest[1], rest[2], later]


def test_what_came_is_counted_from_the_first_day_of_which_nothing_was_known():
    events = [
        OrderPlaced("before", 9900, at(9)),
        OrderPlaced("that day", 100, at(10)),
        OrderPlaced("within", 2000, at(19)),
        OrderPlaced("on the day after a shifted window's end", 40_000, at(20)),
        OrderRefunded("r", "within", 500, at(19)),
        OrderRefunded("r of before", "before", 500, at(15)),
        OrderRefunded("too late", "within", 500, at(25)),
    ]
    rows = {"a": Row(7, 0, 0, fold(events))}
    (unaware,) = compared([pending(recency=1.0)], rows, NOW)
    assert (unaware["window_from"], unaware["window_until"]) == ("2024-01-10", "2024-01-20")
    assert (unaware["realised_value"], unaware["realised_orders"]) == (16.0, 2)
    (aware,) = compared([pending(recency=0.0)], rows, NOW)
    assert (aware["window_from"], aware["window_until"]) == ("2024-01-11", "2024-01-21")
    assert (aware["realised_value"], aware["realised_orders"]) == (415.0, 2)
    assert aware["week"] == (DAY_0 + 9) // 7


def test_amounts_are_in_units_of_the_predictions_currency():
    rows = {"a": Row(1, 0, 0, fold([OrderPlaced("o", 2000, at(12))]))}
    found = compared([pending(currency="JPY"), pending(currency="KWD"), pending(currency="???")], rows, NOW)
    assert [(each["currency"], each["realised_value"]) for each in found] == [("JPY", 2000.0), ("KWD", 2.0)]


@pytest.mark.parametrize("figure", [math.nan, math.inf, None, "x"])
def test_figures_that_are_none_are_not_compared(figure: Any):
    rows = {"a": Row(1, 0, 0, fold([OrderPlaced("o", 2000, at(12))]))}
    assert compared([pending(expected_value=figure)], rows, NOW) == []


def test_who_has_no_row_is_not_compared():
    assert compared([pending("gone")], {}, NOW) == []


def test_who_was_merged_later_counts_for_that_one_alone():
    own, before, later = (fold([OrderPlaced(name, cents, at(12))]) for name, cents in [("x", 100), ("y", 20), ("z", 3)])
    parts = {"before": Part(1, "a", at(10), before), "later": Part(1, "a", at(11), later)}
    (found,) = compared([pending()], {"a": Row(3, 0, 0, own, Links(3, None, 0, parts))}, NOW)
    assert (found["realised_value"], found["realised_orders"]) == (1.2, 2)
