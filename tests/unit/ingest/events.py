"""A good event to spoil, and the judge with fixed rules."""

import json
from typing import Any

from hypothesis import strategies as st

from schemas.orders import OrderRecord
from services.ingest.judge import Rules, judge
from services.ingest.rates import Rates
from services.ingest.rejection import Rejection

NOW_MS = 1_770_000_000_000  # 2026-02-02T02:40:00Z
RULES = Rules(currency="USD", rates=Rates())
LEFT_OUT = object()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def event(**changes: Any) -> dict[str, Any]:
    """A good order.placed with these fields instead; LEFT_OUT takes one away."""
    good = {
        "event_id": "e1",
        "event_type": "order.placed",
        "occurred_at": "2026-01-31T12:00:00Z",
        "customer_id": "c1",
        "source": "shop",
        "order_id": "o1",
        "amount": "12.34",
        "currency": "USD",
    }
    return {name: value for name, value in (good | changes).items() if value is not LEFT_OUT}


def encoded(**changes: Any) -> bytes:
    """The bytes of event()."""
    return json.dumps(event(**changes)).encode()


def verdict(value: bytes | None, headers: Any = (), rules: Rules = RULES) -> OrderRecord | Rejection:
    """What the judge says at NOW_MS."""
    return judge(value, headers, NOW_MS, rules)
