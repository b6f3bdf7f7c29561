"""The rows of an orders file as valid domain events or as refusals, each with the reason that ingest would give the
same event. It must never repair or drop a row uncounted. Each distinct text is judged once: a million rows are quick.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from domain.customer import Event, OrderPlaced, OrderRefunded
from domain.money import AMOUNT_MINOR_MAX, AmountError, AmountTooLarge, minor_units
from schemas.currencies import exponent_of
from schemas.customer_events import EventType, Identifier, epoch_ms
from schemas.dead_letters import Reason
from services.runtime.shutdown import KnownProblem
from services.trainer.orders_file import OrdersTable, Texts, event_type, refund_key, rfc3339

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FUTURE_TOLERANCE_MS = 300_000
_REASONS = tuple(Reason)
_CODE_OF = {reason: code for code, reason in enumerate(_REASONS)}
VALID = -1
_UNKNOWN_TIME = np.iinfo(np.int64).min
_AMOUNT_CHARS_MAX, _CURRENCY_CHARS_MAX = 40, 16

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}\Z", re.ASCII)
_PLAIN_DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?\Z", re.ASCII)
_INSTANT: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


@dataclass(frozen=True, eq=False)
class JudgedRows:
    """All arrays have one entry a row of the file; what a refused row holds beside its reason has no meaning."""

    reason: NDArray[np.int8]
    """VALID, or the place of the reason in Reason."""
    is_refund: Bools
    customer_ids: Texts
    order_ids: Texts
    refund_ids: Texts
    """'' where the row is no refund."""
    at_ms: Ints
    """Epoch milliseconds, also of refused rows whose time could be read; else the smallest integer."""
    amount_minor: Ints

    @property
    def valid(self) -> Bools:
        """Rows that are events."""
        return np.asarray(self.reason == VALID, dtype=np.bool_)

    def rejected(self, before_ms: int | None = None) -> Counter[Reason]:
        """Refused rows by reason; with before_ms, without those known to lie at or after it."""
        counted = ~self.valid if before_ms is None else ~self.valid & (self.at_ms < before_ms)
        codes, counts = np.unique(self.reason[counted], return_counts=True)
        return Counter({_REASONS[code]: int(count) for code, count in zip(codes, counts, strict=True)})

    def events(self) -> Iterator[tuple[int, OrderPlaced | OrderRefunded]]:
        """(row, event) of each valid row, in the file's order."""
        rows = np.flatnonzero(self.valid)
        columns = (self.is_refund, self.order_ids, self.refund_ids, self.amount_minor, self.at_ms)
        lists = (column[rows].tolist() for column in columns)
        for row, is_refund, order_id, refund_id, minor, at_ms in zip(rows.tolist(), *lists, strict=True):
            if is_refund:
                yield row, OrderRefunded(refund_id, order_id or None, minor, at_ms)
            else:
                yield row, OrderPlaced(order_id, minor, at_ms)


class _Time(NamedTuple):
    text: str
    at_ms: int
    is_time: bool
    """What the contract's type takes for a time."""
    is_rfc3339: bool


def judge(table: OrdersTable, currency: str, now_ms: int | None = None) -> JudgedRows:
    """Judge all rows. currency: the reporting currency, also of rows that name none; another one is UNKNOWN_CURRENCY.

    now_ms: refuse times later than this (and a tolerance) as ingest does; None: the file's future is no error.
    Raises KnownProblem if there is no such currency.
    """
    if _CURRENCY.match(currency) is None or exponent_of(currency) is None:
        raise KnownProblem(f"{currency!r} is no currency of ISO 4217, such as USD")
    cells = table.columns
    types = _each(cells["type"], event_type)
    is_order = np.asarray(types == EventType.ORDER_PLACED.value)
    is_refund = np.asarray(types == EventType.ORDER_REFUNDED.value)
    times = _each(cells["occurred_at"], _time)
    at_ms = np.fromiter((time.at_ms for time in times), dtype=np.int64, count=len(times))
    refund_ids = _refund_ids(table, is_refund, times)
    amounts = _amounts(cells["amount"], _each(cells["currency"], lambda text: text.strip() or currency), currency)

    verdict = _Verdict(len(table))
    used = [cells[name] for name in ("type", "occurred_at", "customer_id", "order_id", "amount", "currency")]
    for column in [*used, np.where(is_refund, refund_ids, "")]:
        verdict.refuse(Reason.INVALID_UTF8, _each(column, _is_no_utf8).astype(bool))
    verdict.refuse(Reason.UNKNOWN_EVENT_TYPE, ~(is_order | is_refund))
    # From here in the order of the contract's fields: the first that is wrong names the reason.
    verdict.refuse(Reason.INVALID_TIMESTAMP, np.array([not time.is_time for time in times], dtype=bool))
    verdict.refuse_each(_each(cells["customer_id"], _customer_problem))
    verdict.refuse_each(_each(refund_ids, _identifier_problem), among=is_refund)
    no_order_id = np.asarray(cells["order_id"] == "")
    verdict.refuse(Reason.MISSING_FIELD, is_order & no_order_id)
    verdict.refuse_each(_each(cells["order_id"], _identifier_problem), among=~no_order_id)
    verdict.refuse_each(amounts.too_long)
    verdict.refuse(Reason.UNKNOWN_CURRENCY, amounts.currency_too_long)
    verdict.refuse(Reason.INVALID_TIMESTAMP, np.array([not time.is_rfc3339 for time in times], dtype=bool))
    verdict.refuse(Reason.INVALID_TIMESTAMP, at_ms < 0)
    if now_ms is not None:
        verdict.refuse(Reason.FUTURE_DATE, at_ms > now_ms + FUTURE_TOLERANCE_MS)
    verdict.refuse_each(amounts.problem)
    return JudgedRows(
        verdict.reason, is_refund, cells["customer_id"], cells["order_id"], refund_ids, at_ms, amounts.minor
    )


