"""What docs/topics.md tells a stranger to run does what it says, against a real broker.

The services are not part of it: a prediction is put where the scorer would put it. tests/e2e runs the whole path.
"""

import re
import subprocess
import sys

import pytest
from confluent_kafka import Consumer, Producer

from schemas.examples import examples
from schemas.generate import ROOT
from schemas.predictions import decode_prediction
from schemas.topics import CUSTOMER_EVENTS, PREDICTIONS
from services.ingest.judge import Rules, judge
from services.ingest.rates import Rates
from services.ingest.rejection import Rejection

PAGE = (ROOT / "docs/topics.md").read_text()
NOW_MS = 4_102_444_800_000


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_shell_lines_publish_an_event_that_ingest_accepts():
    (line,) = re.findall(r"echo '(.*)' \|", block("sh"))
    verdict = judge(line.encode(), (), NOW_MS, Rules("USD", Rates()))
    assert not isinstance(verdict, Rejection)
    assert CUSTOMER_EVENTS in block("sh")
    assert PREDICTIONS in block("sh")


@pytest.mark.integration
def test_the_python_lines_publish_an_event_and_print_its_prediction(topics: str):
    (shown,) = [found for found in examples("predictions") if found.name == "high-value-customer"]
    prediction = decode_prediction(shown.text.encode())
    producer = Producer({"bootstrap.servers": topics})
    producer.produce(PREDICTIONS, shown.text, key=prediction.customer_id)
    producer.produce(PREDICTIONS, None, key="someone-forgotten")
    assert producer.flush(30) == 0

    script = block("python").replace("localhost:9092", topics)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(prediction.expected_value), prediction.segment, prediction.strategy]

    consumer = Consumer({"bootstrap.servers": topics, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe([CUSTOMER_EVENTS])
    try:
        (message,) = consumer.consume(1, timeout=30)
    finally:
        consumer.close()
    assert not isinstance(judge(message.value(), (), NOW_MS, Rules("USD", Rates())), Rejection)
