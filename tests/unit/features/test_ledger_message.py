"""The ledger as feature messages carry it: in major units, small, and absent from older messages."""

from fractions import Fraction

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from domain.customer import DAY_MS, CustomerState, OrderCancelled, OrderPlaced, OrderRefunded, fold
from domain.ledger import Ledgers
from schemas.customer_features import CustomerFeatures, Ledger, decode_features, decode_features_view, encode_features
from schemas.customer_rows import Row
from services.features.emit import feature_messages
from tests.effort import tries
from tests.properties.oracle import naive_ledger
from tests.properties.test_customer_state import FIRST_DAY, LAST_DAY, QUINTILES, event_of, facts

COUNTS = ("orders_placed", "orders_cancelled", "waiting_refund_count")
EVERYTHING = fold(
    [
        OrderPlaced("a", 10_000, DAY_MS),
        OrderPlaced("b", 2_550, DAY_MS),
        OrderPlaced("c", 700, DAY_MS),
        OrderRefunded("r1", "a", 1_000, DAY_MS),
        OrderRefunded("r2", "b", 2_600, DAY_MS),
        OrderRefunded("r3", "c", 300, DAY_MS),
        OrderRefunded("r4", None, 45, DAY_MS),
        OrderRefunded("r5", "unknown", 1_99, DAY_MS),
        OrderCancelled("c", DAY_MS),
    ]
)


def message(state: CustomerState, day: int = 9, minor_per_major: int = 100) -> bytes:
    (found,) = feature_messages([(b"c", Row(1, 0, 0, state))], [day], QUINTILES, "USD", minor_per_major)
    return found


def test_the_message_and_the_domain_name_the_same_fields_in_the_same_order():
    assert Ledger.__struct_fields__ == Ledgers._fields


def test_every_kind_of_refund_is_visible_beside_gross_and_net():
    assert decode_features(message(EVERYTHING)).ledger == Ledger(
        orders_placed=3,
        gross=125.5,
        net=89.55,
        orders_cancelled=1,
        refunded=35.5,
        loose_refunds=0.45,
        cancelled_refunds=3.0,
        refund_excess=0.5,
        waiting_refunds=1.99,
        waiting_refund_count=1,
    )


@pytest.mark.parametrize(("minor_per_major", "gross"), [(1, 12_550.0), (1000, 12.55)])
def test_amounts_are_in_units_of_the_currency(minor_per_major: int, gross: float):
    found = decode_features(message(EVERYTHING, minor_per_major=minor_per_major)).ledger
    assert found is not None
    assert (found.gross, found.orders_placed) == (gross, 3)


@settings(max_examples=tries(100), deadline=None)
@given(facts, st.integers(FIRST_DAY - 1, LAST_DAY + 400))
def test_the_message_says_what_the_oracle_says(found, day):
    sent = decode_features(message(fold(map(event_of, found)), day)).ledger
    wanted = {
        name: value if name in COUNTS else float(Fraction(value, 100))
        for name, value in naive_ledger(found, day).items()
    }
    assert sent is not None
    assert msgspec.structs.asdict(sent) == wanted


def test_what_is_nothing_is_left_out_also_by_those_who_pass_the_message_on():
    value = message(fold([OrderPlaced("a", 1000, DAY_MS)]))
    sent = b'"ledger":{"orders_placed":1,"gross":10.0,"net":10.0}'
    assert sent in value
    assert sent in encode_features(decode_features(value))
    assert msgspec.json.encode(decode_features_view(value).ledger) in sent


def test_an_older_message_without_a_ledger_is_read():
    fields = msgspec.json.decode(message(EVERYTHING))
    del fields["ledger"]
    old = msgspec.json.encode(fields)
    assert decode_features(old).ledger is None
    assert decode_features_view(old).ledger is None
    assert isinstance(decode_features(old), CustomerFeatures)
