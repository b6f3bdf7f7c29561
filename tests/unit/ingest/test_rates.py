"""Rates by day, and the file they come from."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import Reason
from services.ingest.judge import Rules
from services.ingest.rates import Rates, RatesError, parse_rates
from tests.unit.ingest.events import encoded, verdict

FILE = "date,currency,rate\n2026-01-01,EUR,1.10\n2026-01-10,EUR,1.20\n2026-01-01,JPY,0.0065\n"


def cents(occurred_at: str, amount: str, currency: str, **changes: str) -> int:
    rules = Rules(currency="USD", rates=parse_rates(FILE))
    return verdict(
        encoded(occurred_at=occurred_at, amount=amount, currency=currency, **changes), rules=rules
    ).amount_minor


def test_an_amount_is_converted_at_the_last_rate_on_or_before_its_day():
    assert cents("2026-01-01T00:00:00Z", "10.00", "EUR") == 1100
    assert cents("2026-01-09T23:59:59Z", "10.00", "EUR") == 1100
    assert cents("2026-01-10T00:00:00Z", "10.00", "EUR") == 1200
    assert cents("2026-01-31T00:00:00Z", "10.00", "EUR") == 1200


def test_the_day_is_that_of_utc():
    assert cents("2026-01-10T00:30:00+01:00", "10.00", "EUR") == 1100
    assert cents("2026-01-09T23:30:00-01:00", "10.00", "EUR") == 1200


def test_a_refund_is_converted_at_its_own_day():
    assert cents("2026-01-10T12:00:00Z", "10.00", "EUR", event_type="order.refunded") == 1200


def test_currencies_keep_their_own_number_of_digits():
    assert cents("2026-01-02T00:00:00Z", "4500", "JPY") == 2925


def test_before_the_first_rate_there_is_none():
    rules = Rules(currency="USD", rates=parse_rates(FILE))
    rejection = verdict(encoded(occurred_at="2025-12-31T23:59:59Z", currency="EUR"), rules=rules)
    assert rejection.reason is Reason.UNKNOWN_CURRENCY
    assert "no rate from EUR" in rejection.detail


def test_what_rounds_to_nothing_is_no_amount():
    rules = Rules(currency="USD", rates=parse_rates("date,currency,rate\n2020-01-01,JPY,0.004\n"))
    rejection = verdict(encoded(amount="1", currency="JPY"), rules=rules)
    assert rejection.reason is Reason.NON_POSITIVE_AMOUNT


def test_what_becomes_too_large_is_refused():
    rules = Rules(currency="USD", rates=parse_rates("date,currency,rate\n2020-01-01,EUR,2\n"))
    rejection = verdict(encoded(amount="60000000000", currency="EUR"), rules=rules)
    assert rejection.reason is Reason.AMOUNT_TOO_LARGE


def test_the_reporting_currency_needs_no_rate_and_takes_none():
    rules = Rules(currency="USD", rates=parse_rates("date,currency,rate\n2020-01-01,USD,2\n"))
    assert verdict(encoded(), rules=rules).amount_minor == 1234


@given(
    st.dictionaries(st.integers(-50, 50), st.integers(1, 10**6).map(Decimal), max_size=12),
    st.integers(-60, 60),
)
def test_the_rate_of_a_day_is_the_latest_that_is_not_later(rates: dict[int, Decimal], day: int):
    earlier = [known for known in rates if known <= day]
    expected = rates[max(earlier)] if earlier else None
    assert Rates((known, "EUR", rate) for known, rate in rates.items()).on(day, "EUR") == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1"),
        ("day,currency,rate\n", "line 1"),
        ("date,currency,rate\n2026-01-01,EUR\n", "line 2"),
        ("date,currency,rate\n2026-01-01,EUR,1,2\n", "line 2"),
        ("date,currency,rate\n2026-01-01,EUR,1.1\n2026-13-01,EUR,1.1\n", "line 3"),
        ("date,currency,rate\n2026-01-01,EURO,1.1\n", "EURO"),
        ("date,currency,rate\n2026-01-01,EUR,free\n", "free"),
        ("date,currency,rate\n2026-01-01,EUR,0\n", "above 0"),
        ("date,currency,rate\n2026-01-01,EUR,-1\n", "above 0"),
        ("date,currency,rate\n2026-01-01,EUR,NaN\n", "above 0"),
        ("date,currency,rate\n2026-01-01,EUR,1e999999\n", "above 0"),
        ("date,currency,rate\n2026-01-01,EUR,1.1\n2026-01-01,EUR,1.2\n", "two rates for EUR"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(text: str, part: str):
    with pytest.raises(RatesError, match=part):
        parse_rates(text)


def test_columns_may_be_in_any_order_and_lines_may_repeat():
    rates = parse_rates("currency,rate,date\nEUR,1.1,2026-01-01\nEUR,1.1,2026-01-01\n")
    assert rates.on(30_000, "EUR") == Decimal("1.1")