class _Verdict:
    """The first reason of each row stands."""

    def __init__(self, rows: int) -> None:
        self.reason = np.full(rows, VALID, dtype=np.int8)

    def refuse(self, reason: Reason, rows: Bools) -> None:
        self.reason[(self.reason == VALID) & rows] = _CODE_OF[reason]

    def refuse_each(self, reasons: Texts, among: Bools | None = None) -> None:
        """reasons: a Reason or None for each row; `among` the rows that they hold for."""
        for reason in {each for each in pd.unique(reasons) if each is not None}:
            rows = np.asarray(reasons == reason)
            self.refuse(reason, rows if among is None else rows & among)


def _each(column: Texts, function: Callable[[str], Any]) -> Texts:
    """function of each cell, called once for each distinct text."""
    codes, unique = pd.factorize(column)
    answers = np.empty(len(unique), dtype=object)
    for index, text in enumerate(unique.tolist()):
        answers[index] = function(text)
    return answers[codes] if len(unique) else np.empty(0, dtype=object)


def _is_no_utf8(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _time(cell: str) -> _Time:
    text = rfc3339(cell.strip())
    try:
        at_ms = epoch_ms(_INSTANT.validate_python(text))
    except (ValidationError, OverflowError):
        return _Time(text, _UNKNOWN_TIME, is_time=False, is_rfc3339=False)
    return _Time(text, at_ms, is_time=True, is_rfc3339=_RFC3339.match(text) is not None)


def _refund_ids(table: OrdersTable, is_refund: Bools, times: Texts) -> Texts:
    cells = table.columns
    found = np.where(is_refund, cells["refund_id"], "").astype(object)
    for row in np.flatnonzero(is_refund & (found == "")).tolist():
        customer, order, amount = (cells[name][row] for name in ("customer_id", "order_id", "amount"))
        found[row] = refund_key(customer, order, times[row].text, amount.strip())
    return found


def _identifier_problem(text: str) -> Reason | None:
    if text.isascii() and text.isprintable() and 0 < len(text) <= 256 and not text.isspace():
        return None  # as pydantic would say, in a tenth of the time
    try:
        _IDENTIFIER.validate_python(text, strict=True)
    except (ValidationError, UnicodeError):
        return Reason.INVALID_FIELD
    return None


def _customer_problem(text: str) -> Reason | None:
    return _identifier_problem(text) if text.strip() else Reason.EMPTY_CUSTOMER_ID


class _Amounts(NamedTuple):
    minor: Ints
    problem: Texts
    too_long: Texts
    currency_too_long: Bools


def _amounts(column: Texts, currencies: Texts, reporting: str) -> _Amounts:
    """Each amount in its own currency's digits, checked before its currency is compared with the reporting one."""
    texts = _each(column, str.strip)
    minor = np.zeros(len(texts), dtype=np.int64)
    problem = np.full(len(texts), None, dtype=object)
    codes, distinct = pd.factorize(currencies)  # not `currencies == text`: NumPy drops NULs at the end of a text
    for code, currency in enumerate(distinct.tolist()):
        rows = np.flatnonzero(codes == code)
        exponent = exponent_of(currency) if _CURRENCY.match(currency) else None
        if exponent is None:
            problem[rows] = Reason.UNKNOWN_CURRENCY
            continue
        judged = _each(texts[rows], partial(amount_verdict, exponent=exponent))
        is_money = np.array([isinstance(each, int) for each in judged], dtype=bool)
        minor[rows[is_money]] = judged[is_money].astype(np.int64)
        problem[rows[~is_money]] = judged[~is_money]
        if currency != reporting:
            problem[rows[is_money]] = Reason.UNKNOWN_CURRENCY
    too_long = _each(texts, lambda text: _amount_problem(text) if len(text) > _AMOUNT_CHARS_MAX else None)
    return _Amounts(minor, problem, too_long, _each(currencies, lambda t: len(t) > _CURRENCY_CHARS_MAX).astype(bool))


def amount_verdict(text: str, exponent: int) -> int | Reason:
    """Minor units of an amount greater than 0 in a currency with so many digits after the point, or what is wrong."""
    try:
        minor = minor_units(text, exponent)
    except AmountTooLarge:
        return Reason.NON_POSITIVE_AMOUNT if text.startswith("-") else Reason.AMOUNT_TOO_LARGE
    except AmountError:
        return _amount_problem(text)
    return minor if minor > 0 else Reason.NON_POSITIVE_AMOUNT


def _amount_problem(text: str) -> Reason:
    """Why a text that is no amount is none."""
    if _PLAIN_DECIMAL.match(text):
        if text.startswith("-"):
            return Reason.NON_POSITIVE_AMOUNT
        if len(text.lstrip("+0").split(".")[0]) > len(str(AMOUNT_MINOR_MAX)):
            return Reason.AMOUNT_TOO_LARGE
    return Reason.INVALID_AMOUNT


def domain_events(table: OrdersTable, currency: str) -> tuple[dict[str, list[Event]], Counter[Reason]]:
    """Valid events by customer, in the file's order, and how many rows were rejected for which reason."""
    judged = judge(table, currency)
    found: dict[str, list[Event]] = {}
    for row, event in judged.events():
        found.setdefault(judged.customer_ids[row], []).append(event)
    return found, judged.rejected()
