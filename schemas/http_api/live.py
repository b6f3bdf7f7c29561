"""GET /v1/live and /v1/stream: what is happening now."""

from pydantic import Field

from schemas.http_api.outlook import Answer, SegmentName


class RatePoint(Answer):
    """Predictions that arrived in one second (UTC seconds since 1970)."""

    second: int
    predictions: int


class GroupLag(Answer):
    """How many records of its topic a service has still to process."""

    service: str
    topic: str
    records: int = Field(ge=0)


class LettersByReason(Answer):
    """Messages that could not be used."""

    reason: str
    letters: int = Field(description="All that are kept")
    letters_last_hour: int


class Live(Answer):
    """The state of the pipeline, as far as the API can see it."""

    at: str = Field(description="RFC 3339")
    predictions_total: int = Field(description="That this API has seen since it started")
    predictions_per_second: float = Field(description="Over the last minute")
    rates: list[RatePoint] = Field(description="The last five minutes, one point a second in which any came")
    by_segment: dict[SegmentName, int] = Field(description="Of the last minute")
    freshness_seconds_p50: float | None = Field(
        description="From when an order arrived, or a sweep came to the customer, to its prediction; of the last 1,000"
    )
    freshness_seconds_p99: float | None
    newest_prediction_seconds: float | None = Field(description="Age of the newest prediction seen; null without one")
    lags: list[GroupLag] = Field(description="Empty while Kafka does not answer")
    dead_letters: list[LettersByReason]
    customers: int = Field(description="With a prediction")
    kafka: bool = Field(description="Whether Kafka answers")


class Erasure(Answer):
    """An erasure that Kafka has taken; it is done within seconds."""

    customer_id: str
    event_id: str
    request_id: str
    detail: str
