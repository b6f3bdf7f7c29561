"""A folder of customers' states is taken whole, for its own cutoff and currency, or not at all."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from domain.customer import OrderPlaced, fold
from domain.features import day_of
from schemas.customer_rows import encode_state
from schemas.dead_letters import Reason
from services.runtime.shutdown import KnownProblem
from services.trainer.sources.states import COUNTS, EARLIER, LATER, STATES, from_states

CUTOFF = date(2025, 7, 1)
STATE = encode_state(fold([OrderPlaced("o1", 100, (day_of(CUTOFF) - 3) * 86_400_000)]))


def written(folder: Path, states: list[tuple[Any, Any]], counts: dict[str, int] | None = None) -> Path:
    (folder / STATES).mkdir(parents=True)
    for part, pair in enumerate(states):
        pd.DataFrame([pair], columns=["customer_id", "state"]).to_parquet(folder / STATES / f"part-{part}.parquet")
    if counts is not None:
        (folder / COUNTS).mkdir()
        rows = {"cutoff": CUTOFF, "currency": "USD", "what": list(counts), "rows": list(counts.values())}
        pd.DataFrame(rows).to_parquet(folder / COUNTS / "part-0.parquet")
    return folder


def test_what_was_folded_is_the_history_and_what_was_counted_is_told(tmp_path: Path) -> None:
    counts = {EARLIER: 5, LATER: 3, Reason.UNKNOWN_CURRENCY.value: 2}
    told: list[tuple[int, int | None]] = []
    folder = written(tmp_path / "x", [("a", STATE), ("b", STATE)], counts)
    data = from_states(folder, CUTOFF, "USD", lambda what, done=0, total=None: told.append((done, total)))
    assert data.history.customer_ids == ("a", "b")
    assert (data.later, data.repeated, data.rejected) == (3, 3, {Reason.UNKNOWN_CURRENCY: 2})
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("states", "counts", "cutoff", "currency", "says"),
    [
        ([("a", STATE)], None, CUTOFF, "USD", "no finished folder"),
        ([("a", STATE)], {EARLIER: 1}, date(2025, 6, 30), "USD", "made with --cutoff 2025-07-01"),
        ([("a", STATE)], {EARLIER: 1}, CUTOFF, "EUR", "made with --currency USD"),
        ([("a", STATE)], {EARLIER: 1}, CUTOFF, "XXX", "no currency"),
        ([("a", STATE), ("a", STATE)], {EARLIER: 2}, CUTOFF, "USD", "comes twice"),
        ([("a", b"\xc1")], {EARLIER: 1}, CUTOFF, "USD", "no customers' states"),
        ([(None, STATE)], {EARLIER: 1}, CUTOFF, "USD", "without a customer"),
        ([("a", STATE)], {"gift": 1}, CUTOFF, "USD", "gift"),
    ],
)
def test_a_folder_that_is_not_what_it_should_be_is_one_line(
    tmp_path: Path, states: list[tuple[Any, Any]], counts: dict[str, int] | None, cutoff: date, currency: str, says: str
) -> None:
    with pytest.raises(KnownProblem, match=says) as problem:
        from_states(written(tmp_path / "x", states, counts), cutoff, currency)
    assert "\n" not in str(problem.value)
