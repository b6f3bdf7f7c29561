"""Feature messages from customers' rows. Pure."""

from collections.abc import Sequence

import numpy as np

from domain.customer import CustomerState
from domain.features import FEATURE_NAMES, INPUT_NAMES, date_of, features
from domain.rfm_scores import Quintiles
from schemas.customer_features import CustomerFeatures, encode_features, feature_version
from services.features.rows import Row

_ORDERS = INPUT_NAMES.index("total_orders")
_RECENCY = INPUT_NAMES.index("days_since_last_purchase")


def has_ordered(state: CustomerState) -> bool:
    """Whether there is anything to predict from. A customer whose orders are all cancelled has still ordered."""
    return bool(state.orders or state.folded)


def feature_messages(
    customers: Sequence[tuple[bytes, Row]],
    as_of_days: Sequence[int],
    quintiles: Quintiles,
    currency: str,
    minor_per_major: int,
) -> list[bytes]:
    """Encoded customer-features messages, one a customer, as of the given days (since 1970)."""
    found = features([row.state for _, row in customers], as_of_days, quintiles, minor_per_major)
    quintiles_id = quintiles.fingerprint
    days = np.asarray(as_of_days)
    recency = found.inputs[:, _RECENCY]
    messages = []
    for index, (inputs, values) in enumerate(zip(found.inputs.tolist(), found.features.tolist(), strict=True)):
        key, row = customers[index]
        last = None if np.isnan(recency[index]) else date_of(int(days[index] - recency[index])).isoformat()
        messages.append(
            encode_features(
                CustomerFeatures(
                    customer_id=key.decode(),
                    feature_version=feature_version(row.events_applied, as_of_days[index]),
                    as_of=date_of(as_of_days[index]).isoformat(),
                    quintiles=quintiles_id,
                    currency=currency,
                    last_order_on=last,
                    inputs=dict(zip(INPUT_NAMES, inputs, strict=True)),
                    features=dict(zip(FEATURE_NAMES, values, strict=True)),
                )
            )
        )
    return messages
