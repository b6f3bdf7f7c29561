"""One example of each answer, for the OpenAPI document. Made by the very models, so that none can be out of date.

Invented figures of invented customers: must never hold anybody's.
"""

from typing import Any

from pydantic import BaseModel

from schemas.http_api.customers import (
    Customer,
    CustomerHistory,
    CustomerOrders,
    CustomerPage,
    CustomerPrediction,
    CustomerRow,
    OrderLine,
    OrdersSummary,
)
from schemas.http_api.live import Erasure, GroupLag, LettersByReason, Live, RatePoint
from schemas.http_api.models import (
    Comparison,
    DecileRow,
    FeatureDrift,
    GainPoint,
    ModelDetail,
    ModelRow,
    Models,
    Realised,
)
from schemas.http_api.outlook import Contribution, Explanation, FactShown, UnionContribution
from schemas.http_api.predict import BatchAnswer, BatchRow, RowProblem, WhatIfPrediction
from schemas.http_api.segments import Bin, Flow, Migration, Segments, SegmentSummary

_MODEL, _OTHER_MODEL = "3f6c0d2e9a41b870", "9b1d77aa02c4e651"
_CUSTOMER, _AS_OF, _AT = "c-42", "2026-05-04", "2026-05-04T12:30:01.250Z"


def example(answer: BaseModel, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For FastAPI's `responses=`: the content of an answer with its example."""
    return {status: {"content": {"application/json": {"example": answer.model_dump(mode="json")}}}}


_PREDICTION = CustomerPrediction(
    prediction_id="5d0a4e4f0b6f4c0d9e0a8a3a4f1f2b3c",
    as_of=_AS_OF,
    feature_version=920577,
    previous_segment="medium_value",
    horizon_days=180,
    currency="USD",
    expected_value=96.4,
    value_p10=0.0,
    value_p50=48.2,
    value_p90=241.9,
    expected_orders=1.6,
    p_active=0.71,
    churn_risk=0.29,
    historical_value=539.1,
    total_value=635.5,
    expected_next_order_at="2026-06-11",
    percentile=71.2,
    segment="medium_high_value",
    strategy="upsell",
    segment_thresholds=(12.5, 48.0, 110.0),
    model_version=_MODEL,
)
CUSTOMER = Customer(
    customer_id=_CUSTOMER,
    updated_at=_AT,
    prediction=_PREDICTION,
    inputs={"total_orders": 9.0, "average_order_value": 59.9, "customer_age": None},
    features={"recency_days": 21.0, "frequency": 8.0, "monetary": 539.1},
    orders=OrdersSummary(
        orders=9,
        orders_cancelled=1,
        gross=539.1,
        refunded=0.0,
        net=539.1,
        average_order_value=59.9,
        first_order_on="2025-05-29",
        last_order_on="2026-04-13",
    ),
)
HISTORY = CustomerHistory(customer_id=_CUSTOMER, predictions=[_PREDICTION], next_cursor=None)
ORDERS = CustomerOrders(
    customer_id=_CUSTOMER,
    currency="USD",
    orders=[
        OrderLine(
            order_hash="9f1c2a7b3d4e5f60", placed_on="2026-04-13", orders=1, gross=59.9, refunded=0.0, cancelled=False
        )
    ],
    loose_refunds=0.0,
    waiting_refunds=0.0,
    merged_customers=[],
)
ROW = CustomerRow(
    customer_id=_CUSTOMER,
    as_of=_AS_OF,
    updated_at=_AT,
    currency="USD",
    horizon_days=180,
    expected_value=96.4,
    value_p10=0.0,
    value_p90=241.9,
    expected_orders=1.6,
    p_active=0.71,
    historical_value=539.1,
    expected_next_order_at="2026-06-11",
    percentile=71.2,
    segment="medium_high_value",
    previous_segment="medium_value",
    strategy="upsell",
    model_version=_MODEL,
)
PAGE = CustomerPage(customers=[ROW], next_cursor="WyJxdWVzdGlvbiIsOTYuNCwiYy00MiJd", total=23_570)
EXPLANATION = Explanation(
    customer_id=_CUSTOMER,
    as_of=_AS_OF,
    model_version=_MODEL,
    horizon_days=180,
    output="expected_value",
    unit="USD",
    prediction=96.4,
    base=52.1,
    unions=[UnionContribution(union="timing", label="When and how often they buy", amount=44.3)],
    contributions=[
        Contribution(
            fact="orders",
            label="Number of orders",
            union="timing",
            amount=44.3,
            features=[
                FactShown(feature="frequency", label="orders after the first", unit="orders", value=8.0, typical=1.0)
            ],
        )
    ],
    sum_error=0.0,
)
SEGMENTS = Segments(
    as_of=_AS_OF,
    currency="USD",
    horizon_days=180,
    customers=23_570,
    expected_value=1_060_650.0,
    thresholds=(12.5, 48.0, 110.0),
    segments=[
        SegmentSummary(
            segment="high_value",
            strategy="retention_and_vip_treatment",
            customers=5_892,
            share=0.25,
            expected_value=742_455.0,
            value_share=0.7,
            mean_expected_value=126.0,
            mean_p_active=0.81,
            historical_value=1_900_000.0,
            from_value=110.0,
            to_value=None,
            distribution=[Bin(from_value=100.0, to_value=200.0, customers=4_100)],
        )
    ],
    migration=Migration(
        from_date="2026-04-01",
        to_date="2026-05-01",
        flows=[Flow(from_segment="medium_high_value", to_segment="high_value", customers=312)],
    ),
    first_date="2026-01-01",
)
_MODEL_ROW = ModelRow(
    version=_MODEL,
    status="champion",
    trained_at="2026-05-01T03:00:00.000Z",
    registered_at="2026-05-01T03:04:12.000Z",
    registered_by="ana",
    promoted_at="2026-05-02T08:00:00.000Z",
    cutoff="2026-05-01",
    horizon_days=180,
    currency="USD",
    metrics={"from": "2025-11-02", "days": 180, "metrics": {"model": {"mae": 31.9, "spearman": 0.44}}},
)
MODELS = Models(champion=_MODEL, challenger=_OTHER_MODEL, models=[_MODEL_ROW])
MODEL = ModelDetail(
    model=_MODEL_ROW,
    has_card=True,
    deciles=[DecileRow(decile=1, customers=2_350, predicted=210.4, realised=198.7)],
    gains=[GainPoint(customers_share=0.1, value_share=0.46)],
    drift=[FeatureDrift(name="recency_days", psi=0.04)],
    drift_customers=20_000,
    realised=[
        Realised(
            model_version=_MODEL,
            customers=11_200,
            predicted=510_000.0,
            realised=498_300.0,
            mean_absolute_error=30.8,
            share_above_p90=0.098,
            share_below_p10=0.021,
        )
    ],
    comparison=Comparison(
        champion=_MODEL,
        challenger=_OTHER_MODEL,
        customers=20_000,
        champion_total=900_000.0,
        challenger_total=915_000.0,
        rank_correlation=0.97,
        mean_difference=4.2,
        segment_differs=0.08,
    ),
)
LIVE = Live(
    at=_AT,
    predictions_total=48_210,
    predictions_per_second=21.4,
    rates=[RatePoint(second=1_777_897_801, predictions=22)],
    by_segment={"high_value": 321, "medium_high_value": 320, "medium_value": 322, "at_risk": 321},
    freshness_seconds_p50=0.21,
    freshness_seconds_p99=0.58,
    newest_prediction_seconds=0.05,
    lags=[GroupLag(service="scorer", topic="clv.customer-features.v1", records=12)],
    dead_letters=[LettersByReason(reason="invalid_amount", letters=31, letters_last_hour=2)],
    customers=23_570,
    kafka=True,
)
ERASURE = Erasure(
    customer_id=_CUSTOMER,
    event_id="erase-6a2f0c1e-8f7b-4d53-9a56-0d1a3c9b7e21",
    request_id="5f0c1d6e9b7a4f0e8f0f3f1b0a4c2d11",
    detail="Kafka has taken customer.erased. The services forget the customer within seconds",
)
WHAT_IF = WhatIfPrediction(
    **_PREDICTION.model_dump(exclude={"feature_version", "previous_segment"}),
    inputs={"total_orders": 9.0, "average_order_value": 59.9, "customer_age": 41.0},
    features={"recency_days": 21.0, "frequency": 8.0, "monetary": 539.1},
    profile_value=531.0,
    profile_model_version=_OTHER_MODEL,
    warnings=[],
    stored=True,
)
BATCH = BatchAnswer(
    request_id="5f0c1d6e9b7a4f0e8f0f3f1b0a4c2d11",
    accepted=1,
    rejected=1,
    rows=[
        BatchRow(index=0, prediction=WHAT_IF, errors=[]),
        BatchRow(
            index=1,
            prediction=None,
            errors=[RowProblem(field="total_orders", detail="Input should be greater than or equal to 1")],
        ),
    ],
)
CARD = "<!doctype html><title>Model card</title>"
