"""Which segment of the customer population a predicted value falls into, and what to do about it.

Pure. Segments are percentiles of the population in which each customer counts once. A customer near a border stays
where it was (hysteresis), so that noise in the thresholds does not make it flap.
"""

from enum import StrEnum
from typing import NamedTuple

HYSTERESIS_SHARE = 0.02
"""A border must be passed by this share of its value before a known customer changes segment."""


class Segment(StrEnum):
    """Percentile bands of expected value; `at_risk` is the lowest quarter."""

    HIGH_VALUE = "high_value"
    MEDIUM_HIGH_VALUE = "medium_high_value"
    MEDIUM_VALUE = "medium_value"
    AT_RISK = "at_risk"


ASCENDING = (Segment.AT_RISK, Segment.MEDIUM_VALUE, Segment.MEDIUM_HIGH_VALUE, Segment.HIGH_VALUE)

STRATEGY = {
    Segment.HIGH_VALUE: "retention_and_vip_treatment",
    Segment.MEDIUM_HIGH_VALUE: "upsell",
    Segment.MEDIUM_VALUE: "re_engagement",
    Segment.AT_RISK: "churn_prevention_and_retention_offers",
}
"""What marketing does with each segment."""


class Thresholds(NamedTuple):
    """Expected values, in reporting currency, at the population's 25th, 50th and 75th percentile; ascending."""

    p25: float
    p50: float
    p75: float


def classify(expected_value: float, thresholds: Thresholds, previous: Segment | None = None) -> Segment:
    """The segment of a value; a value equal to a threshold belongs to the upper side.

    previous: the customer's last segment. It changes only if the value lies beyond the border nearest to that
    segment by HYSTERESIS_SHARE of the border.
    """
    plain = ASCENDING[sum(expected_value >= border for border in thresholds)]
    if previous is None or plain == previous:
        return plain
    was = ASCENDING.index(previous)
    if ASCENDING.index(plain) > was:
        border = thresholds[was]
        return plain if expected_value >= border * (1 + HYSTERESIS_SHARE) else previous
    border = thresholds[was - 1]
    return plain if expected_value < border * (1 - HYSTERESIS_SHARE) else previous
