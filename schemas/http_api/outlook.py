"""Types that several answers share. Money is in major units of the answer's `currency`; days are UTC dates."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SegmentName = Literal["high_value", "medium_high_value", "medium_value", "at_risk"]
SEGMENT_NAMES: tuple[SegmentName, ...] = ("high_value", "medium_high_value", "medium_value", "at_risk")

CustomerId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
Values = dict[str, float | None]
"""Named numbers; null is unknown."""


class Answer(BaseModel):
    """Base of all answers: unknown fields are an error here, so that the document and the answers cannot differ."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Outlook(Answer):
    """What is expected of a customer within the horizon."""

    horizon_days: int = Field(description="Days from as_of that the prediction covers", ge=1)
    currency: str = Field(description="Of all money in the answer, ISO 4217", examples=["USD"])
    expected_value: float = Field(description="Expected net spend within the horizon", ge=0)
    value_p10: float = Field(description="10th percentile of it", ge=0)
    value_p50: float = Field(description="Median of it", ge=0)
    value_p90: float = Field(description="90th percentile of it", ge=0)
    expected_orders: float = Field(description="Expected number of orders within the horizon", ge=0)
    p_active: float = Field(description="Probability of at least one order within the horizon", ge=0, le=1)
    churn_risk: float = Field(description="1 − p_active", ge=0, le=1)
    historical_value: float | None = Field(description="Net spend so far; null without an order")
    total_value: float | None = Field(description="historical_value + expected_value; null without an order")
    expected_next_order_at: Day | None = Field(
        description="When the next order is expected, if within the horizon; null below a chance of one in five"
    )
    percentile: float = Field(description="Rank of expected_value among all customers", ge=0, le=100)
    segment: SegmentName
    strategy: str = Field(description="What to do about a customer of this segment", examples=["upsell"])
    segment_thresholds: tuple[float, float, float] = Field(
        description="expected_value at the population's 25th, 50th and 75th percentile behind `segment`"
    )
    model_version: str = Field(description="Content address of the model bundle", examples=["3f6c0d2e9a41b870"])


class FactShown(Answer):
    """A feature that tells a fact."""

    feature: str
    label: str
    unit: str
    value: float | None = Field(description="The customer's; null is unknown")
    typical: float | None = Field(description="Median of typical customers")


class Contribution(Answer):
    """What one fact about the customer adds to the prediction; negative where it takes away."""

    fact: str
    label: str
    union: str = Field(description="The group of facts that it belongs to")
    amount: float = Field(description="In the explanation's unit")
    features: list[FactShown]


class UnionContribution(Answer):
    """What a group of facts adds together."""

    union: str
    label: str
    amount: float


class Explanation(Answer):
    """What moved a prediction: base + Σ amounts = prediction, exactly but for rounding."""

    customer_id: str | None
    as_of: Day | None
    model_version: str
    horizon_days: int
    output: str = Field(description="Which of the model's outputs")
    unit: str = Field(description="ISO 4217 code, orders, probability or days")
    prediction: float
    base: float = Field(description="What the model says of typical customers, on average")
    unions: list[UnionContribution]
    contributions: list[Contribution] = Field(description="The largest first, by size")
    sum_error: float = Field(description="base + Σ contributions − prediction: rounding")
