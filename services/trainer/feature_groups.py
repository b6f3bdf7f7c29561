"""Features that say nearly the same thing, as groups: what is shuffled together to see its importance, and what does
not count as a second witness of itself. It must never hold a feature twice, nor forget one."""

from collections.abc import Mapping, Sequence

from domain.features import FEATURE_NAMES, WINDOWS_DAYS

OTHER = "other"
RECENCY, COUNT, SPENT, VALUE, AGE, RHYTHM, REFUNDS, PERSON, CELL, SEASON = (
    "recency",
    "number of orders",
    "spending so far",
    "value of an order",
    "time as a customer",
    "rhythm of orders",
    "refunds",
    "age of the person",
    "RFM cell",
    "time of the year",
)
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    RECENCY: ("recency_days", "recency_months", "recency_score", "inactivity_share", "overdue_ratio"),
    COUNT: (
        "frequency",
        "frequency_score",
        "orders_per_month",
        "btyd_x",
        *(f"orders_{days}d" for days in WINDOWS_DAYS),
    ),
    SPENT: (
        "monetary",
        "monetary_score",
        "total_spending",
        "spending_velocity",
        *(f"net_spend_{days}d" for days in WINDOWS_DAYS),
    ),
    VALUE: (
        "average_order_value",
        "largest_order_value",
        "last_order_value",
        "order_value_std",
        "btyd_m",
        "btyd_m_days",
    ),
    AGE: ("customer_lifetime_days", "active_span_days", "btyd_T", "btyd_t_x"),
    RHYTHM: ("avg_days_between_purchases", "gap_std_days", "last_gap_days", "btyd_litt"),
    REFUNDS: ("refund_share",),
    PERSON: ("customer_age",),
    CELL: ("rfm_score",),
    SEASON: ("as_of_year_day",),
}
_GROUP_OF = {feature: group for group, members in _MEMBERS.items() for feature in members}


def group_of(feature: str) -> str:
    """The group of a feature by name; OTHER for one that none has claimed."""
    return _GROUP_OF.get(feature, OTHER)


def feature_groups(names: Sequence[str] = FEATURE_NAMES) -> dict[str, list[int]]:
    """Columns of each group that has any, in the order of first appearance; every column is in exactly one."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(group_of(name), []).append(place)
    return found
