"""Currencies of ISO 4217 and how many digits they have after the point."""

from functools import lru_cache

from iso4217 import Currency


@lru_cache(maxsize=1024)
def exponent_of(code: str) -> int | None:
    """Digits after the point of a currency (2 for USD, 0 for JPY), or None if ISO 4217 has no such code in use.

    Precious metals and testing codes, which have no minor unit, count as no currency.
    """
    try:
        exponent = Currency(code).exponent
    except ValueError:
        return None
    return None if exponent is None else int(exponent)


def minor_per_major(code: str) -> int:
    """Minor units in one unit of the currency. Raises ValueError if there is no such currency."""
    exponent = exponent_of(code)
    if exponent is None:
        raise ValueError(f"{code!r} is not a currency of ISO 4217")
    return int(10**exponent)
