"""A customer who stops buying, seen from the refresh sweep to the prediction, with a clock that the test turns.

The worker's and the scorer's own functions on a bundle that the trainer made; only Kafka is left out.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest

from domain.customer import DAY_MS, OrderPlaced, apply
from domain.features import day_of
from domain.segments import Segment
from schemas.customer_rows import Row, new_progress, new_row
from schemas.predictions import PredictionToSend
from services.features.emit import feature_messages
from services.features.refresh import Pacer
from services.inference.model import Model, load_model
from services.inference.ranking import bundle_ranking
from services.scorer.intake import Candidate, judge
from services.scorer.scoring import ModelFacts, predictions, prepare
from services.trainer.sources.orders import from_table
from services.trainer.train import train
from tests.unit.trainer.shops import FIRST_DAY, shop, table

pytestmark = pytest.mark.slow

HISTORY_DAYS, HORIZON_DAYS = 340, 60
DAY_ONE = day_of(FIRST_DAY)
BUYS_EVERY_DAYS = {b"buyer-a": 10, b"buyer-b": 15, b"silent-a": 10, b"silent-b": 15, b"silent-c": 30}
SWEPT_FROM_DAY, SILENT_FROM_DAY, LAST_DAY = DAY_ONE + 270, DAY_ONE + 300, DAY_ONE + 660
INTERVAL_DAYS = 8


class Record(NamedTuple):
    """A record of customer-features."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0
    partition: int = 0
    offset: int = 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    cutoff = FIRST_DAY + timedelta(days=HISTORY_DAYS)
    data = from_table(table(shop(200, HISTORY_DAYS + HORIZON_DAYS)), cutoff, "USD")
    made = train(data, HORIZON_DAYS, tmp_path_factory.mktemp("m"))
    return load_model(made.path, "USD")


def orders_of(day: int) -> Iterator[tuple[bytes, OrderPlaced]]:
    for customer, gap in BUYS_EVERY_DAYS.items():
        if (day - DAY_ONE) % gap == 0 and (day < SILENT_FROM_DAY or customer.startswith(b"buyer")):
            yield customer, OrderPlaced(f"o{day}", 5000, day * DAY_MS)


def predict(model: Model, rows: list[tuple[bytes, Row]], day: int, was: dict[bytes, Segment]) -> list[PredictionToSend]:
    """What the scorer publishes for what the worker emits of these rows on this day."""
    sent = feature_messages(rows, [day] * len(rows), model.metadata.quintiles, "USD", 100)
    judged = [judge(Record(key, value), "USD") for (key, _), value in zip(rows, sent, strict=True)]
    candidates = [each for each in judged if isinstance(each, Candidate)]
    assert len(candidates) == len(rows)
    prepared, matrix = prepare(candidates, model.metadata.quintiles)
    previous = [was.get(key) for key, _ in rows]
    facts = ModelFacts(model.version, model.metadata.horizon_days, "USD")
    ranking = bundle_ranking(model.thresholds, model.metadata.value_quantiles)
    return predictions(prepared, matrix, model.predict(matrix), previous, ranking=ranking, model=facts)


def live(model: Model) -> dict[bytes, list[PredictionToSend]]:
    """What the sweep makes the scorer predict, while the orders of each day are folded."""
    customers = {key: new_row() for key in sorted(BUYS_EVERY_DAYS)}
    pacer, progress = Pacer(INTERVAL_DAYS * 86_400, spread=True), new_progress()
    segments: dict[bytes, Segment] = {}
    found = defaultdict(list)
    for day in range(DAY_ONE, LAST_DAY):
        for customer, order in orders_of(day):
            apply(customers[customer].state, order)
            customers[customer].events_applied += 1
        if day < SWEPT_FROM_DAY:
            continue
        for now_ms in range(day * DAY_MS, (day + 1) * DAY_MS, INTERVAL_DAYS * DAY_MS // 1000):
            due = pacer.due(0, progress, now_ms, len(customers))
            if not due:
                continue
            ahead = [item for item in customers.items() if item[0] > (progress.sweep_cursor or b"")]
            rows = ahead[:due]
            pacer.advance(progress, rows[-1][0] if len(ahead) > due else None, len(rows), now_ms, len(customers))
            for (key, _), made in zip(rows, predict(model, rows, day, segments), strict=True):
                found[key].append(made)
                segments[key] = Segment(made.segment)
    return found


def test_silence_alone_lowers_p_active_and_the_segment_while_buyers_keep_theirs(model):
    found = live(model)
    assert found.keys() == BUYS_EVERY_DAYS.keys()
    for customer, made in found.items():
        days = [day_of(date.fromisoformat(each.as_of)) for each in made]
        assert max(later - day for day, later in pairwise(days)) <= INTERVAL_DAYS
        after = [each for each, day in zip(made, days, strict=True) if day >= SILENT_FROM_DAY]
        assert len(after) >= (LAST_DAY - SILENT_FROM_DAY) // INTERVAL_DAYS
        if customer.startswith(b"buyer"):
            assert {each.segment for each in after} == {Segment.HIGH_VALUE.value}
            assert min(each.p_active for each in after) > 0.5
            continue
        active = [each.p_active for each in after]
        told = [round(each, 5) for each in active]  # below, corrections of the purchase model may tremble
        assert told == sorted(told, reverse=True)
        assert active[0] > 0.6
        assert active[-1] < 0.02
        path = list(dict.fromkeys(each.segment for each in after))
        assert path == [each.value for each in Segment if each.value in path], "one step after another"
        assert (path[0], path[-1]) == (Segment.HIGH_VALUE.value, Segment.AT_RISK.value)
        assert after[-1].expected_value < 0.05 * after[0].expected_value
        assert len({each.feature_version for each in made}) == len(made)
