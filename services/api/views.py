"""From what is stored or published to what is answered: documents, rows of state and messages become answers.

Pure. Must never show what a document does not hold: what is unknown is null.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from domain.customer import CANCELLATION, DAY_MS, NO_ORDER, ORDER, REFUND
from domain.features import date_of
from schemas.customer_rows import Row, known_state
from schemas.http_api.customers import (
    Customer,
    CustomerOrders,
    CustomerPrediction,
    CustomerRow,
    OrderLine,
    OrdersSummary,
)
from schemas.predictions import PredictionHead

ROW_FIELDS = tuple(name for name in CustomerRow.model_fields if name not in ("customer_id", "as_of", "updated_at"))
"""Fields of a CustomerRow that are fields of a prediction."""
ROW_PROJECTION = {"as_of": 1, "updated_at": 1, **{f"prediction.{name}": 1 for name in ROW_FIELDS}}


def rfc3339(at: datetime) -> str:
    """An instant as text, UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def customer_of(document: Mapping[str, Any]) -> Customer:
    """A document of schemas.mongo.CUSTOMERS."""
    return Customer(
        customer_id=document["_id"],
        updated_at=rfc3339(document["updated_at"]),
        prediction=prediction_of(document),
        inputs=document["inputs"],
        features=document["features"],
        orders=orders_summary(document),
    )


def prediction_of(document: Mapping[str, Any]) -> CustomerPrediction:
    """The prediction in a document of CUSTOMERS or PREDICTION_HISTORY."""
    stored = dict(document["prediction"])
    historical = stored["historical_value"]
    return CustomerPrediction(
        as_of=document["as_of"],
        feature_version=document["feature_version"],
        churn_risk=1.0 - stored["p_active"],
        total_value=None if historical is None else historical + stored["expected_value"],
        **stored,
    )


def row_of(document: Mapping[str, Any]) -> CustomerRow:
    """A document of CUSTOMERS, of which ROW_PROJECTION is there."""
    stored = document["prediction"]
    return CustomerRow(
        customer_id=document["_id"],
        as_of=document["as_of"],
        updated_at=rfc3339(document["updated_at"]),
        **{name: stored[name] for name in ROW_FIELDS},
    )


def row_of_message(message: PredictionHead, received_at: datetime) -> CustomerRow:
    """A message of the predictions topic, and when it was received."""
    return CustomerRow(
        customer_id=message.customer_id,
        as_of=message.as_of,
        updated_at=rfc3339(received_at),
        **{name: getattr(message, name) for name in ROW_FIELDS},
    )


def orders_summary(document: Mapping[str, Any]) -> OrdersSummary:
    """What a document of CUSTOMERS says of the orders: by its ledger, as of the same day as the prediction."""
    features, inputs, ledger = document["features"], document["inputs"], document.get("ledger")
    orders = int(inputs.get("total_orders") or 0)
    gross, net = float(features.get("total_spending") or 0.0), float(features.get("monetary") or 0.0)
    cancelled: int | None = None
    refunded = gross - net
    if ledger is not None:
        cancelled = int(ledger["orders_cancelled"])
        orders = int(ledger["orders_placed"]) - cancelled
        gross, net = float(ledger["gross"]), float(ledger["net"])
        refunded = float(ledger["refunded"]) + float(ledger["loose_refunds"])
    as_of = date.fromisoformat(document["as_of"])
    return OrdersSummary(
        orders=orders,
        orders_cancelled=cancelled,
        gross=gross,
        refunded=refunded,
        net=net,
        average_order_value=inputs.get("average_order_value"),
        first_order_on=_days_before(as_of, inputs.get("customer_lifetime_days")),
        last_order_on=_days_before(as_of, inputs.get("days_since_last_purchase")),
    )


def _days_before(as_of: date, days: float | None) -> str | None:
    return None if days is None else (as_of - timedelta(days=round(days))).isoformat()


def orders_of(customer_id: str, row: Row, currency: str, minor_per_major: int) -> CustomerOrders:
    """A customer's orders from the row of the state, with those of merged customers; the newest first.

    All that is known, not as of a day. Money in minor units becomes major units of the currency.
    """
    state = known_state(row)
    orders = {key: (at_ms, minor) for key, at_ms, minor in ORDER.iter_unpack(state.orders)}
    cancelled = {key for key, _ in CANCELLATION.iter_unpack(state.cancelled)}
    back: dict[bytes, int] = {}
    loose = waiting = 0
    for _, order, _, minor in REFUND.iter_unpack(state.refunds):
        if order == NO_ORDER:
            loose += minor
        elif order in orders:
            back[order] = back.get(order, 0) + minor
        else:
            waiting += minor
    lines = [
        (
            at_ms,
            OrderLine(
                order_hash=key.hex(),
                placed_on=_day(at_ms // DAY_MS),
                orders=1,
                gross=minor / minor_per_major,
                refunded=min(back.get(key, 0), minor) / minor_per_major,
                cancelled=key in cancelled,
            ),
        )
        for key, (at_ms, minor) in orders.items()
    ]
    lines += [
        (
            day * DAY_MS,
            OrderLine(
                order_hash=None,
                placed_on=_day(day),
                orders=total.orders,
                gross=total.gross_minor / minor_per_major,
                refunded=(total.gross_minor - total.net_minor) / minor_per_major,
                cancelled=False,
            ),
        )
        for day, total in state.folded.items()
        if total.orders
    ]
    lines.sort(key=lambda line: (line[0], line[1].order_hash or ""), reverse=True)
    return CustomerOrders(
        customer_id=customer_id,
        currency=currency,
        orders=[line for _, line in lines],
        loose_refunds=loose / minor_per_major,
        waiting_refunds=waiting / minor_per_major,
        merged_customers=sorted(row.links.parts) if row.links is not None else [],
    )


def _day(day: int) -> str:
    return date_of(day).isoformat()
