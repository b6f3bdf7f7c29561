"""How numbers are written: with units, and never as something they are not."""

import math

import pytest
from iso4217 import Currency

from domain.features import ENGINEERED, INPUTS
from domain.segments import STRATEGY
from schemas.http_api.outlook import SEGMENT_NAMES
from services.dashboard.formatting import (
    FEATURE_LABELS,
    SEGMENTS,
    STRATEGIES,
    amount,
    count,
    currency_digits,
    day,
    days,
    duration,
    moment,
    money,
    named_feature_value,
    ordinal,
    percent,
    plain,
)


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        (1234.5, "USD", "$1,234.50"),
        (0.0, "EUR", "€0.00"),
        (-12.345, "USD", "−$12.35"),
        (-0.001, "USD", "$0.00"),
        (1234.5, "JPY", "¥1,234"),
        (1.2345, "KWD", "KWD\N{NO-BREAK SPACE}1.234"),
        (7.0, "CHF", "CHF\N{NO-BREAK SPACE}7.00"),
        (None, "USD", "–"),
        (math.nan, "USD", "–"),
    ],
)
def test_money_carries_its_currency_and_as_many_digits_as_that_has(value, currency, text):
    assert money(value, currency) == text


def test_sums_and_differences_of_money():
    assert money(53214.4, "USD", whole=True) == "$53,214"
    assert money(4.2, "USD", signed=True) == "+$4.20"
    assert money(0.0, "USD", signed=True) == "$0.00"


def test_digits_are_those_of_iso_4217():
    wrong = {each.code: (currency_digits(each.code), each.exponent) for each in Currency if each.exponent is not None}
    funds = {"CLF", "UYW"}  # units of account with four digits, in which nobody is paid
    assert {code: pair for code, pair in wrong.items() if pair[0] != pair[1]}.keys() <= funds


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.46, "46%"),
        (0.046, "4.6%"),
        (0.0, "0%"),
        (1.0, "100%"),
        (0.0004, "<0.1%"),
        (0.9996, ">99.9%"),
        (0.998, "99.8%"),
        (None, "–"),
        (1.357, "136%"),
    ],
)
def test_a_share_is_neither_none_nor_all_unless_it_is(share, text):
    assert percent(share) == text


def test_a_signed_share():
    assert percent(1.357, signed=True) == "+136%"
    assert percent(-0.0723, signed=True) == "−7.2%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(71.9, "71st"), (12.0, "12th"), (22.5, "22nd"), (3.0, "3rd"), (0.0, "1st"), (100.0, "99th"), (99.99, "99th")],
)
def test_a_percentile_is_between_the_first_and_the_99th(value, text):
    assert ordinal(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.08, "80 ms"),
        (0.9999, "1.0 s"),
        (3.21, "3.2 s"),
        (42, "42 s"),
        (59.8, "1 min"),
        (300, "5 min"),
        (3599, "1 h"),
        (7200, "2 h"),
        (86_400, "1 day"),
        (260_000, "3 days"),
        (-1.0, "0 ms"),
        (None, "–"),
    ],
)
def test_a_duration_has_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_days_times_and_counts():
    assert day("2026-05-04") == "4 May 2026"
    assert day("2026-05-04T12:30:05Z") == "4 May 2026"
    assert day(None) == "–"
    assert moment("2026-05-04T12:30:05.123Z") == "12:30:05"
    assert days(1.0) == "1 day"
    assert days(28.5) == "28.5 days"
    assert count(1, "customer") == "1 customer"
    assert count(23570, "customer") == "23,570 customers"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.2, "USD", "+$4.20"),
        (-0.031, "probability", "−3.1 points"),
        (0.25, "orders", "+0.25 orders"),
        (-3.0, "days", "−3.0 days"),
    ],
)
def test_an_amount_of_an_explanation_has_its_sign_and_unit(value, unit, text):
    assert amount(value, unit, signed=True) == text


def test_every_input_and_feature_has_a_name_for_people_and_a_value_with_a_unit():
    for feature in (*INPUTS, *ENGINEERED):
        assert feature.name in FEATURE_LABELS
        text = named_feature_value(feature.name, 3.0, "EUR")
        assert any(mark in text for mark in ("day", "order", "€", "of 5", "years", "month", "×", "%", "111 to 555")), (
            text
        )
        assert named_feature_value(feature.name, None, "EUR") == "unknown"


def test_every_segment_and_strategy_has_words():
    assert set(SEGMENTS) == set(SEGMENT_NAMES)
    assert set(STRATEGIES) == set(STRATEGY.values())


@pytest.mark.parametrize("text", ["$5 and $6", "**bold**", "[x](javascript:1)", "<b>", ":red[x]", "a_b_c"])
def test_markdown_of_others_is_shown_as_it_is_written(text):
    shown = plain(text)
    assert shown.replace("\\", "") == text
    assert all(shown[at - 1] == "\\" for at, letter in enumerate(shown) if letter in "$*[]():<>_")
