"""How numbers, days and names are written, everywhere in the dashboard: always with a unit, never with false precision.

Pure. What is unknown is written as a dash or as "unknown", never as 0.
"""

import math
import re
from datetime import date, datetime

from domain.features import FEATURES, INPUTS
from schemas.http_api.outlook import SegmentName

UNKNOWN = "–"
MINUS = "\N{MINUS SIGN}"
SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩", "ILS": "₪", "NGN": "₦", "VND": "₫"}
"""Signs that name one currency alone; every other is written by its code."""
_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
}
"""Digits after the point, where they are not 2 (ISO 4217)."""
SEGMENTS: dict[SegmentName, str] = {
    "high_value": "High value",
    "medium_high_value": "Medium-high value",
    "medium_value": "Medium value",
    "at_risk": "At risk",
}
STRATEGIES = {
    "retention_and_vip_treatment": (
        "Keep and reward",
        "Among the quarter with the highest expected value. Keep them: early access, personal service, VIP treatment.",
    ),
    "upsell": (
        "Sell more",
        "Above the middle. They buy already: offer what goes with it, larger sets, the next better product.",
    ),
    "re_engagement": (
        "Win back attention",
        "Below the middle. Remind them of what they liked: news, reminders to buy again, a reason to come back.",
    ),
    "churn_prevention_and_retention_offers": (
        "Prevent churn",
        "The quarter with the lowest expected value. Win them back with an offer, and ask why they went.",
    ),
}
"""By the API's name of a strategy: a title, and what it means."""
FEATURE_LABELS = {
    "customer_age": "Age",
    "purchase_frequency": "Orders per month",
    "average_order_value": "Average order value",
    "total_orders": "Orders",
    "customer_lifetime_days": "Time as a customer",
    "days_since_last_purchase": "Time since the last order",
    "frequency_score": "Frequency score",
    "recency_days": "Recency",
    "frequency": "Repeat orders",
    "monetary": "Net spend",
    "recency_score": "Recency score",
    "monetary_score": "Monetary score",
    "rfm_score": "RFM score",
    "spending_velocity": "Spending velocity",
    "avg_days_between_purchases": "Time between orders",
    "overdue_ratio": "Overdue ratio",
    "active_span_days": "Active span",
    "inactivity_share": "Inactive share",
    "recency_months": "Recency in months",
    "orders_per_month": "Order rate",
    "total_spending": "Total spending",
}
_UNIT_FORMATS = {
    "orders/month": "{:,.2f} orders per month",
    "years": "{:,.0f} years",
    "months": "{:,.1f} months",
    "1-5": "{:.0f} of 5",
    "111-555": "{:.0f} (111 to 555)",
    "ratio": "{:,.2f} (ratio)",
}
_MEANINGS = {feature.name: feature for feature in (*INPUTS, *FEATURES)}


def currency_digits(currency: str) -> int:
    """Digits after the point of amounts in this currency."""
    return _DIGITS.get(currency, 2)


def currency_prefix(currency: str) -> str:
    """What stands before an amount: "$", or "CHF" and a space that does not break."""
    return SYMBOLS.get(currency, f"{currency}\N{NO-BREAK SPACE}")


def money(value: float | None, currency: str, *, signed: bool = False, whole: bool = False) -> str:
    """An amount, as in $1,234.50. signed: with a plus too. whole: without minor units, for sums."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    digits = 0 if whole else currency_digits(currency)
    return _sign(value, digits, signed) + currency_prefix(currency) + f"{abs(value):,.{digits}f}"


def number(value: float | None, digits: int = 0, *, signed: bool = False) -> str:
    """A number with thousands separators."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return _sign(value, digits, signed) + f"{abs(value):,.{digits}f}"


def _sign(value: float, digits: int, signed: bool) -> str:
    rounded = round(value, digits)
    if rounded < 0:
        return MINUS
    return "+" if signed and rounded > 0 else ""


