"""GET /v1/customers…: one customer, their past, and lists of customers."""

from typing import Literal

from pydantic import Field

from schemas.http_api.outlook import Answer, Day, Outlook, SegmentName, Values

Sort = Literal[
    "-expected_value",
    "expected_value",
    "-p_active",
    "p_active",
    "-historical_value",
    "historical_value",
    "-updated_at",
    "updated_at",
    "customer_id",
]
"""A minus sign is descending. Ties are broken by customer_id, so that a page never repeats or skips anybody."""
PAGE_DEFAULT, PAGE_MAX = 50, 500


class CustomerPrediction(Outlook):
    """A customer's prediction, as it was published."""

    prediction_id: str
    as_of: Day
    feature_version: int
    previous_segment: SegmentName | None


class OrdersSummary(Answer):
    """The customer's orders together; money in major units of the prediction's currency."""

    orders: int = Field(description="Placed and not cancelled")
    orders_cancelled: int | None = Field(description="null where the features were made before there was a ledger")
    gross: float = Field(description="Value of the orders that count")
    refunded: float = Field(description="Refunds of them, and refunds that name no order")
    net: float
    average_order_value: float | None
    first_order_on: Day | None
    last_order_on: Day | None


class Customer(Answer):
    """Everything current about one customer."""

    customer_id: str
    updated_at: str = Field(description="When MongoDB took this prediction, RFC 3339")
    prediction: CustomerPrediction
    inputs: Values
    features: Values
    orders: OrdersSummary


class CustomerHistory(Answer):
    """A customer's predictions, the newest first."""

    customer_id: str
    predictions: list[CustomerPrediction]
    next_cursor: str | None = Field(description="For the page that follows; null at the end")


class OrderLine(Answer):
    """One order."""

    order_hash: str | None = Field(
        description="16 hexadecimal digits that stand for the order: BLAKE2b of its id, 8 bytes. The ids themselves "
        "are not kept. Null where old orders were folded into one line a day",
        examples=["9f1c2a7b3d4e5f60"],
    )
    placed_on: Day
    orders: int = Field(description="1, or how many were folded", ge=1)
    gross: float
    refunded: float = Field(description="Up to the order's amount")
    cancelled: bool


class CustomerOrders(Answer):
    """A customer's orders, the newest first."""

    customer_id: str
    currency: str
    orders: list[OrderLine]
    loose_refunds: float = Field(description="Refunds that name no order")
    waiting_refunds: float = Field(description="Refunds whose order is not known: they count once it comes")
    merged_customers: list[str] = Field(description="Customers who were merged into this one: their orders are here")


class CustomerRow(Answer):
    """A customer in a list or in the stream."""

    customer_id: str
    as_of: Day
    updated_at: str = Field(
        description="RFC 3339: when MongoDB took the prediction; in the stream, when the API received it from Kafka"
    )
    currency: str
    horizon_days: int
    expected_value: float
    value_p10: float
    value_p90: float
    expected_orders: float
    p_active: float
    historical_value: float | None
    expected_next_order_at: Day | None
    percentile: float
    segment: SegmentName
    previous_segment: SegmentName | None
    strategy: str
    model_version: str


class CustomerPage(Answer):
    """A page of a list."""

    customers: list[CustomerRow]
    next_cursor: str | None = Field(description="For the page that follows; null at the end")
    total: int = Field(description="Customers that match, at the time of the request")
