"""Rates from other currencies to the reporting currency. Pure; must never guess: without a rate there is no amount."""

import csv
import io
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation

from schemas.currencies import exponent_of

_COLUMNS = ["date", "currency", "rate"]
_RATE_MIN, _RATE_MAX = Decimal("1e-9"), Decimal("1e9")
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class RatesError(ValueError):
    """A rates table that cannot be used; the message names the line."""


class Rates:
    """Rates to the reporting currency by currency and day. A rate holds from its day until the next one."""

    def __init__(self, rows: Iterable[tuple[int, str, Decimal]] = ()) -> None:
        """rows: (day, currency, units of the reporting currency for one unit). Days since 1970-01-01, UTC."""
        by_currency: dict[str, dict[int, Decimal]] = {}
        for day, currency, rate in rows:
            known = by_currency.setdefault(currency, {})
            if known.setdefault(day, rate) != rate:
                raise RatesError(f"two rates for {currency} on one day: {known[day]} and {rate}")
        self._days = {currency: sorted(rates) for currency, rates in by_currency.items()}
        self._rates = {currency: [rates[day] for day in sorted(rates)] for currency, rates in by_currency.items()}

    def on(self, day: int, currency: str) -> Decimal | None:
        """The last rate on or before `day`; None if there is none."""
        index = bisect_right(self._days.get(currency, []), day)
        return self._rates[currency][index - 1] if index else None


def parse_rates(text: str) -> Rates:
    """Rates from CSV text with the header date,currency,rate. Raises RatesError naming the line that is wrong."""
    reader = csv.DictReader(io.StringIO(text))
    if reader.fieldnames is None or sorted(reader.fieldnames) != sorted(_COLUMNS):
        raise RatesError(f"line 1 must be {','.join(_COLUMNS)}, not {','.join(reader.fieldnames or [])[:80]!r}")
    rows = []
    for row in reader:
        try:
            rows.append(_rate_row(row))
        except (ValueError, TypeError, InvalidOperation) as error:
            raise RatesError(f"line {reader.line_num}: {error}") from None
    return Rates(rows)


def _rate_row(row: Mapping[str, str]) -> tuple[int, str, Decimal]:
    if None in row or None in row.values():
        raise ValueError("needs three values: date,currency,rate")
    code = row["currency"].strip()
    if exponent_of(code) is None:
        raise ValueError(f"{code!r} is no currency of ISO 4217")
    try:
        rate = Decimal(row["rate"].strip())
    except InvalidOperation:
        raise ValueError(f"rate {row['rate']!r} is not a number") from None
    if not (rate.is_finite() and _RATE_MIN <= rate <= _RATE_MAX):
        raise ValueError(f"rate {row['rate']!r} must be a number above 0 (from {_RATE_MIN} to {_RATE_MAX})")
    return date.fromisoformat(row["date"].strip()).toordinal() - _EPOCH_ORDINAL, code, rate