def count(amount: int, noun: str, plural: str = "") -> str:
    """How many of something, as in 1 customer, 23,570 customers."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def percent(share: float | None, *, signed: bool = False) -> str:
    """A share (0 to 1) in percent; neither 0 % nor 100 % unless it is exactly that."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    if not signed and 0 < share < 0.001:
        return "<0.1%"
    if not signed and 0.999 < share < 1:
        return ">99.9%"
    digits = 0 if share in (0, 1) or 0.1 <= abs(share) <= 0.995 or abs(share) > 1 else 1
    return _sign(share * 100, digits, signed) + f"{abs(share) * 100:,.{digits}f}%"


def ordinal(value: float) -> str:
    """A rank, as in 71st; whole, and never the 0th or 100th of a hundred."""
    whole = min(max(math.floor(value), 1), 99)
    ending = "th" if whole in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(whole % 10, "th")
    return f"{whole}{ending}"


def day(text: str | None) -> str:
    """A UTC date, as in 4 May 2026."""
    if text is None:
        return UNKNOWN
    at = date.fromisoformat(text[:10])
    return f"{at.day} {at:%b %Y}"


def moment(text: str) -> str:
    """A time of day in UTC, as in 12:30:05."""
    return f"{datetime.fromisoformat(text):%H:%M:%S}"


def duration(seconds: float | None) -> str:
    """How long something took or ago it was, as in 80 ms, 3.2 s, 5 min, 2 h, 3 days."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, unit, size in ((60.0, "s", 1.0), (3600.0, "min", 60.0), (86_400.0, "h", 3600.0)):
        if round(seconds / size) * size < limit:
            return f"{seconds / size:.0f} {unit}"
    return count(round(seconds / 86_400), "day")


def days(value: float | None) -> str:
    """A number of days; fractions only where they are."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.1f}"
    return f"{text} day" if text == "1" else f"{text} days"


def amount(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A number in an explanation's unit: an ISO 4217 code, orders, probability or days."""
    match unit:
        case "orders":
            return f"{number(value, 2, signed=signed)} orders"
        case "probability":
            if value is None or not signed:
                return percent(value)
            return f"{number(value * 100, 1, signed=True)} points"
        case "days":
            return f"{number(value, 1, signed=signed)} days"
    return money(value, unit, signed=signed)


def feature_label(name: str) -> str:
    """A feature's name for people."""
    if name in FEATURE_LABELS:
        return FEATURE_LABELS[name]
    words = re.sub(r"_(\d+)d$", r", \1 days", name.removesuffix("_days").replace("btyd_", "BTYD ")).replace("_", " ")
    return words[:1].upper() + words[1:]


def feature_meaning(name: str) -> str:
    """What a feature is, in a sentence; empty if domain.features does not know it."""
    meaning = _MEANINGS[name].meaning if name in _MEANINGS else ""
    meaning = meaning.replace("as_of", "the day of the prediction")
    meaning = re.sub("|".join(each.name for each in INPUTS), lambda found: FEATURE_LABELS[found[0]].lower(), meaning)
    return meaning[:1].upper() + meaning[1:]


def feature_value(value: float | None, unit: str, currency: str) -> str:
    """A feature's value with its unit; unit: as domain.features declares it."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if unit.startswith("currency"):
        return money(value, currency) + unit.removeprefix("currency").replace("/", " per ")
    if unit == "days":
        return days(value)
    if unit == "orders":
        return count(int(value), "order") if value == int(value) else f"{value:,.1f} orders"
    return _UNIT_FORMATS.get(unit, "{:,.2f} " + unit).format(value).rstrip()


def named_feature_value(name: str, value: float | None, currency: str) -> str:
    """The value of one of the inputs or engineered features, with its unit."""
    unit = _MEANINGS[name].unit if name in _MEANINGS else ""
    if name == "inactivity_share":
        return "unknown" if value is None else f"{percent(value)} of the time"
    if name == "overdue_ratio" and value is not None:
        return f"{value:,.2f} × the usual gap"
    return feature_value(value, unit, currency)


def plain(text: str) -> str:
    """Text of others for a place that reads Markdown: nothing in it is taken for markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-.!|<>$~:^=" else letter for letter in text)
