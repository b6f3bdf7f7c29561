"""What a challenger may cost: models that hang, are slow or give nonsense, and a champion that must not wait for them.

Nothing is sent here: the models give no number for anybody, which is refused before sending.
"""

import asyncio
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from prometheus_client import REGISTRY

from schemas.customer_features import encode_features
from services.inference.model import Model, Outcomes, load_model
from services.scorer import shadow
from services.scorer.intake import Candidate, judge
from services.scorer.shadow import Shadow
from tests.bundles import feature_messages, write_bundle

ROOT = Path(__file__).parents[3]


class Record(NamedTuple):
    key: bytes
    value: bytes
    offset: int
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 1_700_000_000_000
    partition: int = 0


def candidates(count: int) -> list[Candidate]:
    found = [
        judge(Record(each.customer_id.encode(), encode_features(each), at), "USD")
        for at, each in enumerate(feature_messages(count))
    ]
    assert all(isinstance(each, Candidate) for each in found)
    return [each for each in found if isinstance(each, Candidate)]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(tmp_path / write_bundle(tmp_path), "USD")


def on_trial(share: float = 1.0) -> Shadow:
    return Shadow(producer=None, share=share)  # type: ignore[arg-type]  # nothing is sent


def nothing(matrix: Any) -> Outcomes:
    return Outcomes(*(np.full(len(matrix), math.nan) for _ in Outcomes._fields))


def skipped(reason: str) -> float:
    return REGISTRY.get_sample_value("clv_challenger_skipped_total", {"reason": reason}) or 0.0


def failures() -> float:
    return REGISTRY.get_sample_value("clv_challenger_failures_total", {"reason": "model"}) or 0.0


def test_a_model_that_never_comes_back_is_set_aside_after_a_moment(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "CALL_SECONDS_MAX", 0.2)
    forever = threading.Event()
    monkeypatch.setattr(model, "predict", lambda _: forever.wait(60))
    trial, failed, aside = on_trial(), failures(), skipped("aside")
    trial.swap(model)
    began = time.monotonic()
    asyncio.run(trial.score(candidates(100)))
    asyncio.run(trial.score(candidates(100)))
    assert time.monotonic() - began < 5
    assert (failures() - failed, skipped("aside") - aside) == (1, 200)
    forever.set()


@pytest.mark.parametrize("answer", [None, "text", Outcomes(*[np.zeros(3)] * len(Outcomes._fields))])
def test_whatever_a_model_answers_the_champion_does_not_hear_of_it(
    model: Model, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(model, "predict", lambda _: answer)
    trial, failed = on_trial(), failures()
    trial.swap(model)
    asyncio.run(trial.score(candidates(50)))
    assert failures() - failed == 1


def test_a_slow_model_gets_its_share_of_the_time_and_no_more(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def slow(matrix: Any) -> Outcomes:
        calls.append(len(matrix))
        time.sleep(0.002 * len(matrix))
        return nothing(matrix)

    monkeypatch.setattr(model, "predict", slow)
    trial, late = on_trial(share=0.2), skipped("time")
    trial.swap(model)
    batch = candidates(1000)
    began = time.monotonic()
    asyncio.run(trial.score(batch))
    took = time.monotonic() - began
    assert took < 2.0, "of two seconds' work half a second is saved up"
    assert 32 <= sum(calls) < 1000
    assert skipped("time") - late == 1000 - sum(calls)
    done = sum(calls)
    asyncio.run(trial.score(batch))
    assert sum(calls) - done < 200, "nothing is saved up any more"


def test_another_model_is_not_set_aside_for_what_the_former_did(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(model, "predict", fails)
    trial = on_trial()
    trial.swap(model)
    asyncio.run(trial.score(candidates(10)))
    monkeypatch.setattr(model, "predict", nothing)
    trial.swap(model)
    refused = skipped("refused")
    asyncio.run(trial.score(candidates(10)))
    assert skipped("refused") - refused == 10
    trial.swap(None)
    asyncio.run(trial.score(candidates(10)))
    assert skipped("refused") - refused == 10


def test_a_process_ends_although_a_model_never_comes_back() -> None:
    program = (
        "import asyncio, threading\n"
        "from services.scorer.shadow import _in_thread\n"
        "async def main():\n"
        "    try:\n"
        "        await asyncio.wait_for(_in_thread(threading.Event().wait), 0.1)\n"
        "    except TimeoutError:\n"
        "        print('given up')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "given up\n"
