"""The dead-letter tool as a real process, on letters that a real ingest service wrote to real Kafka."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schemas.dead_letters import HEADER_REPLAYED
from schemas.orders import decode_order
from schemas.topics import CUSTOMER_EVENTS, ORDERS
from tests.conftest import ROOT, Service
from tests.integration.ingest_support import BAD, Headers, encoded, letters, post, publish, start
from tests.support import end_offsets, read_all, wait_for

pytestmark = pytest.mark.integration


def clv(bootstrap: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from cli.dead_letters import app; app()", *arguments]
    return subprocess.run(
        [*command, "--bootstrap-servers", bootstrap],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"COLUMNS": "200", "PATH": ""},
    )


def clv_json(bootstrap: str, *arguments: str) -> Any:
    done = clv(bootstrap, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_letters_are_listed_with_counts(topics: str, service: Service):
    publish(topics, [(b"k\x1b[31m", value, []) for value, _ in BAD])
    process = start(service, topics)
    post(process, encoded(1, amount="0"))
    letters(topics, len(BAD) + 1)

    found = clv_json(topics, "list", "--limit", "1000")
    assert found["total"] == len(found["letters"]) == len(BAD) + 1
    assert found["by_reason"]["invalid_json"] == 2
    assert {letter["origin"]["topic"] for letter in found["letters"]} == {CUSTOMER_EVENTS, "http"}
    times = [letter["time"] for letter in found["letters"]]
    assert times == sorted(times)

    found = clv_json(topics, "list", "--reason", "message_too_large")
    assert found["total"] == 1
    assert found["letters"][0]["value_bytes"] > 5_000_000
    assert len(clv_json(topics, "list", "--limit", "2")["letters"]) == 2

    shown = clv(topics, "list")
    assert shown.returncode == 0
    assert "future_date" in shown.stdout
    assert "\x1b[31m" not in shown.stdout
    assert f"{len(BAD) + 1} dead letters" in shown.stdout


def test_letters_are_replayed_once_and_as_they_were(topics: str, service: Service):
    headers: Headers = [("traceparent", b"\x00\xff"), ("nothing", None)]
    publish(topics, [(b"k1", encoded(1, currency="EUR"), headers), (b"k2", encoded(2, amount="-1"), [])])
    process = start(service, topics)
    assert post(process, encoded(3, currency="EUR"))[0] == 400
    letters(topics, 3)

    assert clv_json(topics, "replay", "--dry-run")["replayed"] == 3
    assert len(read_all(topics, CUSTOMER_EVENTS)) == 2
    process.stop()  # until the rates are there
    done = clv_json(topics, "replay", "--reason", "unknown_currency")
    assert (done["replayed"], done["by_reason"], done["already_replayed"]) == (2, {"unknown_currency": 2}, 0)

    again = {
        each.key(): each for each in read_all(topics, CUSTOMER_EVENTS) if HEADER_REPLAYED in dict(each.headers() or [])
    }
    assert again.keys() == {b"k1", None}
    assert again[b"k1"].value() == encoded(1, currency="EUR")
    assert [each for each in again[b"k1"].headers() if each[0] != HEADER_REPLAYED] == headers
    assert again[None].value() == encoded(3, currency="EUR")

    done = clv_json(topics, "replay", "--reason", "unknown_currency")
    assert (done["replayed"], done["already_replayed"]) == (0, 2)
    assert clv_json(topics, "replay")["by_reason"] == {"non_positive_amount": 1}
    assert clv_json(topics, "replay")["replayed"] == 0
    assert [each["replayed"] for each in clv_json(topics, "list")["letters"]] == [True, True, True]

    rates = Path(process.log_path).with_name("rates.csv")
    rates.write_text("date,currency,rate\n2024-01-01,EUR,2\n")
    start(service, topics, CLV_INGEST_RATES_FILE=str(rates))
    records = [decode_order(record.value()) for record in read_all(topics, ORDERS, 2)]
    assert {(record.order_id, record.amount_minor) for record in records} == {("o1", 2468), ("o3", 2468)}
    wait_for(lambda: clv_json(topics, "list")["total"] == 4, "the other one to come back")
    done = clv_json(topics, "replay", "--dry-run")
    assert (done["by_reason"], done["already_replayed"]) == ({"non_positive_amount": 1}, 3)


def test_a_replay_that_is_killed_goes_on_where_it_was(topics: str, service: Service):
    publish(topics, [(None, encoded(number, amount="0"), []) for number in range(3000)])
    process = start(service, topics)
    letters(topics, 3000)
    process.stop()
    command = [sys.executable, "-c", "from cli.dead_letters import app; app()", "replay", "--bootstrap-servers", topics]
    for _ in range(2):
        before = end_offsets(topics, CUSTOMER_EVENTS)
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        wait_for(partial(grown, topics, before + 150, running), "the replay to be on its way")
        running.kill()
        running.wait()
    assert clv(topics, "replay").returncode == 0
    replayed = [
        json.loads(each.value())["order_id"]
        for each in read_all(topics, CUSTOMER_EVENTS)
        if HEADER_REPLAYED in dict(each.headers() or [])
    ]
    assert len(replayed) == 3000
    assert len(set(replayed)) == 3000


def grown(bootstrap: str, size: int, process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is not None or end_offsets(bootstrap, CUSTOMER_EVENTS) > size


def test_without_kafka_the_tool_says_so_in_one_line():
    for command in ("list", "replay"):
        done = clv("localhost:1", command)
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
        assert "no Kafka broker answers at localhost:1" in done.stderr
