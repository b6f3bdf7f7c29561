"""The endpoints that orchestrators and Prometheus ask, over real sockets."""

import asyncio
import socket

import httpx
import pytest

from services.runtime.health import Health, HttpServer, health_app
from services.runtime.telemetry import Metric


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def get(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        return await client.get(path)


async def test_a_service_is_alive_before_it_is_ready():
    health, problem = Health(), ["still connecting"]
    health.add("kafka", lambda: problem[0] if problem else None)
    health.add("model", lambda: None)
    async with HttpServer(health_app(health), "127.0.0.1", port := free_port()):
        assert (await get(port, "/healthz")).status_code == 200
        ready = await get(port, "/readyz")
        assert ready.status_code == 503
        assert ready.json() == {"status": "not ready", "problems": {"kafka": "still connecting"}}
        problem.clear()
        ready = await get(port, "/readyz")
        assert ready.status_code == 200
        assert ready.json() == {"status": "ready", "problems": {}}


async def test_work_that_ended_with_an_error_makes_the_service_neither_alive_nor_ready():
    health = Health()
    async with HttpServer(health_app(health), "127.0.0.1", port := free_port()):
        health.failed = "the consumer ended"
        alive = await get(port, "/healthz")
        assert alive.status_code == 503
        assert alive.json()["problem"] == "the consumer ended"
        assert (await get(port, "/readyz")).json()["problems"] == {"service": "the consumer ended"}


async def test_metrics_are_in_prometheus_text_format():
    Metric("counter", "all", "clv_test_health_total", "1", "Test.").inc()
    async with HttpServer(health_app(Health()), "127.0.0.1", port := free_port()):
        answer = await get(port, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "\nclv_test_health_total 1.0\n" in answer.text


async def test_a_port_in_use_is_said_in_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = HttpServer(health_app(Health()), "127.0.0.1", port)
        with pytest.raises(OSError, match=rf"port {port} on 127\.0\.0\.1 is in use"):
            await asyncio.wait_for(server.__aenter__(), 5)


async def test_the_port_is_free_again_after_the_server_ends():
    port = free_port()
    for _ in range(2):
        async with HttpServer(health_app(Health()), "127.0.0.1", port):
            assert (await get(port, "/healthz")).status_code == 200
    with pytest.raises(httpx.ConnectError):
        await get(port, "/healthz")
