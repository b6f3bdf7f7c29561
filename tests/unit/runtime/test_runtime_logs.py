"""What is logged, and what is not said again and again."""

import logging

from services.runtime.logs import Repeats


def record(name: str, text: str, at: float, *details: object) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "", 0, text, details, None)
    made.created = at
    return made


def test_a_library_says_the_same_once_in_ten_seconds_and_other_things_at_once():
    repeats = Repeats(10.0)
    assert repeats.filter(record("aiokafka.client", "no answer from %s", 100.0, "node 1"))
    assert not repeats.filter(record("aiokafka.client", "no answer from %s", 101.0, "node 2"))
    assert repeats.filter(record("aiokafka.client", "another thing", 101.0))
    assert repeats.filter(record("aiokafka.client", "no answer from %s", 110.0, "node 1"))


def test_what_the_product_says_itself_is_never_left_out():
    repeats = Repeats(10.0)
    assert all(repeats.filter(record("services.ingest.service", "kafka_lost", 100.0)) for _ in range(3))
