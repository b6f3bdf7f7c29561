"""One customer and lists of customers over HTTP, by a real API process from a real MongoDB."""

import csv
import io
import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo
from deploy.local.processes import ServiceProcess
from domain.customer import OrderCancelled, OrderPlaced, OrderRefunded, fold, id_key
from schemas.customer_rows import Links, Part, Row
from schemas.http_api.customers import CustomerRow, Sort
from schemas.mongo import CUSTOMERS
from services.api.customers.listing import Question
from services.api.customers.paging import parts_after, position_in
from tests.integration.api_support import NOW, Seeder, ask, customer_path, ok, order_days, predicted, running_api

pytestmark = pytest.mark.integration

DATABASE = "clv_api_customers"
SORTS: tuple[Sort, ...] = Sort.__args__  # type: ignore[attr-defined]
FIRST, SECOND, THIRD, FOURTH = order_days(200, 100, 30, 2)
STATE = fold(
    [
        OrderPlaced("o1", 5_000, FIRST),
        OrderPlaced("o2", 10_000, SECOND),
        OrderPlaced("o3", 3_000, THIRD),
        OrderRefunded("r1", "o2", 2_500, THIRD),
        OrderRefunded("r2", None, 700, THIRD),
        OrderRefunded("r3", "unknown", 900, THIRD),
        OrderCancelled("o3", FOURTH),
    ]
)


@pytest.fixture
def seeder(mongo: LocalMongo) -> Seeder:
    found = Seeder(mongo.uri, DATABASE)
    found.collections()
    return found


