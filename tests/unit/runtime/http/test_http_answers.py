"""What every answer carries, what browsers may do, and what is counted."""

import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from services.runtime.http.settings import HttpSettings
from services.runtime.settings import SettingsError, load
from tests.unit.runtime.http.application import build, client_of, write_keys

ORIGIN = "https://shop.example"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}


@pytest.mark.parametrize("path", ["/v1/nested/1", "/nowhere", "/v1/fault", "/healthz", "/v1/nested/x"])
async def test_no_answer_may_be_stored_or_guessed_at(path: str):
    async with client_of(build()) as client:
        headers = (await client.get(path)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]


async def test_a_route_may_say_otherwise():
    async with client_of(build()) as client:
        assert (await client.get("/v1/cached")).headers.get_list("cache-control") == ["max-age=60"]


async def test_browsers_of_other_origins_may_do_nothing_by_default():
    async with client_of(build()) as client:
        preflight = await client.options("/v1/forms", headers=PREFLIGHT)
        answer = await client.get("/v1/nested/1", headers={"origin": ORIGIN})
    assert preflight.status_code == 405
    assert not [name for each in (preflight, answer) for name in each.headers if name.startswith("access-control")]


async def test_pages_of_the_origins_that_are_set_may_call_and_others_may_not(tmp_path):
    write_keys(tmp_path / "keys", {})
    async with client_of(build(tmp_path / "keys", http_cors_origins=(ORIGIN,))) as client:
        preflight = await client.options("/v1/forms", headers=PREFLIGHT)
        assert preflight.status_code == 200  # a preflight carries no key
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        refused = await client.get("/v1/nested/1", headers={"origin": ORIGIN})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
        assert "X-Request-Id" in refused.headers["access-control-expose-headers"]
        other = await client.options("/v1/forms", headers=PREFLIGHT | {"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_requests_are_counted_by_route_and_never_by_what_a_client_chose():
    def counted(**labels: str) -> float:
        found = REGISTRY.get_sample_value("clv_http_requests_total", {"service": "test", **labels})
        return found or 0.0

    nested = {"route": "/v1/nested/{number}"}
    before = [counted(**nested, status="200"), counted(route="none", status="404"), counted(**nested, status="405")]
    async with client_of(build()) as client:
        for number in range(5):
            await client.get(f"/v1/nested/{number}")
            await client.get(f"/v1/unknown-{number}")
            await client.put(f"/v1/nested/{number}")
        await client.get("/metrics")
    after = [counted(**nested, status="200"), counted(route="none", status="404"), counted(**nested, status="405")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [5, 5, 5]
    routes = {
        sample.labels["route"]
        for metric in REGISTRY.collect()
        if metric.name in ("clv_http_requests", "clv_http_seconds")
        for sample in metric.samples
        if sample.labels["service"] == "test"
    }
    assert not any("unknown" in each or each == "/metrics" for each in routes)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLV_HTTP_CORS_ORIGINS", f"{ORIGIN}, https://b.example")
    monkeypatch.setenv("CLV_HTTP_REQUESTS_PER_SECOND", "2.5")
    found = load(HttpSettings, "anything")
    assert found.http_cors_origins == (ORIGIN, "https://b.example")
    assert found.http_requests_per_second == 2.5
    assert found.http_trusted_proxies == ()


@pytest.mark.parametrize("origin", ["*", "shop.example", "https://shop.example/", "https://shop.example/path"])
def test_an_origin_is_a_scheme_and_a_host(origin: str):
    with pytest.raises(ValidationError, match="origin"):
        HttpSettings(http_cors_origins=(origin,))


@pytest.mark.parametrize("proxy", ["proxy.example", "10.0.0.0/99", "*"])
def test_a_proxy_is_an_address_or_a_network(proxy: str):
    with pytest.raises(ValidationError, match="network"):
        HttpSettings(http_trusted_proxies=(proxy,))


def test_a_typing_error_does_not_leave_everything_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLV_HTTP_KEY_FILE", "keys.jsonl")
    with pytest.raises(SettingsError, match="CLV_HTTP_KEYS_FILE"):
        load(HttpSettings, "anything")
