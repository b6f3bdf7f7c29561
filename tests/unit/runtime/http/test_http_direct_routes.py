"""What answers without the framework is bounded, identified, counted and told of as everything else."""

from prometheus_client import REGISTRY

from services.runtime.http.api_keys import Scope
from tests.unit.runtime.http.application import BODY_BYTES_MAX, SECRET, build, client_of, write_keys

PATH = "/v1/direct"


async def test_it_answers_post_and_nothing_else():
    async with client_of(build()) as client:
        answer = await client.post(PATH, content=b"x")
        assert (answer.status_code, answer.content) == (200, b"x")
        assert answer.headers["x-request-id"]
        assert answer.headers["cache-control"] == "no-store"
        assert (await client.get(PATH)).status_code == 404


async def test_what_it_refuses_and_where_it_fails_are_problems():
    async with client_of(build()) as client:
        refused, failed = await client.post(PATH, content=b"refuse"), await client.post(PATH, content=b"fail")
        large = await client.post(PATH, content=b"x" * (BODY_BYTES_MAX + 1))
    assert [each.status_code for each in (refused, failed, large)] == [409, 500, 413]
    assert refused.json()["detail"] == "it is there already"
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert all(each.headers["content-type"] == "application/problem+json" for each in (refused, failed, large))
    assert SECRET not in failed.text


async def test_it_asks_for_keys_and_their_scopes(tmp_path):
    (able, unable) = write_keys(tmp_path / "keys", {"scopes": [Scope.PREDICT]}, {"scopes": [Scope.READ]})
    async with client_of(build(tmp_path / "keys")) as client:
        statuses = [
            (await client.post(PATH, content=b"x", headers=headers)).status_code
            for headers in ({"x-api-key": able}, {"x-api-key": unable}, {})
        ]
    assert statuses == [200, 403, 401]


async def test_it_is_counted_under_its_path():
    def counted() -> float:
        labels = {"service": "test", "route": PATH, "status": "200"}
        return REGISTRY.get_sample_value("clv_http_requests_total", labels) or 0.0

    before = counted()
    async with client_of(build()) as client:
        await client.post(PATH, content=b"x")
    assert counted() == before + 1
