"""The dead-letter topic once it is compacted: no letter vanishes or is replayed twice, what was taken back is gone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.local.kafka import LocalKafka
from schemas.dead_letters import DeadLetter, Origin, Reason, letter_key, to_record
from schemas.tombstones import Cause, cause_headers
from schemas.topics import CUSTOMER_EVENTS, DEAD_LETTERS
from schemas.topics import topics as declared_topics
from services.runtime.kafka import create_topics
from tests.conftest import ROOT
from tests.e2e.test_erasure import hasty
from tests.support import produce, read_all, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def own_kafka() -> Iterator[LocalKafka]:
    with LocalKafka(settings={"log.cleaner.backoff.ms": "100"}) as server:
        asyncio.run(create_topics(server.bootstrap_servers, map(hasty, declared_topics().values())))
        yield server


def letter(offset: int) -> DeadLetter:
    reason = Reason.UNKNOWN_CURRENCY if offset % 2 else Reason.INVALID_AMOUNT
    return DeadLetter(
        reason=reason,
        detail="no",
        service="ingest",
        origin=Origin(CUSTOMER_EVENTS, 0, offset),
        rejected_at_ms=offset,
        key=b"the-original-key",
        value=f"letter-number-{offset}-of-somebody".encode(),
    )


def clv(servers: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", "cli", "dead-letters", *arguments, "--json", "--bootstrap-servers", servers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def publish(servers: str, *letters: DeadLetter) -> None:
    for each in letters:
        key, value, headers = to_record(each)
        produce(servers, DEAD_LETTERS, [(key, value)], headers=headers)


def bytes_in_log(kafka: LocalKafka) -> bytes:
    found = []
    for path in (kafka.data_dir / "broker-1" / "data").glob(f"{DEAD_LETTERS}-*/*.log"):
        try:
            found.append(path.read_bytes())
        except FileNotFoundError:
            continue  # compacted away meanwhile
    return b"".join(found)


def test_after_compaction_letters_stand_markers_hold_and_what_was_taken_back_is_gone(own_kafka: LocalKafka) -> None:
    servers = own_kafka.bootstrap_servers
    letters = [letter(number) for number in range(20)]
    publish(servers, *letters, *letters[:6])  # some are there twice
    assert clv(servers, "replay", "--reason", Reason.UNKNOWN_CURRENCY.value)["replayed"] == 10
    gone = letters[4]
    produce(servers, DEAD_LETTERS, [(letter_key(gone), None)], headers=cause_headers(Cause.ERASED))
    assert gone.value is not None
    further = iter(range(1000, 9000))

    def compacted() -> bool:
        publish(servers, letter(2 * next(further)))
        log = bytes_in_log(own_kafka)
        return gone.value not in log and all(log.count(each.value or b"") <= 1 for each in letters)

    wait_for(compacted, "the cleaner", 90)
    listed = {row["origin"]["offset"]: row["replayed"] for row in clv(servers, "list", "--limit", "9999")["letters"]}
    assert {offset: replayed for offset, replayed in listed.items() if offset < 20} == {
        number: number % 2 == 1 for number in range(20) if number != 4
    }
    done = clv(servers, "replay", "--reason", Reason.UNKNOWN_CURRENCY.value)
    assert (done["replayed"], done["already_replayed"]) == (0, 10)
    assert clv(servers, "replay")["by_reason"] == {Reason.INVALID_AMOUNT.value: len(listed) - 10}
    replayed = [each.value() for each in read_all(servers, CUSTOMER_EVENTS)]
    assert len(replayed) == len(set(replayed)) == len(listed)
    assert {each.key() for each in read_all(servers, CUSTOMER_EVENTS)} == {b"the-original-key"}
