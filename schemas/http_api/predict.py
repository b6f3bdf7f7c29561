"""POST /v1/predict and /v1/predict/batch: a customer described by the seven inputs alone (domain.features.INPUTS).

Ranges and cross-field checks stand here and nowhere else.
"""

from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    ValidationInfo,
    field_validator,
)

from schemas.http_api.outlook import Answer, Day, Explanation, Outlook, Values

ROWS_MAX = 10_000
EXAMPLE: dict[str, JsonValue] = {
    "customer_age": 41,
    "purchase_frequency": 0.8,
    "average_order_value": 59.9,
    "total_orders": 9,
    "customer_lifetime_days": 340,
    "days_since_last_purchase": 21,
    "frequency_score": 5,
}


def _whole(value: object) -> object:
    """A whole number may be written with a decimal point; text and truth values are no numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(_whole)]


class WhatIf(BaseModel):
    """A customer as the form describes one."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [EXAMPLE]})

    customer_age: Number | None = Field(default=None, ge=0, le=130, description="Years; null or absent is unknown")
    purchase_frequency: Number = Field(ge=0, le=3_100, description="Orders per month")
    average_order_value: Number = Field(ge=0, le=1e9, description="Gross spend divided by orders, major units")
    total_orders: Whole = Field(ge=1, le=1_000_000, description="Orders placed and not cancelled")
    customer_lifetime_days: Number = Field(ge=0, le=36_525, description="Days from the first order to today")
    days_since_last_purchase: Number = Field(ge=0, le=36_525, description="Days from the last order to today")
    frequency_score: Whole = Field(
        ge=1, le=5, description="Quintile of repeat orders among all customers; 5 is the most"
    )

    @field_validator("days_since_last_purchase")
    @classmethod
    def _since_the_first(cls, days: float, given: ValidationInfo) -> float:
        """Judged with the fields before it, so that the error names this field. Those that are wrong are not there."""
        lifetime, orders = given.data.get("customer_lifetime_days"), given.data.get("total_orders")
        if lifetime is not None and days > lifetime:
            raise ValueError("must not be more than customer_lifetime_days")
        if lifetime is not None and orders == 1 and days != lifetime:
            raise ValueError(
                "must equal customer_lifetime_days, as total_orders is 1: that order is the first and the last"
            )
        return days


class WhatIfPrediction(Outlook):
    """The answer to one form."""

    prediction_id: str = Field(description="Names this answer; `what_if_predictions` in MongoDB if it was stored")
    as_of: Day = Field(description="The day that the inputs are taken to describe: today, UTC")
    inputs: Values = Field(description="The seven inputs as they were understood")
    features: Values = Field(description="The 18 engineered features")
    profile_value: float | None = Field(
        description="The classic profile model's monetary value: (almost) orders × average value, of the past alone; "
        "null where no profile model is loaded"
    )
    profile_model_version: str | None
    warnings: list[str] = Field(description="What does not fit together, although it was accepted")
    stored: bool = Field(
        description="Whether MongoDB had acknowledged it by the time of the answer. With store=true and many requests "
        "at a time, or while MongoDB is slow, it is false and the answer is kept a moment later"
    )
    explanation: Explanation | None = Field(default=None, description="Only with explain=true")


class BatchRequest(BaseModel):
    """Up to ROWS_MAX forms. Each is judged for itself, so rows may be anything here."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"rows": [EXAMPLE]}]})

    rows: list[dict[str, JsonValue]] = Field(min_length=1, max_length=ROWS_MAX)


class RowProblem(Answer):
    """What is wrong with one field of one row."""

    field: str = Field(description="Empty where it concerns several")
    detail: str


class BatchRow(Answer):
    """The answer to one row: a prediction, or what is wrong with the row."""

    index: int = Field(description="Position in the request, from 0", ge=0)
    prediction: WhatIfPrediction | None
    errors: list[RowProblem]


class BatchAnswer(Answer):
    """One answer a row, in the order of the request."""

    request_id: str
    accepted: int
    rejected: int
    rows: list[BatchRow]
