"""An independent, deliberately naive computation of every feature: plain Python, exact fractions, no shared code.

Works on public facts of a customer (orders, refunds, cancellations as dictionaries), not on the product's state.
"""

import math
from datetime import date
from fractions import Fraction
from itertools import pairwise
from statistics import pstdev
from typing import Any

NAN = math.nan
MONTH = Fraction("30.4375")


def deduplicated(events: list[dict[str, Any]], kind: str, key: str) -> dict[str, dict[str, Any]]:
    """One event an id: of several, the one that happened last, then the largest, then (refunds) the order's key."""
    kept: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["kind"] != kind:
            continue
        known = kept.get(event[key])
        if known is None or (event["at_ms"], event.get("minor", 0)) > (known["at_ms"], known.get("minor", 0)):
            kept[event[key]] = event
    return kept


def live_orders(events: list[dict[str, Any]], as_of_day: int) -> list[tuple[int, int, int]]:
    """(day, gross, net) of every order that counts at the end of the day."""
    end = (as_of_day + 1) * 86_400_000
    refunds = [e for e in deduplicated(events, "refund", "refund_id").values() if e["at_ms"] < end]
    cancelled = {e["order_id"] for e in events if e["kind"] == "cancel" and e["at_ms"] < end}
    rows = []
    for order_id, order in deduplicated(events, "order", "order_id").items():
        if order["at_ms"] >= end or order_id in cancelled:
            continue
        back = sum(refund["minor"] for refund in refunds if refund["order_id"] == order_id)
        rows.append((order["at_ms"] // 86_400_000, order["minor"], order["minor"] - min(order["minor"], back)))
    return rows


def naive_ledger(events: list[dict[str, Any]], as_of_day: int) -> dict[str, int]:
    """Where the customer's money stands at the end of the day, in minor units: refund by refund, each order's purse."""
    end = (as_of_day + 1) * 86_400_000
    orders = {i: o for i, o in deduplicated(events, "order", "order_id").items() if o["at_ms"] < end}
    cancelled = {e["order_id"] for e in events if e["kind"] == "cancel" and e["at_ms"] < end} & orders.keys()
    left = {order_id: order["minor"] for order_id, order in orders.items()}
    found = dict.fromkeys(("refunded", "loose_refunds", "cancelled_refunds", "refund_excess", "waiting_refunds"), 0)
    found["waiting_refund_count"] = 0
    for refund in deduplicated(events, "refund", "refund_id").values():
        if refund["at_ms"] >= end:
            continue
        order_id, minor = refund["order_id"], refund["minor"]
        if order_id is None:
            found["loose_refunds"] += minor
        elif order_id not in orders:
            found["waiting_refunds"] += minor
            found["waiting_refund_count"] += 1
        else:
            taken = min(left[order_id], minor)
            left[order_id] -= taken
            found["cancelled_refunds" if order_id in cancelled else "refunded"] += taken
            found["refund_excess"] += minor - taken
    gross = sum(order["minor"] for order_id, order in orders.items() if order_id not in cancelled)
    net = gross - found["refunded"] - found["loose_refunds"]
    return found | {"orders_placed": len(orders), "orders_cancelled": len(cancelled), "gross": gross, "net": net}


def score(value: float, borders: tuple[float, ...]) -> float:
    return NAN if math.isnan(value) else 1.0 + sum(value > border for border in borders)


def naive_features(events: list[dict[str, Any]], as_of_day: int, quintiles: Any, unit: int = 100) -> dict[str, float]:
    """Every feature by name, for a customer whose events are given."""
    orders = live_orders(events, as_of_day)
    end = (as_of_day + 1) * 86_400_000
    loose = [
        (e["at_ms"] // 86_400_000, e["minor"])
        for e in deduplicated(events, "refund", "refund_id").values()
        if e["order_id"] is None and e["at_ms"] < end
    ]
    births = [(e["at_ms"], e["birth_year"] or 0) for e in events if e["kind"] == "profile"]
    birth = max(births, default=(0, 0))[1]
    year = date.fromordinal(as_of_day + 719_163).year
    age = float(year - birth) if birth else NAN
    n = len(orders)
    days = sorted({day for day, _, _ in orders})
    gross = sum(g for _, g, _ in orders)
    net = sum(v for _, _, v in orders) - sum(minor for _, minor in loose)
    some = n > 0
    lifetime = as_of_day - days[0] if some else NAN
    recency = as_of_day - days[-1] if some else NAN
    aov = float(Fraction(gross, unit) / n) if some else NAN
    per_month = float(n * MONTH / max(Fraction(lifetime), MONTH)) if some else NAN
    repeat = n - 1
    span = lifetime - recency if some else NAN
    usual = span / repeat if some and repeat > 0 else NAN
    gaps = [b - a for a, b in pairwise(days)]
    total = float(Fraction(gross, unit)) if some else NAN
    monetary = float(Fraction(net, unit)) if some else NAN
    r = 6.0 - score(float(recency), quintiles.recency_days)
    f = score(float(repeat) if some else NAN, quintiles.frequency)
    m = score(monetary, quintiles.monetary)
    by_day: dict[int, int] = {}
    for day, _, value in orders:
        by_day[day] = by_day.get(day, 0) + value
    paid = [value for value in by_day.values() if value > 0]
    last_day_orders = [g for day, g, _ in orders if some and day == days[-1]]

    def within(window: int) -> list[tuple[int, int, int]]:
        return [row for row in orders if as_of_day - row[0] < window]

    def spend(window: int) -> float:
        back = sum(minor for day, minor in loose if as_of_day - day < window)
        return float(Fraction(sum(v for _, _, v in within(window)) - back, unit))

    found = {
        "recency_days": recency,
        "frequency": repeat if some else NAN,
        "monetary": monetary,
        "recency_score": r,
        "frequency_score": f,
        "monetary_score": m,
        "rfm_score": 100 * r + 10 * f + m,
        "spending_velocity": total / max(lifetime, 1) if some else NAN,
        "avg_days_between_purchases": usual,
        "overdue_ratio": recency / usual if some and repeat > 0 and usual > 0 else NAN,
        "active_span_days": span,
        "inactivity_share": (recency / lifetime if lifetime > 0 else 0.0) if some else NAN,
        "customer_lifetime_days": lifetime,
        "recency_months": float(Fraction(recency) / MONTH) if some else NAN,
        "orders_per_month": per_month,
        "total_spending": total,
        "average_order_value": aov,
        "customer_age": age,
        "largest_order_value": max(g for _, g, _ in orders) / unit if some else NAN,
        "last_order_value": float(Fraction(sum(last_day_orders), unit) / len(last_day_orders)) if some else NAN,
        "order_value_std": pstdev([g / unit for _, g, _ in orders]) if some else NAN,
        "gap_std_days": pstdev(gaps) if len(gaps) >= 2 else NAN,
        "last_gap_days": gaps[-1] if gaps else NAN,
        "refund_share": ((gross - net) / gross if gross else 0.0) if some else NAN,
        "btyd_x": len(days) - 1 if some else NAN,
        "btyd_t_x": days[-1] - days[0] if some else NAN,
        "btyd_T": lifetime,
        "btyd_litt": sum(math.log(gap) for gap in gaps) if some else NAN,
        "btyd_m": float(Fraction(sum(paid), unit) / len(paid)) if paid else NAN,
        "btyd_m_days": len(paid) if some else NAN,
        "as_of_year_day": date.fromordinal(719_163 + as_of_day).timetuple().tm_yday if some else NAN,
    }
    for window in (30, 90, 180, 365):
        found[f"orders_{window}d"] = len(within(window)) if some else NAN
        found[f"net_spend_{window}d"] = spend(window) if some else NAN
    return {name: float(value) for name, value in found.items()}