@pytest.fixture(scope="module")
def api(kafka: LocalKafka, mongo: LocalMongo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("api")
    with running_api(kafka.bootstrap_servers, mongo.uri, DATABASE, folder, CLV_API_SUMMARY_SECONDS="0.01") as process:
        yield process


def walk(api: ServiceProcess, query: str, limit: int, between: Any = lambda: None) -> Iterator[dict[str, Any]]:
    """All customers of a list, page by page."""
    cursor = ""
    while True:
        page = ok(api, f"/v1/customers?{query}&limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["customers"]) <= limit
        yield from page["customers"]
        cursor = page["next_cursor"]
        if cursor is None:
            return
        between()


def test_one_customer_is_told_with_all_that_is_current(api: ServiceProcess, seeder: Seeder) -> None:
    seeder.predictions([predicted("shop/zoë 1", 120.0, state=STATE, events=7)])
    seeder.rows({"shop/zoë 1": Row(7, 0, 6, STATE)})
    answer = ask(api, customer_path("shop/zoë 1"))
    assert answer.status == 200
    found = answer.body
    assert found["customer_id"] == "shop/zoë 1"
    assert found["updated_at"] == "2024-03-18T12:00:00.000Z"
    assert found["prediction"]["expected_value"] == 120.0
    assert found["prediction"]["churn_risk"] == pytest.approx(1 - found["prediction"]["p_active"])
    assert found["prediction"]["total_value"] == pytest.approx(120.0 + 118.0)
    assert found["orders"] == {
        "orders": 2,
        "orders_cancelled": 1,
        "gross": 150.0,
        "refunded": 32.0,
        "net": 118.0,
        "average_order_value": 75.0,
        "first_order_on": "2023-08-31",
        "last_order_on": "2023-12-09",
    }
    assert found["inputs"]["total_orders"] == 2
    assert len(found["features"]) > 18
    assert answer.headers["x-request-id"]


def test_a_customer_without_an_order_has_nulls_and_no_dates(api: ServiceProcess, seeder: Seeder) -> None:
    seeder.predictions([predicted("c", 0.0)])
    found = ok(api, customer_path("c"))
    assert found["prediction"]["historical_value"] is None
    assert found["prediction"]["total_value"] is None
    assert found["orders"]["orders"] == 0
    assert found["orders"]["first_order_on"] is None
    assert found["orders"]["average_order_value"] is None


def test_orders_are_told_one_by_one_with_refunds_and_cancellations(api: ServiceProcess, seeder: Seeder) -> None:
    brought = fold([OrderPlaced("o9", 4_200, FOURTH)])
    links = Links(7, parts={"former": Part(1, "c", 0, brought)})
    seeder.predictions([predicted("c", 120.0, state=STATE, events=7)])
    seeder.rows({"c": Row(7, 0, 6, STATE, links)})
    found = ok(api, customer_path("c", "/orders"))
    assert [
        (line["order_hash"], line["placed_on"], line["gross"], line["refunded"], line["cancelled"])
        for line in found["orders"]
    ] == [
        (id_key("o9").hex(), "2024-03-16", 42.0, 0.0, False),
        (id_key("o3").hex(), "2024-02-17", 30.0, 0.0, True),
        (id_key("o2").hex(), "2023-12-09", 100.0, 25.0, False),
        (id_key("o1").hex(), "2023-08-31", 50.0, 0.0, False),
    ]
    assert (found["currency"], found["loose_refunds"], found["waiting_refunds"]) == ("USD", 7.0, 9.0)
    assert found["merged_customers"] == ["former"]


def test_orders_that_were_folded_are_a_line_a_day(api: ServiceProcess, seeder: Seeder) -> None:
    start = order_days(900)[0]
    state = fold(OrderPlaced(f"o{at}", 100 + at, start + at // 3 * 86_400_000 + at) for at in range(1_200))
    assert state.folded
    seeder.rows({"c": Row(1_200, 0, 6, state)})
    found = ok(api, customer_path("c", "/orders"))["orders"]
    assert sum(line["orders"] for line in found) == 1_200
    assert sum(line["gross"] for line in found) == pytest.approx(sum(100 + at for at in range(1_200)) / 100)
    assert [line["placed_on"] for line in found] == sorted((line["placed_on"] for line in found), reverse=True)
    assert found[-1]["order_hash"] is None
    assert found[-1]["orders"] == 3


def test_who_is_unknown_merged_or_not_predicted_yet_is_told_so(api: ServiceProcess, seeder: Seeder) -> None:
    seeder.rows({"old": Row(2, 0, 6, STATE, Links(2, merged_into="new")), "fresh": Row(1, 0, 6, STATE)})
    for rest in ("", "/history", "/explanation"):
        unknown = ask(api, customer_path("nobody", rest))
        assert unknown.status == 404
        assert unknown.headers["content-type"] == "application/problem+json"
        assert "'nobody'" in unknown.body["detail"]
        assert "merged into 'new'" in ask(api, customer_path("old", rest)).body["detail"]
        assert "no prediction yet" in ask(api, customer_path("fresh", rest)).body["detail"]
    assert ask(api, customer_path("nobody", "/orders")).status == 404
    assert ask(api, customer_path("old", "/orders")).status == 404
    assert ask(api, customer_path("fresh", "/orders")).status == 200


def test_history_is_paged_from_the_newest_on(api: ServiceProcess, seeder: Seeder) -> None:
    models = ("0123456789abcdef", "fedcba9876543210")
    past = [predicted("c", float(at), events=at, model=model) for at in range(1, 8) for model in models]
    seeder.predictions(past)
    seeder.predictions([predicted("other", 1.0)])
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = ok(api, customer_path("c", "/history?limit=3") + (f"&cursor={cursor}" if cursor else ""))
        found += page["predictions"]
        cursor = page["next_cursor"]
    assert [each["expected_value"] for each in found] == [float(at) for at in range(7, 0, -1) for _ in models]
    assert {each["prediction_id"] for each in found} == {each.prediction_id for each in past}


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_is_complete_and_right(api: ServiceProcess, seeder: Seeder, sort: Sort) -> None:
    chance = random.Random(1)
    values = [chance.choice([0.0, 10.0, 50.0, 50.0, 120.0, 300.0, 1e6]) for _ in range(200)]
    seeder.predictions(
        predicted(f"c{at}", value, historical_value=chance.choice([None, -5.0, 0.0, 20.0, 20.0]))
        for at, value in enumerate(values)
    )
    field = sort.removeprefix("-")
    for query, wanted in (
        ("", lambda _: True),
        ("&segment=at_risk", lambda row: row["segment"] == "at_risk"),
        ("&min_value=10&max_value=120", lambda row: 10 <= row["expected_value"] <= 120),
        ("&q=c1", lambda row: row["customer_id"].startswith("c1")),
    ):
        rows = [row for row in walk(api, "sort=-expected_value", 500) if wanted(row)]
        found = list(walk(api, f"sort={sort}{query}", 7))

        def key(row: dict[str, Any]) -> tuple[bool, Any, bytes]:
            return row[field] is not None, row[field] or 0, row["customer_id"].encode()

        assert found == sorted(rows, key=key, reverse=sort.startswith("-"))
        assert ok(api, f"/v1/customers?sort={sort}{query}")["total"] == len(rows)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("segment", [None, "at_risk"])
def test_every_order_is_read_from_an_index_without_sorting(
    seeder: Seeder, mongo: LocalMongo, sort: Sort, segment: str | None
) -> None:
    seeder.predictions(predicted(f"c{at}", float(at)) for at in range(300))
    question = Question(sort, segment)
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        customers = client[seeder.database][CUSTOMERS]
        first = customers.find(question.wanted).sort(question.by.order).limit(10).to_list()
        for after, order in parts_after(question.by, position_in(first[-1], question.by)):
            both = {"$and": [question.wanted, after]} if question.wanted and after else question.wanted or after
            explained = customers.find(both, hint=question.best_index).sort(order).limit(10).explain()
            assert "'SORT'" not in str(explained["queryPlanner"]["winningPlan"]), explained
            assert "COLLSCAN" not in str(explained["queryPlanner"]["winningPlan"])
            if sort != "customer_id":  # there, one segment is a filter on the way
                assert explained["executionStats"]["totalDocsExamined"] <= 10 + 4


def test_who_does_not_change_is_listed_once_whatever_is_written_meanwhile(api: ServiceProcess, seeder: Seeder) -> None:
    chance = random.Random(2)
    still = [f"still{at}" for at in range(300)]
    seeder.predictions(predicted(name, float(chance.randrange(20))) for name in still)
    restless = [f"restless{at}" for at in range(300)]
    over, events = threading.Event(), 1

    def churn() -> None:
        nonlocal events
        while not over.is_set():
            events += 1
            seeder.predictions(
                [predicted(name, float(chance.randrange(20)), events=events) for name in restless],
                NOW + timedelta(hours=events),
            )

    writing = threading.Thread(target=churn)
    writing.start()
    try:
        for sort in ("-expected_value", "expected_value", "-updated_at", "customer_id"):
            found = [row["customer_id"] for row in walk(api, f"sort={sort}", 11)]
            seen = [name for name in found if name.startswith("still")]
            assert len(seen) == len(set(seen))
            assert set(seen) == set(still)
    finally:
        over.set()
        writing.join()


@pytest.mark.parametrize(
    "cursor", ["x", "=", "Zm9v", "W10", "WyJhIiwxLCJiIl0", "%00", "WyIiLG51bGwsMV0", "A" * 3000, "é"]
)
def test_a_cursor_that_was_tampered_with_is_refused(api: ServiceProcess, seeder: Seeder, cursor: str) -> None:
    from urllib.parse import quote

    seeder.predictions(predicted(f"c{at}", float(at)) for at in range(3))
    answer = ask(api, f"/v1/customers?cursor={quote(cursor)}")
    assert answer.status == 400
    assert "cursor" in answer.body["detail"]


def test_a_cursor_is_of_no_use_for_another_question(api: ServiceProcess, seeder: Seeder) -> None:
    seeder.predictions(predicted(f"c{at}", float(at)) for at in range(3))
    cursor = ok(api, "/v1/customers?limit=1&sort=-expected_value")["next_cursor"]
    assert ask(api, f"/v1/customers?limit=1&sort=-p_active&cursor={cursor}").status == 400
    assert ask(api, f"/v1/customers?limit=1&sort=-expected_value&segment=at_risk&cursor={cursor}").status == 400
    assert ask(api, customer_path("c1", f"/history?cursor={cursor}")).status == 400
    assert ask(api, f"/v1/customers?limit=2&sort=-expected_value&cursor={cursor}").status == 200


def test_csv_holds_all_that_match_and_no_formula(api: ServiceProcess, seeder: Seeder) -> None:
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", 'quo"te,comma', "zoë"]
    names += [f"c{at}" for at in range(2_500)]
    seeder.predictions(predicted(name, float(at % 400)) for at, name in enumerate(names))
    for path, headers in (("/v1/customers?format=csv", {}), ("/v1/customers", {"accept": "text/csv"})):
        answer = ask(api, path, **headers)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/csv")
        assert "attachment" in answer.headers["content-disposition"]
        rows = list(csv.DictReader(io.StringIO(answer.body, newline="")))
        assert list(rows[0]) == list(CustomerRow.model_fields)
        assert len(rows) == len(names)
        written = {row["customer_id"] for row in rows}
        assert {"'" + name for name in names[:4]} <= written
        assert {'quo"te,comma', "zoë"} <= written
        values = [float(row["expected_value"]) for row in rows]
        assert values == sorted(values, reverse=True)
        assert rows[0]["historical_value"] == ""
    few = list(csv.DictReader(io.StringIO(ask(api, "/v1/customers?format=csv&segment=high_value").body)))
    assert few
    assert all(row["segment"] == "high_value" for row in few)
    assert ask(api, "/v1/customers", accept="application/json, text/csv;q=0.5").body["total"] == len(names)


def test_what_mongodb_acknowledged_is_what_is_read(api: ServiceProcess, seeder: Seeder) -> None:
    for at in range(1, 40):
        seeder.predictions([predicted("c", float(at), events=at)])
        assert ok(api, customer_path("c"))["prediction"]["expected_value"] == float(at)
        assert ok(api, "/v1/customers")["customers"][0]["expected_value"] == float(at)


@pytest.mark.parametrize(
    "query",
    ["sort=name", "limit=0", "limit=501", "segment=best", "min_value=-1", "min_value=nan", "min_value=x", "format=xml"],
)
def test_what_cannot_be_asked_is_told_field_by_field(api: ServiceProcess, query: str) -> None:
    answer = ask(api, f"/v1/customers?{query}")
    assert answer.status == 422
    assert [each["field"] for each in answer.body["errors"]] == [query.partition("=")[0]]
