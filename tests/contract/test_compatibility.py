"""Version 1 of each format stays readable and writable by those who rely on it."""

from copy import deepcopy

import pytest

from schemas.json_schemas import json_schemas
from tests.contract.compatibility import breaks, frozen, shape

NOW = shape(dict(json_schemas()))
PLACED = "customer-events/order.placed/"
PREDICTION = "predictions/Prediction/"


def test_nothing_that_was_promised_in_v1_has_changed():
    assert breaks(frozen(), NOW) == [], "this breaks those who use v1: keep the field, and make a v2 topic and schema"


def test_what_was_added_is_promised_from_now_on():
    assert frozen() == NOW, "fields were added: freeze them with `python -m tests.contract.compatibility`"


def changed(field: str, **change):
    other = deepcopy(NOW)
    other[field] |= change
    return other


@pytest.mark.parametrize(
    ("later", "complaint"),
    [
        ({k: v for k, v in NOW.items() if k != PLACED + "amount"}, "amount was removed or renamed"),
        (changed(PLACED + "source", required=True), "source is now required"),
        (changed(PREDICTION + "p_active", required=False), "p_active may now be left out"),
        (changed(PLACED + "amount", type="number"), "amount was string and is number"),
        (changed(PREDICTION + "historical_value", type="number"), "historical_value was number or null and is number"),
        (changed(PREDICTION + "segment_thresholds", items=[4, "number"]), "segment_thresholds was array of"),
        ({**NOW, PLACED + "channel": {"required": True, "type": "string"}}, "channel is new and required"),
        ({**NOW, PREDICTION + "ledger.tax": {"required": True, "type": "number"}}, "ledger.tax is new and required"),
        ({k: v for k, v in NOW.items() if "features.recency_days" not in k}, "features.recency_days was removed"),
        (changed(PREDICTION + "segment", values=["high_value"]), "may no longer be 'at_risk'"),
        (changed(PREDICTION + "segment", values=[*NOW[PREDICTION + "segment"]["values"], "new"]), "may now be 'new'"),
        (changed(PREDICTION + "strategy", values=["upsell"]), "strategy was made a closed list"),
    ],
)
def test_a_breaking_change_is_noticed(later, complaint: str):
    found = breaks(NOW, later)
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    "later",
    [
        {**NOW, PLACED + "channel": {"required": False, "type": "string"}},
        {**NOW, "customer-events/customer.seen/event_id": {"required": True, "type": "string"}},
        NOW
        | {PREDICTION + "why": {"required": False, "type": ["object", "null"]}}
        | {PREDICTION + "why.reason": {"required": True, "type": "string"}},
    ],
)
def test_an_optional_field_or_a_new_kind_of_event_breaks_nobody(later):
    assert breaks(NOW, later) == []
