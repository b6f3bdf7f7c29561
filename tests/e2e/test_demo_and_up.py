"""`./clv demo` and `./clv up` as a user runs them: on a file of their own, on servers of their own, and when something
is missing."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from datetime import date, timedelta
from typing import Any

import psutil
import pytest

from deploy.local import binaries
from tests.conftest import ROOT
from tests.support import wait_for

pytestmark = pytest.mark.e2e


def clv(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, **kwargs)


def processes_with(variable: str, value: str) -> list[str]:
    """Processes that this variable was handed down to."""
    found = []
    for process in psutil.process_iter(["name", "environ"]):
        if (process.info["environ"] or {}).get(variable) == value:
            found.append(process.info["name"])
    return found


def test_the_demo_takes_the_users_own_file_and_leaves_nothing_behind(tmp_path):
    rows = ["kind,order_id,client,when,total,currency"]
    for n in range(1200):
        day = date(2024, 1, 1) + timedelta(days=(n * 37) % 500)
        rows.append(f"order,o{n},c{n * 7 % 211},{day.isoformat()},{5 + n % 90}.50,USD")
    rows += [
        "refund,o3,c21,2024-06-01,4.50,USD",
        "refund,,c21,2025-05-01 10:00,1.00,USD",
        "refund,,c21,2025-05-01 10:00,1.00,USD",
    ]
    rows += ["order,bad1,c1,2024-02-01,-5,USD", "order,bad2,c1,not a date,5,USD", "order,bad3,,2024-02-01,5,USD"]
    rows += ["order,bad4,c1,2024-02-01,5,XXX", "gift,bad5,c1,2024-02-01,5,USD", "order,,c1,2024-02-01,5,USD"]
    (tmp_path / "orders.csv").write_text("\n".join(rows) + "\n")
    mark = str(tmp_path)
    mapping = ["type=kind", "customer_id=client", "occurred_at=when", "amount=total"]
    arguments = [argument for pair in mapping for argument in ("--map", pair)]
    done = clv(
        "demo", "--orders", str(tmp_path / "orders.csv"), *arguments, "--exit", "--json", str(tmp_path / "s.json"),
        env={**os.environ, "DEMO_OF_TEST": mark},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["events_published"] == 1209
    assert summary["events_valid"] == 1203
    assert summary["dead_letters"] == {
        "non_positive_amount": 1,
        "invalid_timestamp": 1,
        "empty_customer_id": 1,
        "unknown_currency": 1,
        "unknown_event_type": 1,
        "missing_field": 1,
    }
    assert summary["recompute_mismatches"] == 0
    assert summary["customers"] == summary["mongo_customers"] == summary["predictions_topic_customers"] == 211
    assert sum(summary["segments"].values()) == 211
    assert processes_with("DEMO_OF_TEST", mark) == []


@pytest.mark.long
def test_the_demo_runs_twice_on_servers_named_in_the_environment(tmp_path, kafka, mongo, topics, cdnow_slice):
    few = cdnow_slice.read_text().splitlines()[:600]
    (tmp_path / "few.txt").write_text("\n".join(few) + "\n")
    named = {"CLV_KAFKA_BOOTSTRAP_SERVERS": topics, "CLV_MONGO_URI": mongo.uri}
    for _ in range(2):
        arguments = ["demo", "--orders", str(tmp_path / "few.txt"), "--exit", "--json", str(tmp_path / "s.json")]
        done = clv(*arguments, env={**os.environ, **named})
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads((tmp_path / "s.json").read_text())
        assert summary["recompute_mismatches"] == 0
        assert summary["mongo_customers"] == summary["customers"] > 100
    assert kafka.process().alive
    assert mongo.process.alive


def test_up_writes_its_addresses_serves_and_ends_on_ctrl_c(tmp_path, cdnow_models):
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "up", "--model", str(cdnow_models), "--json", str(tmp_path / "up.json")],
        cwd=ROOT,
        env={**os.environ, "CLV_HOME": str(binaries.home_dir())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: (tmp_path / "up.json").exists() or process.poll() is not None, "the addresses", 120)
        assert process.poll() is None, process.stdout.read()
        addresses = json.loads((tmp_path / "up.json").read_text())
        for name, url in addresses["services"].items():
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                assert answer.status == 200
            if name == "dashboard":  # its metrics are the API's
                continue
            with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
                assert b"clv_" in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(40)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["demo", "--orders", "no-such-file.csv", "--exit"], "no-such-file.csv"),
        (
            ["score", "--orders", "no-such-file.csv", "--as-of", "2020-01-01", "--model", ".", "--output", "x.csv"],
            "no-such",
        ),
        (["up", "--model", "no-such-folder"], "./clv train"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, line):
    done = clv(*arguments)
    assert done.returncode == 2
    assert line in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_server_that_does_not_answer_is_said_in_one_line():
    done = clv("up", env={**os.environ, "CLV_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert done.returncode == 2
    assert "no Kafka answers at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
