"""Money as whole minor units (cents), never a float, so that sums are exact in any order.

Pure. Must never round silently: an amount that the currency cannot hold is an error.
"""

import re
from decimal import Decimal

# 18 digits in all: a sum of a million of the largest allowed amounts still fits a signed 64-bit integer.
_DECIMAL = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?\Z", re.ASCII)
AMOUNT_MINOR_MAX = 10**13
"""Largest amount of one order, in minor units (100 billion dollars in cents)."""


class AmountError(ValueError):
    """An amount that is not money: not a decimal, too precise for its currency, or beyond the bound."""


class AmountTooLarge(AmountError):
    """The amount's size is beyond AMOUNT_MINOR_MAX."""


def minor_units(amount: str, exponent: int) -> int:
    """Whole minor units of a decimal string, exactly.

    amount: a plain decimal such as "12.34" (no exponent notation, no thousands separators).
    exponent: digits after the point that the currency has (ISO 4217: 2 for USD, 0 for JPY, 3 for BHD).
    Raises AmountError if it is no such decimal or has more digits than the currency, AmountTooLarge beyond the bound.
    """
    if not _DECIMAL.match(amount):
        raise AmountError(f"amount {amount[:40]!r} is not a plain decimal such as '12.34'")
    scaled = Decimal(amount).scaleb(exponent)
    whole = int(scaled)
    if scaled != whole:
        raise AmountError(f"amount {amount!r} has more than {exponent} digits after the point")
    if abs(whole) > AMOUNT_MINOR_MAX:
        raise AmountTooLarge(f"amount {amount!r} is larger than {AMOUNT_MINOR_MAX} minor units")
    return whole


def decimal_string(minor: int, exponent: int) -> str:
    """The decimal string of whole minor units: the inverse of minor_units()."""
    return str(Decimal(minor).scaleb(-exponent).quantize(Decimal(1).scaleb(-exponent)))


def convert_minor(minor: int, from_exponent: int, to_exponent: int, rate: Decimal) -> int:
    """Minor units in another currency at `rate` (units of target per unit of source), rounded half to even."""
    exact = Decimal(minor).scaleb(-from_exponent) * rate
    return int(exact.scaleb(to_exponent).to_integral_value(rounding="ROUND_HALF_EVEN"))
