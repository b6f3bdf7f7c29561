"""The ways in which a row of a file is broken, each with the reason that it must be refused for; and the valid forms in
which the same row may be written. It must never change what a row says without breaking it.

Each way has variants; which one is used is a number, so that rendering draws no random numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from schemas.currencies import exponent_of
from schemas.dead_letters import Reason

Spoil = Callable[[str, int, str], str]
"""(good cell, variant ≥ 0, reporting currency) → broken cell."""


class Breakage(NamedTuple):
    """One cell is spoilt so that the row must be refused for `reason`."""

    column: str
    reason: Reason
    spoil: Spoil
    of_refunds: bool = True
    """Whether it breaks refunds too."""


def _one_of(*texts: str) -> Spoil:
    return lambda _, variant, __: texts[variant % len(texts)]


def _bad_time(text: str, variant: int, _: str) -> str:
    day, clock = text[:10], text[11:]
    forms = (
        "",
        "not a date",
        f"{day[:8]}32T{clock}",
        f"{day[8:]}.{day[5:7]}.{day[:4]} {clock[:5]}",
        "1899-12-30T00:00:00Z",
    )
    return forms[variant % len(forms)]


def _bad_amount(text: str, variant: int, currency: str) -> str:
    too_fine = f"{text}5" if exponent_of(currency) else f"{text}.5"
    forms = ("", text.replace(".", ",") if "." in text else f"{text},0", f"${text}", "1.2E+3", too_fine, "NaN", "n/a")
    return forms[variant % len(forms)]


def _negative(text: str, variant: int, _: str) -> str:
    return (f"-{text}", "0")[variant % 2]


def _unknown_currency(_: str, variant: int, currency: str) -> str:
    digits = exponent_of(currency) or 0
    # One with as many digits or more: the amount is judged in its own currency first.
    foreign = next(
        each for each in ("EUR", "USD", "KWD", "BHD") if each != currency and (exponent_of(each) or 0) >= digits
    )
    return (foreign, "XXX", "$", currency.lower(), "dollars")[variant % 5]


def _bad_utf8(text: str, variant: int, _: str) -> str:
    return (f"{text}\udcff", f"\udcc3{text}", f"{text[:2]}\udce9{text[2:]}")[variant % 3]


def _bad_id(text: str, variant: int, _: str) -> str:
    return (f"{text}\x07", f"{text[:1]}\n{text[1:]}", text.ljust(257, "0"))[variant % 3]


BREAKAGES: Mapping[str, Breakage] = {
    "bad_time": Breakage("occurred_at", Reason.INVALID_TIMESTAMP, _bad_time),
    "bad_amount": Breakage("amount", Reason.INVALID_AMOUNT, _bad_amount),
    "negative_amount": Breakage("amount", Reason.NON_POSITIVE_AMOUNT, _negative),
    "huge_amount": Breakage("amount", Reason.AMOUNT_TOO_LARGE, _one_of("999999999999999", "1" + "0" * 30)),
    "unknown_currency": Breakage("currency", Reason.UNKNOWN_CURRENCY, _unknown_currency),
    "missing_customer": Breakage("customer_id", Reason.EMPTY_CUSTOMER_ID, _one_of("", "  ")),
    "missing_order": Breakage("order_id", Reason.MISSING_FIELD, _one_of(""), of_refunds=False),
    "bad_utf8": Breakage("customer_id", Reason.INVALID_UTF8, _bad_utf8),
    "bad_id": Breakage("customer_id", Reason.INVALID_FIELD, _bad_id),
    "unknown_type": Breakage("type", Reason.UNKNOWN_EVENT_TYPE, _one_of("voucher", "order.placed", "chargeback", "?")),
}
"""Kinds of breakage by name."""


class Form(NamedTuple):
    """Another valid way to write a cell."""

    column: str
    write: Callable[[str], str]
    of_refunds: bool = True


def _elsewhere(text: str) -> str:
    """The same instant on a clock two hours ahead, where the day stays the same; else with a space and no zone."""
    hour = int(text[11:13])
    if hour > 21:
        return text[:-1].replace("T", " ")
    return f"{text[:11]}{hour + 2:02d}{text[13:-1]}+02:00"


FORMS: Sequence[Form] = (
    Form("occurred_at", lambda text: text[:-1].replace("T", " ")),
    Form("occurred_at", _elsewhere),
    Form("occurred_at", lambda text: f" {text[:-1]}.000Z "),
    Form("type", lambda text: f" {text.title()} "),
    Form("type", lambda text: "" if text == "order" else text, of_refunds=False),
    Form("amount", lambda text: f" {text}"),
    Form("amount", lambda text: f"+{text}"),
    Form("amount", lambda text: f"{text}00" if "." in text else f"{text}.0"),
    Form("currency", lambda _: ""),
)
"""Forms that must be read as what they say."""
