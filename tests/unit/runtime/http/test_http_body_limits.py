"""No body is larger than its bound, however it comes; and who sends one reads the answer."""

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.runtime.health import HttpServer
from tests.unit.runtime.http.application import BODY_BYTES_MAX, build, client_of, write_keys


async def chunked(total: int, each: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, total, each):
        yield b"x" * min(each, total - start)


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("path", ["/v1/large", "/v1/unread", "/nowhere", "/v1/forms"])
async def test_the_bound_of_the_path_holds(path: str, in_chunks: bool):
    bound = 10 * BODY_BYTES_MAX if path == "/v1/large" else BODY_BYTES_MAX
    async with client_of(build()) as client:
        for size, too_large in [(bound, False), (bound + 1, True)]:
            content = chunked(size) if in_chunks else b"x" * size
            answer = await client.post(path, content=content, headers={"content-type": "application/json"})
            read = path in ("/v1/large", "/v1/forms")
            assert (answer.status_code == 413) == (too_large and (read or not in_chunks)), (size, answer.text)
            if answer.status_code == 413:
                assert str(bound) in answer.json()["detail"]


async def test_a_body_that_is_longer_than_it_said_is_stopped():
    """Servers do not let it through; the bound does not depend on that."""
    app, sent = build(), []
    chunks = iter([b"x" * BODY_BYTES_MAX, b"x", b"x" * 70_000_000])

    async def receive():
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    async def send(message):
        sent.append(message)

    headers = [(b"content-length", b"10"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/forms", "headers": headers, "query_string": b""}
    await app(
        scope | {"client": ("192.0.2.1", 1), "scheme": "http", "server": ("x", 1), "root_path": ""}, receive, send
    )
    assert sent[0]["status"] == 413


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(port: int, path: str, body: bytes | Iterator[bytes], **headers: str) -> int:
    """As clients do that read no answer before they have sent everything."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        named = {"content-type": "application/json"} | {name.replace("_", "-"): each for name, each in headers.items()}
        connection.request("POST", path, body, named)
        answer = connection.getresponse()
        assert answer.read()
        return answer.status
    finally:
        connection.close()


async def test_who_is_refused_before_the_body_was_read_still_reads_the_answer(tmp_path: Path):
    reader, forms, slow = write_keys(
        tmp_path / "keys",
        {"scopes": ["read"]},
        {"scopes": ["predict"]},
        {"scopes": ["predict"], "requests_per_second": 0.001},
    )
    app = build(tmp_path / "keys", http_burst=1_000_000)
    app_slow = build(tmp_path / "keys", http_requests_per_second=0.001, http_burst=1)
    large = b"x" * 20_000_000
    for served, path, headers, wanted in [
        (app, "/v1/forms", {"x_api_key": forms}, {413}),
        (app, "/v1/forms", {}, {401}),
        (app, "/v1/unread", {"x_api_key": reader}, {200, 413}),  # in chunks, nobody saw how long it is
        (app_slow, "/v1/forms", {"x_api_key": slow}, {413, 429}),
    ]:
        found = set()
        async with HttpServer(served, "127.0.0.1", port := free_port()):
            for body in (large, (large[:100_000] for _ in range(200))):
                found.add(await asyncio.to_thread(post, port, path, body, **headers))
        assert found == wanted, path
