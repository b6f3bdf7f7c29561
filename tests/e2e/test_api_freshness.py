"""From an order posted to ingest to the answer of the API: the whole product as processes."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from cli.platform import Platform
from tests.bundles import write_bundle

pytestmark = pytest.mark.e2e
SECONDS_MAX = 20.0
"""A generous bound, for a machine that does much else: ./clv bench freshness has the figures."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    models = folder / "models"
    (models).mkdir()
    (models / "current").write_text(write_bundle(models))
    names = ("ingest", "features", "scorer", "sink", "api")
    with Platform(models, folder / "work", names=names, usual_ports=False) as running:
        yield running


def event(number: int, customer: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "order.placed",
        "occurred_at": datetime.now(UTC).isoformat(),
        "customer_id": customer,
        "order_id": f"o{number}",
        "amount": "50.00",
        "currency": "USD",
    } | changes


def post(platform: Platform, body: dict[str, Any]) -> float:
    """Post an event to ingest; when it was accepted, time.monotonic()."""
    answer = httpx.post(f"{platform.url('ingest')}/v1/events", json=body, timeout=30)
    assert answer.status_code == 202, answer.text
    return time.monotonic()


def until(platform: Platform, path: str, met: Any, what: str) -> tuple[float, Any]:
    """Ask the API until its answer is as wanted; when that was, and the answer."""
    deadline = time.monotonic() + SECONDS_MAX
    with httpx.Client(base_url=platform.url("api"), timeout=30) as client:
        while True:
            answer = client.get(path)
            assert answer.status_code < 500, answer.text
            if met(answer):
                return time.monotonic(), answer.json()
            assert time.monotonic() < deadline, f"waited {SECONDS_MAX} s for {what}: {answer.text}"
            time.sleep(0.01)


def test_an_order_that_ingest_accepted_shows_in_the_api(platform: Platform) -> None:
    post(platform, event(1, "warm"))
    until(platform, "/v1/customers/warm", lambda answer: answer.status_code == 200, "the line to be warm")
    accepted = post(platform, event(2, "a/customer"))
    seen, found = until(
        platform, "/v1/customers/a%2Fcustomer", lambda answer: answer.status_code == 200, "the first order"
    )
    assert found["orders"]["orders"] == 1
    assert found["prediction"]["historical_value"] == 50.0
    print(f"first order visible after {seen - accepted:.3f} s")
    accepted = post(platform, event(3, "a/customer", amount="70.00"))
    seen, found = until(
        platform,
        "/v1/customers/a%2Fcustomer",
        lambda answer: answer.json()["orders"]["orders"] == 2,
        "the second order",
    )
    assert found["orders"]["gross"] == 120.0
    print(f"second order visible after {seen - accepted:.3f} s")
    refund = event(4, "a/customer", event_type="order.refunded", refund_id="r1", order_id="o3", amount="20.00")
    post(platform, refund)
    _, found = until(
        platform, "/v1/customers/a%2Fcustomer", lambda answer: answer.json()["orders"]["refunded"] == 20.0, "the refund"
    )
    assert found["orders"]["net"] == 100.0
    _, orders = until(
        platform,
        "/v1/customers/a%2Fcustomer/orders",
        lambda answer: answer.status_code == 200 and sum(each["refunded"] for each in answer.json()["orders"]) == 20.0,
        "the refund among the orders",
    )
    assert [line["gross"] for line in orders["orders"]] == [70.0, 50.0]


def test_what_arrives_is_on_the_stream_with_its_freshness(platform: Platform) -> None:
    with httpx.stream("GET", f"{platform.url('api')}/v1/stream", timeout=SECONDS_MAX) as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": listening"
        post(platform, event(10, "streamed"))
        for line in lines:
            if line.startswith("data:") and json.loads(line[5:])["customer_id"] == "streamed":
                break
    live = httpx.get(f"{platform.url('api')}/v1/live").json()
    assert 0 < live["freshness_seconds_p50"] < SECONDS_MAX
    assert {lag["service"] for lag in live["lags"]} == {"ingest", "features", "scorer", "sink"}


def test_who_is_erased_over_http_is_no_longer_found(platform: Platform) -> None:
    post(platform, event(20, "leaving"))
    until(platform, "/v1/customers/leaving", lambda answer: answer.status_code == 200, "the customer")
    assert httpx.delete(f"{platform.url('api')}/v1/customers/leaving").status_code == 202
    for rest in ("", "/history", "/orders", "/explanation"):
        until(platform, f"/v1/customers/leaving{rest}", lambda answer: answer.status_code == 404, f"{rest} to be gone")
    rows = httpx.get(f"{platform.url('api')}/v1/customers?q=leaving").json()
    assert rows["customers"] == []


def test_customers_who_were_merged_are_one(platform: Platform) -> None:
    post(platform, event(30, "former"))
    post(platform, event(31, "now"))
    post(platform, event(32, "former", event_type="customer.merged", merged_into="now"))
    _, found = until(
        platform,
        "/v1/customers/now/orders",
        lambda answer: answer.status_code == 200 and len(answer.json()["orders"]) == 2,
        "both orders",
    )
    assert found["merged_customers"] == ["former"]
    _, gone = until(platform, "/v1/customers/former", lambda answer: answer.status_code == 404, "the former")
    assert "merged into 'now'" in gone["detail"]
