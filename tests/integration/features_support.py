"""A history of customers for the feature worker, and what it must make of it."""

import json
import math
import random
from datetime import date
from pathlib import Path

from domain.customer import DAY_MS, OrderCancelled, OrderPlaced, OrderRefunded, fold
from domain.features import FEATURE_NAMES, INPUT_NAMES, day_of, features
from domain.rfm_scores import Quintiles
from schemas.orders import Cancelled, OrderRecord, Placed, Refunded, domain_event, encode_order
from schemas.topics import CUSTOMER_FEATURES, ORDERS
from services.runtime.bundle import point_to
from tests.support import committed_lag, metric, newest_by_customer, produce

QUINTILES = Quintiles((30, 60, 120, 240), (0, 1, 2, 5), (20, 50, 100, 300))
FIRST_DAY = 10_000


def features_environment(topics: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a worker that follows the events' own clock, with a bundle of a head alone."""
    bundle = tmp_path / "models" / "m1"
    bundle.mkdir(parents=True)
    head = {
        "model_version": "m1",
        "horizon_days": 90,
        "currency": "USD",
        "feature_names": list(FEATURE_NAMES),
        "quintiles": {name: getattr(QUINTILES, name) for name in ("recency_days", "frequency", "monetary")},
        "segment_thresholds": [1, 2, 3],
    }
    (bundle / "metadata.json").write_text(json.dumps(head))
    point_to(tmp_path / "models", "m1")
    return {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MODELS_DIR": str(tmp_path / "models"),
        "CLV_FEATURES_DATA_DIR": str(tmp_path / "data"),
        "CLV_FEATURES_CLOCK": "event",
        "CLV_FEATURES_REFRESH_SECONDS": "0",
        "CLV_FEATURES_CHUNK_RECORDS": "200",
    }


def history(customers: int, events: int, seed: int) -> list[OrderRecord]:
    """Orders, refunds and cancellations of some customers over a year, shuffled, one in ten sent twice."""
    rng = random.Random(seed)
    records: list[OrderRecord] = []
    for n in range(events):
        customer = f"c{rng.randrange(customers)}"
        at_ms = (FIRST_DAY + rng.randrange(365)) * DAY_MS + rng.randrange(DAY_MS)
        common = {"event_id": f"e{n}", "customer_id": customer, "occurred_at_ms": at_ms}
        money = {"amount_minor": rng.randrange(1, 20_000), "original_amount": "1", "original_currency": "USD"}
        kind = rng.random()
        if kind < 0.8:
            records.append(Placed(**common, **money, order_id=f"o{n}"))
        elif kind < 0.9:
            records.append(Refunded(**common, **money, refund_id=f"r{n}", order_id=f"o{rng.randrange(events)}"))
        else:
            records.append(Cancelled(**common, order_id=f"o{rng.randrange(events)}"))
    records += rng.sample(records, events // 10)
    rng.shuffle(records)
    return records


def publish(bootstrap: str, records: list[OrderRecord]) -> None:
    produce(bootstrap, ORDERS, ((record.customer_id.encode(), encode_order(record)) for record in records))


def assert_features_equal_batch(bootstrap: str, records: list[OrderRecord]) -> None:
    """Each customer's newest message equals a batch recomputation, number by number."""
    events: dict[str, list[object]] = {}
    for record in records:
        events.setdefault(record.customer_id, []).append(domain_event(record))
    expected = {
        customer: state
        for customer, found in events.items()
        if (
            state := fold(event for event in found if isinstance(event, OrderPlaced | OrderRefunded | OrderCancelled))
        ).orders
    }
    newest = newest_by_customer(bootstrap, CUSTOMER_FEATURES)
    assert newest.keys() == expected.keys()
    for customer, message in newest.items():
        day = day_of(date.fromisoformat(message["as_of"]))
        wanted = features([expected[customer]], [day], QUINTILES, 100)
        for names, values, sent in (
            (INPUT_NAMES, wanted.inputs[0], message["inputs"]),
            (FEATURE_NAMES, wanted.features[0], message["features"]),
        ):
            for name, value in zip(names, values.tolist(), strict=True):
                assert sent[name] == (None if math.isnan(value) else value), (customer, name)


def processed(process: object, count: int) -> bool:
    return metric(process, "clv_records_processed_total") >= count


def lag(bootstrap: str) -> int:
    """Orders that the workers have not committed."""
    return committed_lag(bootstrap, "clv-features", ORDERS)
