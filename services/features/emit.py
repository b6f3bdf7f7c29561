"""Feature messages from customers' rows. Pure."""

import math
from collections.abc import Sequence
from functools import lru_cache

from domain.features import INPUT_NAMES, date_of, features
from domain.rfm_scores import Quintiles
from schemas.customer_features import FeaturesToSend, FeatureValues, InputValues, encode_features, feature_version
from services.features.rows import Row

_RECENCY = INPUT_NAMES.index("days_since_last_purchase")


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
    recency = found.inputs[:, _RECENCY].tolist()
    messages = []
    for index, (inputs, values) in enumerate(zip(found.inputs.tolist(), found.features.tolist(), strict=True)):
        key, row = customers[index]
        as_of_day = as_of_days[index]
        last = None if math.isnan(recency[index]) else _iso(as_of_day - int(recency[index]))
        messages.append(
            encode_features(
                FeaturesToSend(
                    customer_id=key.decode(),
                    feature_version=feature_version(row.events_applied, as_of_day),
                    as_of=_iso(as_of_day),
                    quintiles=quintiles_id,
                    currency=currency,
                    last_order_on=last,
                    inputs=InputValues(*inputs),
                    features=FeatureValues(*values),
                )
            )
        )
    return messages


@lru_cache(maxsize=4096)
def _iso(day: int) -> str:
    return date_of(day).isoformat()
