"""A valid prediction for the sink's tests, of any customer, version and value."""

from schemas.predictions import Prediction, prediction_id

OUTCOMES = ("expected_value", "expected_orders", "p_active", "value_p10", "value_p50", "value_p90")


def prediction(
    name: str = "a", version: int = 1, identifier: str | None = None, *, value: float = 1.5, model: str = "m"
) -> Prediction:
    """A prediction with `value` in all six outcomes."""
    return Prediction(
        prediction_id=prediction_id(name, version, model) if identifier is None else identifier,
        customer_id=name,
        feature_version=version,
        as_of="2024-01-31",
        horizon_days=90,
        currency="USD",
        **dict.fromkeys(OUTCOMES, value),
        historical_value=None,
        expected_next_order_at=None,
        percentile=50.0,
        segment="at_risk",
        previous_segment=None,
        strategy="s",
        segment_thresholds=(1.0, 2.0, 3.0),
        model_version=model,
        inputs={"total_orders": 1.0},
        features={"monetary": None},
    )
