"""Money that goes back, through a real feature worker: what waits, counts or is too much is told and counted."""

from itertools import count
from pathlib import Path

import pytest

from deploy.local.processes import ServiceProcess
from domain.customer import DAY_MS
from schemas.customer_features import CustomerFeatures, Ledger, decode_features
from schemas.orders import Cancelled, OrderRecord, Placed, Refunded, encode_order
from schemas.topics import CUSTOMER_FEATURES, ORDERS
from services.runtime.bundle import point_to
from tests.bundles import write_bundle
from tests.support import metric, produce, read_all, wait_for

pytestmark = pytest.mark.integration

DAY = 19_000
MONEY = {"original_amount": "1", "original_currency": "USD"}
_numbers = count()


@pytest.fixture
def worker(service, topics: str, tmp_path: Path) -> ServiceProcess:
    models = tmp_path / "models"
    point_to(models, write_bundle(models))
    return service(
        "features",
        {
            "CLV_KAFKA_BOOTSTRAP_SERVERS": topics,
            "CLV_MODELS_DIR": str(models),
            "CLV_FEATURES_DATA_DIR": str(tmp_path / "data"),
            "CLV_FEATURES_CLOCK": "event",
            "CLV_FEATURES_REFRESH_SECONDS": "0",
        },
    )


def common(customer: str, day: int) -> dict[str, object]:
    return {"event_id": f"e{next(_numbers)}", "customer_id": customer, "occurred_at_ms": (DAY + day) * DAY_MS}


def placed(customer: str, order_id: str, minor: int, day: int = 0) -> Placed:
    return Placed(**common(customer, day), **MONEY, order_id=order_id, amount_minor=minor)


def refunded(customer: str, refund_id: str, order_id: str | None, minor: int, day: int = 1) -> Refunded:
    return Refunded(**common(customer, day), **MONEY, refund_id=refund_id, order_id=order_id, amount_minor=minor)


class Shop:
    """Publishes records and knows what the worker makes of them."""

    def __init__(self, worker: ServiceProcess, bootstrap: str) -> None:
        self.worker, self.bootstrap, self.sent = worker, bootstrap, 0

    def says(self, *records: OrderRecord) -> None:
        """Publish, one customer's records in this order, and wait until the worker is done with them."""
        produce(self.bootstrap, ORDERS, ((each.customer_id.encode(), encode_order(each)) for each in records))
        self.sent += len(records)
        done = lambda: metric(self.worker, "clv_records_processed_total") >= self.sent  # noqa: E731
        wait_for(done, "the records to be processed", context=self.worker.log_tail)

    def newest(self, customer: str) -> CustomerFeatures:
        """The newest message about the customer."""
        found = [decode_features(record.value()) for record in read_all(self.bootstrap, CUSTOMER_FEATURES)]
        return max((each for each in found if each.customer_id == customer), key=lambda each: each.feature_version)

    def counted(self) -> tuple[float, float, float]:
        """Refunds that waited, that were matched, and events beyond an order's amount, as the worker counts them."""
        names = ("refunds_waiting", "refunds_matched", "refund_excess")
        waiting, matched, excess = (metric(self.worker, f"clv_features_{name}_total") for name in names)
        return waiting, matched, excess


@pytest.fixture
def shop(worker: ServiceProcess, topics: str) -> Shop:
    return Shop(worker, topics)


def test_a_refund_of_an_unknown_order_is_told_as_waiting_and_applied_when_the_order_comes(shop: Shop):
    first, early = placed("c", "o1", 10_000), refunded("c", "r", "o2", 3_000)
    shop.says(first, early)
    message = shop.newest("c")
    assert message.ledger == Ledger(1, 100.0, 100.0, waiting_refunds=30.0, waiting_refund_count=1)
    assert message.features["monetary"] == 100.0
    shop.says(placed("c", "o2", 5_000, day=2))
    message = shop.newest("c")
    assert message.ledger == Ledger(2, 150.0, 120.0, refunded=30.0)
    assert message.features["monetary"] == 120.0


def test_what_goes_beyond_an_order_is_told_and_is_the_same_in_whatever_order_it_comes(shop: Shop):
    for customer, arrival in (("a", [0, 1, 2, 3]), ("b", [2, 1, 3, 0]), ("c", [1, 3, 2, 0])):
        records = [
            placed(customer, "o", 5_000),
            refunded(customer, "r1", "o", 4_000),
            refunded(customer, "r2", "o", 1_750, day=2),
            refunded(customer, "r3", None, 199, day=3),
        ]
        shop.says(*(records[at] for at in arrival))
    for customer in "abc":
        message = shop.newest(customer)
        assert message.ledger == Ledger(1, 50.0, -1.99, refunded=50.0, refund_excess=7.5, loose_refunds=1.99)
        assert message.features["monetary"] == -1.99
    shop.says(Cancelled(**common("a", 4), order_id="o"))
    assert shop.newest("a").ledger == Ledger(
        1, 0.0, -1.99, orders_cancelled=1, cancelled_refunds=50.0, refund_excess=7.5, loose_refunds=1.99
    )


def test_refunds_are_counted_once_as_waiting_matched_and_too_much(shop: Shop):
    records = [
        placed("c", "o1", 1_000),
        refunded("c", "r1", "o2", 600),
        refunded("c", "r2", "o2", 600),
        refunded("c", "r3", "never", 1),
    ]
    shop.says(*records)
    assert shop.counted() == (3, 0, 0)
    shop.says(order := placed("c", "o2", 1_000))
    assert shop.counted() == (3, 2, 1)
    shop.says(refunded("c", "r4", "o1", 1_001), refunded("c", "r5", "o1", 1))
    assert shop.counted() == (3, 2, 3)
    shop.says(*records, order, refunded("c", "r4", "o1", 1_001))  # all of it comes again
    assert shop.counted() == (3, 2, 3)
