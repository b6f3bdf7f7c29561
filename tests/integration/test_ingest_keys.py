"""Ingest as a real process with API keys: who may send events, how fast, and for how long."""

import http.client
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.topics import ORDERS
from services.runtime.http.key_file import KeyRecord, Scope, encode_keys, new_key
from tests.conftest import ROOT, Service
from tests.integration.ingest_support import encoded, event, order_ids, post, start
from tests.support import http as fetch
from tests.support import metric, read_all, wait_for

pytestmark = pytest.mark.integration


def clv(*words: str, file: Path) -> str:
    """Output of ./clv api-keys."""
    done = subprocess.run(
        [sys.executable, "-m", "cli", "api-keys", *words, "--file", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def written(file: Path, *scopes: Scope, requests_per_second: float | None = None) -> tuple[str, KeyRecord]:
    """A key that was added to the file."""
    key, record = new_key("test", scopes, datetime.now(UTC), requests_per_second=requests_per_second)
    file.write_text((file.read_text() if file.exists() else "") + encode_keys([record]))
    file.chmod(0o600)
    return key, record


def test_events_are_taken_with_the_scope_and_until_the_key_is_revoked(topics: str, service: Service, tmp_path: Path):
    file = tmp_path / "keys.jsonl"
    key = clv("create", "--name", "shop", "--scopes", "ingest", file=file)
    reader, _ = written(file, Scope.READ)
    process = start(service, topics, CLV_HTTP_KEYS_FILE=str(file))  # ready: health needs no key

    assert post(process, encoded(1), x_api_key=key)[0] == 202
    assert post(process, encoded(2), authorization=f"Bearer {key}")[0] == 202
    for headers, expected in [({}, 401), ({"x_api_key": key + "0"}, 401), ({"x_api_key": reader}, 403)]:
        status, problem, answer = post(process, encoded(3), **headers, x_request_id="r-1")
        assert (status, problem["status"], problem["request_id"]) == (expected, expected, "r-1")
        assert answer["content-type"] == "application/problem+json"
        assert answer["www-authenticate"].startswith("Bearer")
        assert ("`ingest`" in problem["detail"]) == (expected == 403)
        large = json.dumps([event(number) for number in range(100)] + ["x" * 5_000_000]).encode()
        assert post(process, large, **headers)[0] == expected, "whoever sends much reads the answer, too"
    assert order_ids(read_all(topics, ORDERS)) == {"o1", "o2"}

    assert fetch(process, "/healthz")[0] == 200
    assert metric(process, "clv_http_requests_total", service="ingest", route="/v1/events", status="403") == 2
    assert metric(process, "clv_http_requests_total", service="ingest", status="401") == 4
    assert fetch(process, "/v1/nowhere")[0] == 401

    clv("revoke", key.split("_")[1], file=file)
    wait_for(lambda: post(process, encoded(4), x_api_key=key)[0] == 401, "the key to open nothing", 10)
    file.write_text("broken")
    later, _ = written(file, Scope.INGEST)

    def told() -> bool:
        assert post(process, encoded(5), x_api_key=reader)[0] == 403, "the keys read last stay in use"
        return "keys_file_unusable" in process.log_tail(50)

    wait_for(told, "the broken file to be told of", 20)
    assert post(process, encoded(5), x_api_key=later)[0] == 401
    assert key not in process.log_tail(1000)


def test_each_key_is_let_through_at_its_own_rate(topics: str, service: Service, tmp_path: Path):
    file = tmp_path / "keys.jsonl"
    slow, _ = written(file, Scope.INGEST, requests_per_second=0.02)
    other, _ = written(file, Scope.INGEST)
    process = start(
        service,
        topics,
        CLV_HTTP_KEYS_FILE=str(file),
        CLV_HTTP_REQUESTS_PER_SECOND="0.1",
        CLV_HTTP_BURST="10",
    )
    found = [post(process, encoded(number), x_api_key=slow) for number in range(4)]
    assert [status for status, _, _ in found] == [202, 202, 429, 429]
    assert 0 < int(found[-1][2]["retry-after"]) <= 50
    assert [post(process, encoded(n), x_api_key=other)[0] for n in range(10, 20)] == [202] * 10
    assert order_ids(read_all(topics, ORDERS)) == {f"o{number}" for number in (0, 1, *range(10, 20))}


def test_a_body_in_chunks_is_bounded_too(topics: str, service: Service):
    process = start(service, topics, CLV_INGEST_MAX_REQUEST_BYTES="200000")
    for size, expected in [(190_000, 202), (200_001, 413), (30_000_000, 413)]:
        body = encoded(1, filler="x" * (size - len(encoded(1, filler=""))))
        connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
        pieces = (body[at : at + 65_536] for at in range(0, size, 65_536))
        connection.request("POST", "/v1/events", pieces, {"content-type": "application/json"}, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == expected, answer.read()
        connection.close()


def test_a_keys_file_that_cannot_be_used_is_said_at_start(service: Service, tmp_path: Path):
    (tmp_path / "keys").write_text("{}\n")
    for env, part in [
        ({"CLV_HTTP_KEYS_FILE": str(tmp_path / "keys")}, "line 1"),
        ({"CLV_HTTP_KEYS_FILE": str(tmp_path / "nowhere")}, "No such file"),
        ({"CLV_HTTP_KEY_FILE": str(tmp_path / "keys")}, "did you mean CLV_HTTP_KEYS_FILE"),
        ({"CLV_HTTP_CORS_ORIGINS": "*"}, "no origin"),
    ]:
        process = service("ingest", env=env, wait=False)
        assert process.wait(60) == 1
        assert part in process.log_tail()
        assert "Traceback" not in process.log_tail(200)
