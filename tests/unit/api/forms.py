"""Forms for tests: as Hypothesis draws them, and a model to answer them."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from services.api.forms.bundle_follower import read_serving
from services.api.forms.what_if import Serving
from tests.bundles import graph, write_bundle

FORM: dict[str, Any] = {
    "customer_age": 41,
    "purchase_frequency": 0.8,
    "average_order_value": 59.9,
    "total_orders": 9,
    "customer_lifetime_days": 340,
    "days_since_last_purchase": 21,
    "frequency_score": 5,
}


def serving_in(folder: Path, scale: float = 1.0, **metadata: Any) -> Serving:
    """What a bundle in a folder answers forms with."""
    return read_serving(folder / write_bundle(folder, graph(scale), **metadata), "USD", None)


@st.composite
def valid_forms(draw: st.DrawFn) -> dict[str, Any]:
    """Forms that are taken, up to the ends of every range."""
    lifetime = draw(st.floats(0, 36_525) | st.integers(0, 36_525))
    orders = draw(st.integers(1, 3) | st.integers(1, 1_000_000))
    return {
        "customer_age": draw(st.none() | st.floats(0, 130)),
        "purchase_frequency": draw(st.floats(0, 3_100)),
        "average_order_value": draw(st.floats(0, 1e9)),
        "total_orders": orders,
        "customer_lifetime_days": lifetime,
        "days_since_last_purchase": lifetime if orders == 1 else draw(st.floats(0, lifetime)),
        "frequency_score": draw(st.integers(1, 5)),
    }


def _outside(low: float, high: float) -> st.SearchStrategy[Any]:
    return st.floats(max_value=low, exclude_max=True, allow_infinity=False) | st.floats(
        min_value=high, exclude_min=True, allow_infinity=False
    )


NOT_A_NUMBER = st.text(max_size=8) | st.booleans() | st.lists(st.integers(), max_size=2) | st.just({})
INVALID: dict[str, st.SearchStrategy[Any]] = {
    "customer_age": _outside(0, 130) | NOT_A_NUMBER,
    "purchase_frequency": _outside(0, 3_100) | NOT_A_NUMBER | st.none(),
    "average_order_value": _outside(0, 1e9) | NOT_A_NUMBER | st.none(),
    "total_orders": st.integers(max_value=0)
    | st.integers(min_value=1_000_001)
    | st.just(2.5)
    | NOT_A_NUMBER
    | st.none(),
    "customer_lifetime_days": _outside(0, 36_525) | NOT_A_NUMBER | st.none(),
    "days_since_last_purchase": _outside(0, 340) | NOT_A_NUMBER | st.none(),
    "frequency_score": st.integers(max_value=0) | st.integers(min_value=6) | st.just(4.5) | NOT_A_NUMBER | st.none(),
}
"""By field, what a form that is valid otherwise (FORM) is refused for."""
