"""Valid records, mutated at random: whoever judges them says yes or no, and never raises."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest

from domain.customer import DAY_MS, ORDER, CustomerState, DayTotal, Profile
from schemas.customer_features import encode_features
from schemas.customer_rows import encode, encode_state
from schemas.dead_letters import Reason, to_record
from schemas.mongo import erasure_id
from schemas.orders import Absorbed, Cancelled, Merged, Placed, Refunded, Updated, encode_order
from schemas.predictions import encode_prediction
from services.features.emit import feature_messages as emit
from services.folding.fold import fold_chunk, keys_of
from services.ingest.judge import Rules
from services.ingest.judge import judge as judge_event
from services.ingest.rates import Rates
from services.ingest.rejection import Rejection
from services.runtime.dead_letter import letter_of
from services.scorer.intake import Candidate
from services.scorer.intake import judge as judge_features
from services.scorer.scoring import prepare
from services.sink.documents import Refusal, plan
from services.sink.documents import judge as judge_prediction
from services.sink.letters import concerned, judge_letter, newest
from tests.bundles import OTHER_QUINTILES, QUINTILES, feature_messages
from tests.unit.sink.examples import prediction

MUTATIONS = 400
NOW_MS = 1_790_000_000_000
RULES = Rules(currency="USD", rates=Rates())


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    offset: int = 7
    timestamp: int = 5
    partition: int = 0
    topic: str = "t"
    headers: tuple[()] = ()


RAW = [
    b"null", b"true", b"[]", b"{}", b'""', b"0", b"-0", b"-1", b"1.5", b"1e308", b"-1e308", b"1e400", b"5e-324",
    b"NaN", b"Infinity", str(2**31).encode(), str(2**53).encode(), str(2**63 - 1).encode(), str(2**63).encode(),
    str(-(2**63)).encode(), str(2**64).encode(), b"9" * 400, b'"\\u0000"', b'"\\ud800"', b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"' + b"x" * 300 + b'"', b'"9999-12-31T23:59:59Z"', b'"9999-12-31"', b'"0001-01-01T00:00:00+23:59"', b'"1e999"',
    b'"9999-12-31T23:59:59-23:59"', b'"-' + b"9" * 30 + b'"', b"[" * 60 + b"]" * 60, b"[" * 50_000, b'{"a":' * 50_000,
    b'"order.cancelled"', b'"customer.merged"', b'"customer.erased"', b'"customer.absorbed"', b'"2024-02-30T00:00:00Z"',
]  # fmt: skip


def mutate(rng: random.Random, message: dict[str, Any]) -> bytes:
    """One to three things wrong (or merely odd) with a message: fields replaced, lost, renamed; bytes changed, cut."""
    changed = dict(message)
    raw: dict[str, bytes] = {}
    for _ in range(rng.randint(1, 3)):
        place = changed
        field = rng.choice([*changed, "unknown"])
        if isinstance(place.get(field), dict) and place[field] and rng.random() < 0.7:
            place[field] = place = dict(place[field])
            field = rng.choice(list(place))
        match rng.randrange(4):
            case 0 | 1:
                place[field] = mark = f"@@{len(raw)}@@"
                raw[mark] = rng.choice(RAW)
            case 2:
                place.pop(field, None)
            case 3 if field in place:
                place[rng.choice(["", "$where", "a.b", "a\0b", "__proto__", "é" * 200])] = place.pop(field)
    text = json.dumps(changed).encode()
    for mark, replacement in raw.items():
        text = text.replace(f'"{mark}"'.encode(), replacement)
    if rng.random() < 0.3:
        at = rng.randrange(len(text))
        text = rng.choice([text[:at], text[:at] + rng.randbytes(3) + text[at + 1 :], text[at:], text + text])
    return text


def key_of(rng: random.Random, customer: str) -> bytes | None:
    return rng.choice([customer.encode()] * 6 + [None, b"", b"\xff", b"\0progress", customer.encode() * 100])


def order_records() -> list[dict[str, Any]]:
    common = {"event_id": "e", "customer_id": "c", "occurred_at_ms": 1_700_000_000_000}
    money: dict[str, Any] = {"amount_minor": 5, "original_amount": "0.05", "original_currency": "USD"}
    records = [
        Placed(**common, **money, order_id="o"),
        Refunded(**common, **money, refund_id="r", order_id="o"),
        Cancelled(**common, order_id="o"),
        Updated(**common, birth_year=1990),
        Merged(**common, merged_into="d"),
    ]
    return [json.loads(encode_order(record)) for record in records]


def absorbed_states() -> list[dict[str, Any]]:
    """What a merged customer brings along, and states that no orders could have made."""
    whole = CustomerState(orders=ORDER.pack(b"k" * 8, 1_700_000_000_000, 5), folded={3: DayTotal(1, 5, 5)})
    odd = [
        {"orders": b"odd"}, {"refunds": b"x" * 31}, {"cancelled": b"y"}, {"folded_through_day": 2**40},
        {"orders": ORDER.pack(b"k" * 8, 2**62, 5)}, {"orders": ORDER.pack(b"k" * 8, -(2**62), 5), "folded": {}},
        {"orders": ORDER.pack(b"k" * 8, 5, 2**62)}, {"orders": b"", "folded": {-(2**40): DayTotal(1, 5, 5)}},
        {"folded": {3: DayTotal(2**62, 2**62, 2**62)}}, {"profile": Profile(5, 2**40)},
        {"profile": Profile(2**63, 1990)},
    ]  # fmt: skip
    states = [encode_state(msgspec.structs.replace(whole, **changes)) for changes in [{}, *odd]]
    states += [b"", b"\xff", b"\x91" * 100_000]
    common = {"event_id": "e", "customer_id": "c", "occurred_at_ms": 1_700_000_000_000}
    rest: dict[str, Any] = {"origin": "d", "version": 3, "merged_into": "c", "merged_at_ms": 1_700_000_000_000}
    return [json.loads(encode_order(Absorbed(**common, **rest, state=state))) for state in states]


def public_events() -> list[dict[str, Any]]:
    common = {"event_id": "e", "customer_id": "c", "occurred_at": "2024-01-31T12:00:00Z", "source": "s"}
    money = {"amount": "12.34", "currency": "USD"}
    plain = [
        {**common, **money, "event_type": "order.placed", "order_id": "o"},
        {**common, **money, "event_type": "order.refunded", "refund_id": "r", "order_id": "o"},
        {**common, "event_type": "customer.updated", "birth_year": 1990},
        {**common, "event_type": "customer.merged", "merged_into": "d"},
    ]
    context = {"specversion": "1.0", "id": "e", "source": "/s", "type": "order.placed", "subject": "c"}
    data = {"order_id": "o", **money}
    return [*plain, {**context, "time": "2024-01-31T12:00:00Z", "data": data}, {**context, "data_base64": "e30="}]


def check_event(value: bytes, _: bytes | None, rng: random.Random) -> bool:
    names = ["content-type", "ce_specversion", "ce_id", "ce_time", "ce_type", "ce_source", "x"]
    contents = [
        b"application/cloudevents+json",
        b"1.0",
        b"\xff",
        b"",
        None,
        b"order.placed",
        b"9999-12-31T23:59:59-23:59",
    ]
    headers = [(rng.choice(names), rng.choice(contents)) for _ in range(rng.choice([0, 0, 0, 3, 6]))]
    verdict = judge_event(value, headers, NOW_MS, RULES)
    if isinstance(verdict, Rejection):
        assert len(verdict.detail.encode()) < 2000
        return False
    encode_order(verdict)
    return True


def check_order(value: bytes, key: bytes | None, _: random.Random) -> bool:
    """Between two good records, which must have their effect; and the rows must still give features."""
    good = json.dumps({**order_records()[0], "customer_id": "g"}).encode()
    records = [Record(b"g", good, 6), Record(key, value), Record(b"g", good, 8)]
    assert b"\0progress" not in keys_of(records)
    folded = fold_chunk(records, {}, 0, 0)
    assert folded.touched[b"g"].row.events_applied == 2
    for record, reason, detail in folded.rejected:
        letter_of(record, reason, detail, "features")  # type: ignore[arg-type]
    rows = [(customer, touched.row) for customer, touched in folded.touched.items()]
    assert all(encode(row) for _, row in rows)
    assert all(encode_order(sent.record) for sent in folded.to_send)
    days = [max(NOW_MS // DAY_MS, touched.last_day) for touched in folded.touched.values()]
    alone = [emit([row], [day], QUINTILES, "USD", 100)[0] for row, day in zip(rows, days, strict=True)]
    assert emit(rows, days, QUINTILES, "USD", 100) == alone, "nobody's features may depend on a neighbour"
    return not folded.rejected


def check_features(value: bytes, key: bytes | None, _: random.Random) -> bool:
    record = Record(key, value)
    verdict = judge_features(record, "USD")
    if isinstance(verdict, Candidate):
        prepare([verdict], OTHER_QUINTILES)
        return True
    if hasattr(verdict, "reason"):
        letter_of(record, verdict.reason, verdict.detail, "scorer")  # type: ignore[arg-type]
    return False


def check_prediction(value: bytes, key: bytes | None, _: random.Random) -> bool:
    record = Record(key, value)
    verdict = judge_prediction(record, datetime.now(UTC))
    if isinstance(verdict, Refusal):
        letter_of(record, verdict.reason, verdict.detail, "sink")  # type: ignore[arg-type]
        return False
    plan([verdict])
    return True


class Letter(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int = 0
    offset: int = 0


def check_letter(value: bytes, key: bytes | None, rng: random.Random) -> bool:
    """What the sink makes of a dead letter whose headers are no longer what they were."""
    letter = letter_of(Record(key, value), Reason.INVALID_JSON, "no", "sink")  # type: ignore[arg-type]
    letter_key, letter_value, headers = to_record(letter)
    for _ in range(rng.choice([0, 0, 1, 3])):
        at = rng.randrange(len(headers))
        headers[at] = (headers[at][0], rng.choice([b"", b"\xff", b"9" * 30, b"-1", b"1:2", b"customer_erased"]))
    judged = judge_letter(
        Letter(rng.choice([letter_key, key]), rng.choice([letter_value, letter_value, None]), headers)
    )
    if judged is None:
        return False
    kept, _ = newest([judged])
    concerned(kept, {erasure_id("c"): datetime.now(UTC)})
    return True


Check = Callable[[bytes, bytes | None, random.Random], bool]
JUDGES: dict[str, tuple[Check, list[dict[str, Any]]]] = {
    "ingest": (check_event, public_events()),
    "features": (check_order, order_records()),
    "features, of merged customers": (check_order, absorbed_states()),
    "scorer": (check_features, [json.loads(encode_features(each)) for each in feature_messages(2)]),
    "sink, of dead letters": (check_letter, [*public_events(), *order_records()]),
    "sink": (check_prediction, [json.loads(encode_prediction(prediction("c")))]),
}


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("service", JUDGES)
def test_no_mutation_of_a_valid_record_makes_its_judge_raise(service: str):
    check, messages = JUDGES[service]
    accepted = 0
    for seed in range(MUTATIONS):
        rng = random.Random(f"{service} {seed}")
        message = messages[seed % len(messages)]
        accepted += check(mutate(rng, message), key_of(rng, str(message.get("customer_id"))), rng)
    assert 0 < accepted < MUTATIONS, "mutations that all pass, or none, test nothing"


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("service", JUDGES)
def test_no_value_in_any_field_makes_the_judge_raise(service: str):
    check, messages = JUDGES[service]
    rng = random.Random(1)
    for message in messages:
        key = str(message.get("customer_id")).encode()
        check(json.dumps(message).encode(), key, rng)
    for message in messages[:6]:
        key = str(message.get("customer_id")).encode()
        for field in message:
            with_mark = json.dumps({**message, field: "@@"}).encode()
            for raw in RAW:
                check(with_mark.replace(b'"@@"', raw), key, rng)


def test_a_detail_that_quotes_a_whole_message_is_cut():
    letter = letter_of(Record(b"k", b"v"), Reason.INVALID_FIELD, "x" * 10_000_000, "s")  # type: ignore[arg-type]
    assert len(letter.detail) <= 500
