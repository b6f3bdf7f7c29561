"""The dashboard in a real browser, before the real API, MongoDB, Kafka and services: a real task on every page.

Pictures of every page are kept in .clv/screenshots.
"""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from cli.demo_data import load_demo_data
from cli.platform import Platform
from services.dashboard.formatting import SEGMENTS, money, percent
from services.runtime.http.key_file import Scope, encode_keys, new_key
from tests.e2e.dashboard_site import (
    FOCUS_IS_SEEN,
    NAME_OF_FOCUSED,
    NAMELESS,
    PAGES,
    PHONE,
    SECONDS,
    TOO_WIDE,
    Site,
    browser,
    chromium,
    screenshots,
    start_dashboard,
)
from tests.support import produce, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LAST_DAY = "1998-06-30"
PARTS = 5


@pytest.fixture(scope="module")
def site(cdnow_slice: Path, cdnow_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A slice of CDNOW, whose orders have come in a few parts, so that predictions have a past."""
    chromium()
    folder = tmp_path_factory.mktemp("dashboard")
    data = load_demo_data(cdnow_slice, {}, "USD", lambda _: None)
    settings = {
        "CLV_FEATURES_CLOCK": "event",
        "CLV_FEATURES_REFRESH_SECONDS": "0",
        "CLV_SCORER_THRESHOLDS_SECONDS": "1",
        "CLV_API_SUMMARY_SECONDS": "0.5",
        "CLV_API_WHAT_IF_WAIT_MS": "5000",
    }
    services = ("ingest", "features", "scorer", "sink", "api")
    with ExitStack() as stack:
        platform = stack.enter_context(
            Platform(cdnow_models, folder, settings=settings, names=services, usual_ports=False)
        )
        dashboard, url = start_dashboard(platform.url("api"), folder / "dashboard.log")
        stack.callback(dashboard.kill)
        running = Site(platform, dashboard, url, stack.enter_context(browser()))
        published = 0
        events = data.events
        for part in range(PARTS):
            chunk = events[len(events) * part // PARTS : len(events) * (part + 1) // PARTS]
            publish(platform, chunk)
            published += len(chunk)
            known = {str(event["customer_id"]) for event in events[:published] if float(str(event["amount"])) > 0}
            wait_for(lambda: running.api("/v1/segments")["customers"] >= len(known), "all customers", SECONDS)  # noqa: B023
            wait_for(lambda: not any(lag["records"] for lag in running.api("/v1/live")["lags"]), "no lag", SECONDS)
        yield running


def publish(platform: Platform, events: list[Any]) -> None:
    values = [(None, json.dumps(event).encode()) for event in events]
    produce(platform.addresses.kafka_bootstrap_servers, "clv.customer-events.v1", values)


def order(customer_id: str, amount: str = "49.90") -> dict[str, Any]:
    return {
        "event_id": f"e-{customer_id}",
        "event_type": "order.placed",
        "occurred_at": f"{LAST_DAY}T12:00:00Z",
        "customer_id": customer_id,
        "order_id": f"o-{customer_id}",
        "amount": amount,
        "currency": "USD",
    }


def best(site: Site) -> dict[str, Any]:
    """The customer of the highest expected value."""
    row: dict[str, Any] = site.api("/v1/customers", sort="-expected_value", limit=1)["customers"][0]
    return row


def test_a_marketer_describes_a_customer_and_learns_value_place_and_reasons(site):
    with site.visit() as visit:
        visit.go("/")
        visit.says("Next 120 days", "Among all customers", "What moved it", "The 18 features behind it")
        page = visit.page
        assert re.search(r"Age\s+unknown", visit.text())
        page.get_by_label("Orders", exact=True).fill("1")
        page.get_by_role("button", name="Predict value").click()
        visit.says("Please correct the form", "that order is the first and the last")
        page.get_by_label("Orders", exact=True).fill("4")
        page.get_by_label("Average order value", exact=True).fill("80")
        page.get_by_label("Age in years (optional)", exact=True).fill("52")
        page.get_by_role("button", name="Predict value").click()
        visit.says("4 orders of $80.00 on average", "kept as a what-if prediction")
        visit.settle()
        text = visit.text()
        assert "Please correct" not in text
        assert re.search(r"Expected value\s+\$[\d,]+\.\d\d", text)
        assert re.search(r"8 of 10: \$[\d,]+\.\d\d to \$[\d,]+\.\d\d", text)
        assert re.search(r"Will order again\s+[\d.<>]+%", text)
        assert any(name in text for name in SEGMENTS.values())
        assert re.search(r"Average order value\s+\$80\.00", text)
        assert re.search(r"Total spending\s+\$320\.00", text)
        assert re.search(r"Age\s+52 years", text)
        table = page.get_by_role("table", name="The 18 engineered features")
        assert table.locator("tbody tr").count() == 18
        visit.says("“Orders per month” is 0.8")  # what does not fit together is said
        page.get_by_label("Orders per month", exact=True).fill("0.36")
        page.get_by_label("Age in years (optional)", exact=True).fill("")
        page.get_by_role("button", name="Predict value").click()
        expect(page.get_by_text("“Orders per month” is")).to_have_count(0, timeout=SECONDS * 1000)
        visit.settle()
        wait_for(lambda: visit.charts() == 3, "interval, distribution and waterfall", SECONDS)
        visit.picture("predict", 1640)


def test_the_form_is_filled_in_and_sent_with_the_keyboard_alone(site):
    with site.visit() as visit:
        visit.go("/")
        visit.says("What moved it")
        keyboard = visit.page.keyboard
        seen: list[str] = []

        for _ in range(40):
            keyboard.press("Tab")
            seen.append(str(visit.page.evaluate(NAME_OF_FOCUSED)))
            assert visit.page.evaluate(FOCUS_IS_SEEN), f"focus cannot be seen on {seen[-1]!r}"
            if seen[-1] == "Orders":
                keyboard.press("Control+A")
                keyboard.type("6")
            if seen[-1] == "Average order value":
                keyboard.press("Control+A")
                keyboard.type("12.50")
                keyboard.press("Enter")
                break
        assert {"Predict", "Model"} <= {name.splitlines()[-1].strip() for name in seen}, seen
        visit.says("6 orders of $12.50 on average")


def test_a_customer_is_found_by_the_beginning_of_the_id_and_explained(site):
    row = best(site)
    customer_id = row["customer_id"]
    customer = site.api(f"/v1/customers/{customer_id}")
    with site.visit() as visit:
        visit.go("/customer")
        visit.says(f"Customer {customer_id}")  # the most valuable comes first
        search = visit.page.get_by_label("Customer id", exact=True)
        search.fill("no-such")
        search.press("Enter")
        visit.says("No such customer")
        search.fill(customer_id[:3])
        search.press("Enter")
        visit.says("found")
        visit.settle()
        search.fill(customer_id)
        search.press("Enter")
        visit.says(f"Customer {customer_id}", "1 customer found", "Over time", "What moved it")
        visit.settle()
        text = visit.text()
        now = customer["prediction"]
        for amount in (now["expected_value"], now["value_p90"], now["historical_value"]):
            assert money(amount, "USD") in text
        assert percent(now["p_active"]) in text
        assert f"id={customer_id}" in visit.page.url
        wait_for(lambda: visit.charts() == 5, "interval, three timelines and the waterfall", SECONDS)
        visit.picture("customer", 1700)
        visit.page.get_by_role("radio", name="Will order again").or_(
            visit.page.get_by_role("button", name="Will order again")
        ).first.click()
        visit.says("points")
        visit.page.get_by_text(re.compile(r"^Orders: \d")).click()
        orders = visit.page.get_by_role("table", name="Orders, the newest first")
        orders.wait_for()
        assert orders.locator("tbody tr").count() == len(site.api(f"/v1/customers/{customer_id}/orders")["orders"])


def test_segments_are_read_filtered_and_taken_away_as_csv(site, tmp_path):
    segments = site.api("/v1/segments")
    with site.visit() as visit:
        visit.go("/segments")
        visit.says("Movement between two days", "Lists")
        visit.settle()
        text = visit.text()
        assert f"{segments['customers']:,}" in text
        assert money(segments["expected_value"], "USD", whole=True) in text
        table = visit.page.get_by_role("table", name="Segments", exact=True)
        for part, line in zip(segments["segments"], table.locator("tbody tr").all(), strict=True):
            assert SEGMENTS[part["segment"]] in line.inner_text()
            assert f"{part['customers']:,}" in line.inner_text()
        wait_for(lambda: visit.charts() >= 2, "shares and distribution", SECONDS)
        visit.picture("segments", 1500)
        total = next(part["customers"] for part in segments["segments"] if part["segment"] == "high_value")
        visit.pick("Segment", "High value")
        visit.says(f"Export {total:,} as CSV")
        if total > 25:
            visit.page.get_by_role("button", name="Next").click()
            visit.says("26 to")
        visit.settle()
        with visit.page.expect_download() as waiting:
            visit.page.get_by_role("link", name=re.compile("as CSV")).click()
        waiting.value.save_as(tmp_path / "list.csv")
        rows = list(csv.DictReader((tmp_path / "list.csv").read_text().splitlines()))
        assert len(rows) == len({row["customer_id"] for row in rows}) == total
        assert {row["segment"] for row in rows} == {"high_value"}


def test_movement_between_two_days_is_that_of_the_api(site):
    with site.visit() as visit:
        visit.go("/segments")
        visit.says("Movement between two days")
        visit.settle()
        said = re.search(
            r"Of ([\d,]+) customers? known on (.+?), .+? in the same segment on (.+?); (\S+) customers? came new",
            visit.text(),
        )
        assert said is not None, visit.text()
        begin, end = (datetime.strptime(f"{text} +0000", "%d %b %Y %z").date().isoformat() for text in said.group(2, 3))
        moved = site.api("/v1/segments", **{"from": begin, "to": end})["migration"]
        known = sum(flow["customers"] for flow in moved["flows"] if flow["from_segment"] is not None)
        new = sum(flow["customers"] for flow in moved["flows"] if flow["from_segment"] is None)
        assert known > 0
        assert said.group(1, 4) == (f"{known:,}", f"{new:,}" if new else "no")


def test_an_order_and_a_broken_message_appear_live_without_reloading(site):
    with site.visit() as visit:
        visit.go("/live")
        visit.says("Latest predictions", "Waiting to be processed")
        visit.page.evaluate("() => { window.neverReloaded = true }")
        broken = b'{"event_type":"order.eaten"}'
        produce(site.platform.addresses.kafka_bootstrap_servers, "clv.customer-events.v1", [(None, broken)])
        for begin in range(0, 24, 8):
            publish(site.platform, [order(f"live-{n}", f"{5 + 3 * n}.90") for n in range(begin, begin + 8)])
            visit.page.wait_for_timeout(1500)
        publish(site.platform, [order("live-42")])
        latest = visit.page.get_by_role("table", name="The latest predictions, the newest first")
        expect(latest.get_by_role("link", name="live-42")).to_be_visible(timeout=SECONDS * 1000)
        visit.says("unknown event type", "Predictions per second")
        assert visit.page.evaluate("() => window.neverReloaded") is True
        wait_for(lambda: visit.charts() == 1, "the rate", SECONDS)
        visit.picture("live", 1320)
        latest.get_by_role("link", name="live-42").click()
        visit.says("Customer live-42")


def test_the_models_quality_drift_and_card_are_shown(site):
    version = site.api("/v1/models")["champion"]
    detail = site.api(f"/v1/models/{version}")
    with site.visit() as visit:
        visit.go("/model")
        visit.says("Quality beside simpler models", "Calibration", "Lift", "Drift", "Champion against challenger")
        visit.settle()
        table = visit.page.get_by_role("table", name="Quality on held-out days")
        lines = [line.inner_text() for line in table.locator("tbody tr").all()]
        assert lines[0].startswith("This model")
        assert len(lines) == len(detail["model"]["metrics"]["metrics"])
        assert money(detail["model"]["metrics"]["metrics"]["model"]["mae"], "USD") in lines[0]
        assert detail["deciles"]
        assert detail["gains"]
        assert detail["drift"]
        assert "No challenger is on trial" in visit.text()
        wait_for(lambda: visit.charts() == 3, "calibration, lift and drift", SECONDS)
        visit.picture("model", 1500)
        visit.page.get_by_text("Show it here").click()
        card = visit.page.frame_locator("iframe")
        card.get_by_text(version).first.wait_for()
        address = visit.page.get_by_role("link", name="Open the model card").get_attribute("href")
        answer = httpx.get(site.url + address, timeout=SECONDS)
        assert version in answer.text
        assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.long
def test_every_page_fits_a_telephone(site, name):
    with site.visit(width=PHONE) as visit:
        visit.go(PAGES[name])
        visit.settle()
        wait_for(lambda: visit.charts() > 0, "a chart", SECONDS)
        assert visit.page.evaluate(TOO_WIDE) == {"found": [], "page": 0, "main": 0}
        visit.picture(f"{name.lower()}-phone", 1500)


@pytest.mark.long
def test_every_widget_has_a_name_and_every_chart_words(site):
    with site.visit() as visit:
        for name, path in PAGES.items():
            visit.go(path)
            wait_for(lambda: visit.charts() > 0, "a chart", SECONDS)
            assert visit.page.evaluate(NAMELESS) == [], name
            charts = visit.page.get_by_test_id("stVegaLiteChart").all()
            wordless = [
                chart.evaluate("e => e.outerHTML.slice(0, 300)")
                for chart in charts
                if not chart.evaluate("e => !!(e.ariaLabel || e.querySelector('[aria-label]'))")
            ]
            assert wordless == [], name


def test_a_dead_api_is_told_and_every_page_comes_back_with_it(site):
    api = site.platform.processes["api"]
    with site.visit() as visit, site.visit() as live:
        visit.go("/segments")
        visit.says("Lists")
        live.go("/live")
        live.says("Latest predictions")
        api.kill()
        try:
            visit.choose("Model")
            visit.says("The API does not answer", "This page comes back by itself")
            live.says("The API does not answer")
            visit.picture("api-away")
        finally:
            api.start()
        visit.says("Quality beside simpler models")
        live.says("Latest predictions")
        expect(live.page.get_by_text("The API does not answer")).to_have_count(0, timeout=SECONDS * 1000)
        assert "The API does not answer" not in visit.text()


@pytest.mark.long
def test_a_refused_key_and_an_empty_shop_say_what_to_do(site, tmp_path):
    made = new_key("dashboard", [Scope.READ, Scope.PREDICT], datetime.now(UTC).replace(microsecond=0))
    (tmp_path / "keys").touch(mode=0o600)
    (tmp_path / "keys").write_text(encode_keys([made.record]))
    other = Platform(
        site.platform.models_dir,
        tmp_path,
        settings={"CLV_HTTP_KEYS_FILE": str(tmp_path / "keys"), "CLV_MONGO_DATABASE": "clv_empty"},
        usual_ports=False,
    )
    other.stack = site.platform.stack
    other.start_service("api")
    with ExitStack() as stack:
        stack.callback(other.processes["api"].kill)
        wait_for(lambda: other.is_ready("api"), "the second API", SECONDS)
        for key, log in (("clv_none_wrong", "refused.log"), (made.key, "empty.log")):
            process, url = start_dashboard(other.url("api"), tmp_path / log, CLV_DASHBOARD_API_KEY=key)
            stack.callback(process.kill)
            with site.visit(url=url) as visit:
                for path in ("/customer", "/segments", "/live"):
                    visit.go(path)
                    if key == made.key:
                        visit.says("No customers yet", "clv.customer-events.v1")
                    else:
                        visit.says("The API refused this dashboard's key", "CLV_DASHBOARD_API_KEY")
                visit.picture("empty" if key == made.key else "key-refused")
            assert made.key not in (tmp_path / log).read_text()


def test_it_stops_within_seconds_although_somebody_watches(site, tmp_path):
    process, url = start_dashboard(site.platform.url("api"), tmp_path / "dashboard.log")
    with site.visit(url=url) as visit:
        visit.go("/live")
        visit.says("Latest predictions")
        assert process.stop() == 0
        visit.wrong.clear()  # the browser has lost its server


def test_pictures_of_every_page_are_kept(site):
    names = {path.stem.removeprefix("dashboard-") for path in screenshots().glob("dashboard-*.png")}
    assert {name.lower() for name in PAGES} <= names
    assert {f"{name.lower()}-phone" for name in PAGES} <= names
