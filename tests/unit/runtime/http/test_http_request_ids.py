"""One name for a request, wherever it is spoken of."""

import re

import pytest
from structlog.contextvars import get_contextvars

from tests.unit.runtime.http.application import build, client_of

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize("sent", ["a", "request-1", "A.b:c_D-9", "x" * 128])
async def test_a_well_formed_id_is_taken(sent: str):
    async with client_of(build()) as client:
        answer = await client.get("/nowhere", headers={"x-request-id": sent})
    assert answer.headers.get_list("x-request-id") == [sent]
    assert answer.json()["request_id"] == sent


@pytest.mark.parametrize("sent", ["", "a b", "a\\nb", "x" * 129, "é".encode().decode("latin-1"), 'a"b', "a\x85"])
async def test_what_is_no_id_is_replaced_and_reaches_no_log(sent: str):
    async with client_of(build()) as client:
        answer = await client.get("/v1/logged", headers={"x-request-id": sent.encode("latin-1")})
    made = answer.headers["x-request-id"]
    assert MADE.fullmatch(made)
    assert answer.json()["request_id"] == made


async def test_an_id_that_was_not_sent_is_made_and_differs_each_time():
    async with client_of(build()) as client:
        found = {(await client.get("/v1/logged")).headers["x-request-id"] for _ in range(50)}
    assert len(found) == 50
    assert all(MADE.fullmatch(each) for each in found)


async def test_log_lines_of_a_request_carry_its_id_and_later_ones_do_not():
    async with client_of(build()) as client:
        answer = await client.get("/v1/logged", headers={"x-request-id": "mine"})
    assert answer.json()["request_id"] == "mine"
    assert "request_id" not in get_contextvars()
