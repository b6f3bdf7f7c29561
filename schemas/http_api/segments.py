"""GET /v1/segments: how the customer population divides, and who moved between two dates."""

from pydantic import Field

from schemas.http_api.outlook import Answer, Day, SegmentName


class Bin(Answer):
    """Customers whose expected_value is in [from_value, to_value)."""

    from_value: float
    to_value: float
    customers: int


class SegmentSummary(Answer):
    """One segment; money in major units."""

    segment: SegmentName
    strategy: str
    customers: int
    share: float = Field(description="Of all customers, 0 to 1")
    expected_value: float = Field(description="Sum over its customers")
    value_share: float = Field(description="Of the sum over all customers, 0 to 1")
    mean_expected_value: float | None
    mean_p_active: float | None
    historical_value: float
    from_value: float | None = Field(description="Lower threshold of expected_value; null for the lowest segment")
    to_value: float | None = Field(description="Upper threshold; null for the highest segment")
    distribution: list[Bin]


class Flow(Answer):
    """Customers who were in one segment on the first date and in another on the second."""

    from_segment: SegmentName | None = Field(description="null: not yet a customer")
    to_segment: SegmentName
    customers: int


class Migration(Answer):
    """Movement between two dates, by the last prediction as of each date or before."""

    from_date: Day
    to_date: Day
    flows: list[Flow]


class Segments(Answer):
    """The whole population."""

    as_of: Day | None = Field(description="Day of the newest prediction; null without customers")
    currency: str
    horizon_days: int | None
    customers: int
    expected_value: float
    thresholds: tuple[float, float, float] | None = Field(description="25th, 50th, 75th percentile of expected_value")
    segments: list[SegmentSummary] = Field(description="From high_value to at_risk")
    migration: Migration | None = Field(description="Only with `from` and `to`")
    first_date: Day | None = Field(description="Earliest day that a migration can begin with: as far as history goes")
