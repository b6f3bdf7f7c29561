"""Answers of the API as the contract's own models, for charts and formats. Pages are tested against the real API."""

from typing import Any

from schemas.http_api.customers import CustomerOrders, CustomerPrediction, OrderLine
from schemas.http_api.outlook import Contribution, Explanation, Outlook, UnionContribution
from schemas.http_api.segments import Bin, Flow, Migration, Segments, SegmentSummary


def outlook_fields(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "horizon_days": 180,
        "currency": "USD",
        "expected_value": 41.7,
        "value_p10": 0.0,
        "value_p50": 12.0,
        "value_p90": 118.2,
        "expected_orders": 0.9,
        "p_active": 0.46,
        "churn_risk": 0.54,
        "historical_value": 59.9,
        "total_value": 101.6,
        "expected_next_order_at": "2026-07-01",
        "percentile": 71.2,
        "segment": "medium_high_value",
        "strategy": "upsell",
        "segment_thresholds": (10.0, 20.0, 60.0),
        "model_version": "3f6c0d2e9a41b870",
    }
    return fields | changes


def outlook(**changes: Any) -> Outlook:
    return Outlook(**outlook_fields(**changes))


def prediction(as_of: str, **changes: Any) -> CustomerPrediction:
    return CustomerPrediction(
        **outlook_fields(**changes), prediction_id=f"p-{as_of}", as_of=as_of, feature_version=1, previous_segment=None
    )


def explanation(amounts: dict[str, float], *, base: float = 20.0, unit: str = "USD") -> Explanation:
    return Explanation(
        customer_id="c-1",
        as_of="2026-05-04",
        model_version="3f6c0d2e9a41b870",
        horizon_days=180,
        output="expected_value",
        unit=unit,
        prediction=base + sum(amounts.values()),
        base=base,
        unions=[UnionContribution(union="timing", label="When and how often they buy", amount=sum(amounts.values()))],
        contributions=[
            Contribution(fact=label, label=label, union="timing", amount=amount, features=[])
            for label, amount in amounts.items()
        ],
        sum_error=0.0,
    )


def segments(**changes: Any) -> Segments:
    parts = []
    for name, share, value, low, high in (
        ("high_value", 0.25, 600.0, 60.0, None),
        ("medium_high_value", 0.25, 250.0, 20.0, 60.0),
        ("medium_value", 0.25, 100.0, 10.0, 20.0),
        ("at_risk", 0.25, 50.0, None, 10.0),
    ):
        parts.append(
            SegmentSummary(
                segment=name,
                strategy="upsell",
                customers=10,
                share=share,
                expected_value=value,
                value_share=value / 1000,
                mean_expected_value=value / 10,
                mean_p_active=0.5,
                historical_value=value * 2,
                from_value=low,
                to_value=high,
                distribution=[Bin(from_value=low or 0.0, to_value=high or 120.0, customers=10)],
            )
        )
    fields: dict[str, Any] = {
        "as_of": "2026-05-04",
        "currency": "USD",
        "horizon_days": 180,
        "customers": 40,
        "expected_value": 1000.0,
        "thresholds": (10.0, 20.0, 60.0),
        "segments": parts,
        "migration": None,
        "first_date": "2026-01-01",
    }
    return Segments(**(fields | changes))


def migration() -> Migration:
    flows = [
        Flow(from_segment="high_value", to_segment="high_value", customers=8),
        Flow(from_segment="high_value", to_segment="at_risk", customers=2),
        Flow(from_segment=None, to_segment="at_risk", customers=5),
    ]
    return Migration(from_date="2026-01-01", to_date="2026-05-04", flows=flows)


def customer_orders() -> CustomerOrders:
    def line(day: str, gross: float, refunded: float = 0.0, cancelled: bool = False) -> OrderLine:
        return OrderLine(
            order_hash="9f1c2a7b3d4e5f60", placed_on=day, orders=1, gross=gross, refunded=refunded, cancelled=cancelled
        )

    return CustomerOrders(
        customer_id="c-1",
        currency="USD",
        orders=[line("2026-04-01", 30.0), line("2026-02-01", 50.0, 20.0), line("2026-01-01", 9.0, cancelled=True)],
        loose_refunds=0.0,
        waiting_refunds=0.0,
        merged_customers=[],
    )
