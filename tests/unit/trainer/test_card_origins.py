"""The model card's table of every held-out period: each figure with its bootstrap interval."""

from functools import cache
from typing import Any

import pytest

from services.trainer.card import COMPARED, card_files, figure_interval, leaves
from services.trainer.quality import quality
from tests.unit.trainer.backtests import ORIGIN, backtest

FACTS: dict[str, Any] = {
    "model_version": "0123456789abcdef",
    "horizon_days": 90,
    "currency": "USD",
    "cutoff": "2024-10-04",
    "training_window": {"first_day": "2023-08-31", "last_day": "2024-10-03"},
    "counts": {"customers": 900, "events": 5000, "rejected": {}},
    "fallbacks": [],
    "parity": {"rows": 100, "error_max": 1e-6},
}


@cache
def cards() -> tuple[dict[str, Any], dict[str, str]]:
    facts = quality([backtest(400, seed=1, origin_day=ORIGIN - 90), backtest(400)])
    return facts, {name: text.decode() for name, text in card_files({**FACTS, **facts}).items()}


@pytest.mark.parametrize("name", ["model_card.html", "model_card.md"])
def test_every_figure_of_every_origin_has_its_interval(name: str):
    facts, files = cards()
    table = files[name].partition("Every held-out period")[2]
    missing = [
        (test["from"], model, each)
        for test in facts["backtests"]
        for model, intervals in test["intervals"].items()
        for each in (*COMPARED, "share_above_p90")
        if intervals.get(each) and figure_interval(each, intervals[each]) not in table
    ]
    assert len(facts["backtests"]) == 2
    assert missing == []


def test_a_choice_of_nothing_is_written_without_a_sign():
    assert leaves({"gain": -0.0}) == [("gain", "0")]
