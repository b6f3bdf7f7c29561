"""An order that comes years late, on real servers: state, features and prediction are what they would have been."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from domain.customer import DAY_MS, OrderPlaced, fold
from domain.features import FEATURE_NAMES, INPUT_NAMES, date_of, features
from schemas.orders import Placed, encode_order
from schemas.topics import CUSTOMER_FEATURES, ORDERS, PREDICTIONS
from services.runtime.bundle import point_to
from tests.bundles import QUINTILES, write_bundle
from tests.support import newest_by_customer, produce, read_all, wait_for

pytestmark = pytest.mark.integration

TODAY = 19_700
"""Of the orders: the clock is the latest event."""


def placed(customer: str, day: int, minor: int = 5_000) -> Placed:
    return Placed(
        event_id=f"{customer}-{day}", customer_id=customer, occurred_at_ms=day * DAY_MS, order_id=f"o{day}",
        amount_minor=minor, original_amount="50.00", original_currency="USD",
    )  # fmt: skip


def publish(servers: str, orders: list[Placed]) -> None:
    produce(servers, ORDERS, ((each.customer_id.encode(), encode_order(each)) for each in orders), partition=0)


def assert_equals_batch(message: dict[str, Any], orders: list[Placed]) -> None:
    """The message's numbers are those of all orders, computed at once, as of its own day."""
    state = fold(OrderPlaced(each.order_id, each.amount_minor, each.occurred_at_ms) for each in orders)
    day = (date.fromisoformat(message["as_of"]) - date(1970, 1, 1)).days
    wanted = features([state], [day], QUINTILES, 100)
    for names, values, sent in (
        (INPUT_NAMES, wanted.inputs[0], message["inputs"]),
        (FEATURE_NAMES, wanted.features[0], message["features"]),
    ):
        assert sent == {n: None if math.isnan(v) else v for n, v in zip(names, values.tolist(), strict=True)}


def test_an_order_of_two_years_ago_that_arrives_last_counts_and_is_predicted_from(service, topics, tmp_path: Path):
    models = tmp_path / "models"
    point_to(models, write_bundle(models))
    environment = {
        "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
        "CLV_MODELS_DIR": str(models),
        "CLV_FEATURES_DATA_DIR": str(tmp_path / "data"),
        "CLV_FEATURES_CLOCK": "event",
        "CLV_FEATURES_REFRESH_SECONDS": "0",
        "CLV_SCORER_MIN_POPULATION": "1000000",
    }
    service("features", environment, wait=False)
    scorer = service("scorer", environment)
    orders = {name: [placed(name, day) for day in range(TODAY - 300, TODAY + 1, 30)] for name in ("late", "other")}
    publish(topics, [order for found in orders.values() for order in found])

    def predicted(name: str, events: int) -> bool:
        made = newest_by_customer(topics, PREDICTIONS).get(name)
        return made is not None and made["feature_version"] // 100_000 == events

    count = len(orders["late"])
    for name in orders:
        wait_for(lambda name=name: predicted(name, count), f"{name}'s prediction", 60, scorer.log_tail)
    before = {topic: newest_by_customer(topics, topic) for topic in (CUSTOMER_FEATURES, PREDICTIONS)}
    emitted = len(read_all(topics, CUSTOMER_FEATURES))

    orders["late"].append(placed("late", TODAY - 730, minor=90_000))
    publish(topics, orders["late"][-1:])
    wait_for(lambda: predicted("late", count + 1), "the new prediction", 60, scorer.log_tail)
    after = {topic: newest_by_customer(topics, topic) for topic in (CUSTOMER_FEATURES, PREDICTIONS)}
    for topic in (CUSTOMER_FEATURES, PREDICTIONS):
        message = after[topic]["late"]
        assert message["feature_version"] > before[topic]["late"]["feature_version"]
        assert message["as_of"] == before[topic]["late"]["as_of"] == date_of(TODAY).isoformat()
        assert_equals_batch(message, orders["late"])
        assert after[topic]["other"] == before[topic]["other"]
    assert after[PREDICTIONS]["late"]["historical_value"] == before[PREDICTIONS]["late"]["historical_value"] + 900
    assert after[PREDICTIONS]["late"]["prediction_id"] != before[PREDICTIONS]["late"]["prediction_id"]
    assert len(read_all(topics, CUSTOMER_FEATURES)) == emitted + 1, "nobody else is emitted for it"

    publish(topics, [placed("other", TODAY - 900)])  # the clock does not go back for those who come after it either
    wait_for(lambda: predicted("other", count + 1), "the other's prediction", 60, scorer.log_tail)
    assert newest_by_customer(topics, PREDICTIONS)["other"]["as_of"] == date_of(TODAY).isoformat()
