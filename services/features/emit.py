"""Feature messages from customers' rows. Pure."""

import math
from collections.abc import Sequence
from functools import lru_cache

from domain.features import INPUT_NAMES, date_of, features
from domain.ledger import Ledgers, ledger_of
from domain.purchases import settle
from domain.rfm_scores import Quintiles
from schemas.customer_features import (
    NOTHING,
    FeaturesToSend,
    FeatureValues,
    InputValues,
    Ledger,
    encode_features,
    feature_version,
)
from schemas.customer_rows import Row, known_state

_RECENCY = INPUT_NAMES.index("days_since_last_purchase")
_COUNTS = {"orders_placed", "orders_cancelled", "waiting_refund_count"}


def feature_messages(
    customers: Sequence[tuple[bytes, Row]],
    as_of_days: Sequence[int],
    quintiles: Quintiles,
    currency: str,
    minor_per_major: int,
) -> list[bytes]:
    """Encoded customer-features messages, one a customer, as of the given days (since 1970)."""
    states = [known_state(row) for _, row in customers]
    settled = settle(states, as_of_days)
    found = features(states, as_of_days, quintiles, minor_per_major, settled)
    ledgers = ledgers_to_send(ledger_of(settled, len(states)), minor_per_major)
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
                    ledger=ledgers[index],
                )
            )
        )
    return messages


def ledgers_to_send(ledgers: Ledgers, minor_per_major: int) -> list[Ledger]:
    """The ledgers as messages carry them, in major units. Amounts of nothing are NOTHING, and so left out."""
    assert ledgers._fields == Ledger.__struct_fields__
    columns = [
        column.tolist()
        if name in _COUNTS
        else [minor / minor_per_major if minor else NOTHING for minor in column.tolist()]
        for name, column in zip(ledgers._fields, ledgers, strict=True)
    ]
    return [Ledger(*row) for row in zip(*columns, strict=True)]


@lru_cache(maxsize=4096)
def _iso(day: int) -> str:
    return date_of(day).isoformat()
