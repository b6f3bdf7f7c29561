"""GET /v1/models…: which models there are, how good they are, and whether the world has moved away from them."""

from typing import Any

from pydantic import Field

from schemas.http_api.outlook import Answer, Day


class ModelRow(Answer):
    """A model of the registry; where none is kept, the bundle that the API itself uses."""

    version: str
    status: str = Field(description="champion, challenger, archived or registered", examples=["champion"])
    trained_at: str | None
    registered_at: str | None
    registered_by: str | None
    promoted_at: str | None
    cutoff: Day | None = Field(description="Trained on what happened before it")
    horizon_days: int
    currency: str
    metrics: dict[str, Any] = Field(description="Quality on a later period that training never saw, beside baselines")


class Models(Answer):
    """All models, the last registered first."""

    champion: str | None
    challenger: str | None
    models: list[ModelRow]


class DecileRow(Answer):
    """A tenth of the held-out customers, by prediction, the highest first; means in major units."""

    decile: int = Field(ge=1, le=10)
    customers: int
    predicted: float
    realised: float


class GainPoint(Answer):
    """The best-ranked share of held-out customers, and the share of all value that they turned out to be."""

    customers_share: float
    value_share: float


class FeatureDrift(Answer):
    """How far one column's distribution is from that of training (population stability index)."""

    name: str
    psi: float = Field(description="Below 0.1: hardly any; 0.1 to 0.25: some; above: much", ge=0)


class Realised(Answer):
    """Predictions of one model held against what came, once their time was over."""

    model_version: str
    customers: int
    predicted: float
    realised: float
    mean_absolute_error: float
    share_above_p90: float
    share_below_p10: float


class Comparison(Answer):
    """Champion and challenger on the same customers, from the same features."""

    champion: str
    challenger: str
    customers: int
    champion_total: float
    challenger_total: float
    rank_correlation: float | None
    mean_difference: float
    segment_differs: float = Field(description="Share of the customers whose quarter differs")


class ModelDetail(Answer):
    """One model in full."""

    model: ModelRow
    has_card: bool = Field(description="Whether GET /v1/models/{version}/card has a page")
    deciles: list[DecileRow] = Field(description="Calibration; empty where the bundle keeps none")
    gains: list[GainPoint] = Field(description="Lift curve; empty where the bundle keeps none")
    drift: list[FeatureDrift] = Field(description="The highest first; empty while there are too few customers")
    drift_customers: int = Field(description="Customers that drift was measured on")
    realised: list[Realised]
    comparison: Comparison | None = Field(description="While a challenger is on trial")
