"""A feature that knows the future stops training; one that does not passes, however predictable the shop is."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from domain.customer import DAY_MS, ORDER, CustomerState, has_ordered, known_before
from domain.features import FEATURE_NAMES, day_of
from services.runtime.shutdown import KnownProblem
from services.trainer import history as history_module
from services.trainer import leakage
from services.trainer.history import History, TrainingSet
from services.trainer.sources.orders import from_table
from services.trainer.train import train
from tests.unit.trainer.shops import FIRST_DAY, order, shop, table

DAYS = 200
ORIGIN = day_of(FIRST_DAY) + 140


@pytest.fixture(scope="module")
def history() -> History:
    return from_table(table(shop(400, DAYS)), FIRST_DAY + timedelta(days=DAYS), "USD").history


def test_clean_features_pass_as_of_every_origin(history):
    windows = [(ORIGIN, 60), (ORIGIN - 60, 60), (ORIGIN, 0), (ORIGIN + 60, 0)]
    checked = leakage.training_sets(history, windows)
    for found, plain in zip(checked, history.training_sets(windows), strict=True):
        np.testing.assert_array_equal(found.features, plain.features)
        assert found.customer_ids == plain.customer_ids


def test_of_each_origin_it_is_told_how_many_customers_are_done(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(history_module, "CHUNK_CUSTOMERS", 2)
    told: dict[str, list[tuple[int, int | None]]] = {}
    data = from_table(table(shop(5, 40)), FIRST_DAY + timedelta(days=30), "USD")
    customers = len(data.history.customer_ids)
    train(data, 7, tmp_path, lambda what, done=0, total=None: told.setdefault(what, []).append((done, total)))
    days = [day for day in range(31) if f"customers as of {FIRST_DAY + timedelta(days=day)}" in told]
    assert len(days) >= 2
    for day in days:
        counts = told[f"customers as of {FIRST_DAY + timedelta(days=day)}"]
        assert counts[0] == (2, customers)
        assert counts[-1] == (customers, customers)
    assert {done == total for done, total in told["sets made again from the past alone"][-1:]} == {True}


def peek(monkeypatch: pytest.MonkeyPatch, feature: str, days: int) -> None:
    """Plant a feature that counts the orders of some days after the origin, where the rows of training are made."""
    honest, column = history_module.training_rows, FEATURE_NAMES.index(feature)

    def leaky(ids, states, windows, minor_per_major):
        for rows in honest(ids, states, windows, minor_per_major):
            end = (rows.origin_day + days) * DAY_MS
            ordered = [state for state in states if has_ordered(known_before(state, rows.origin_day))]
            seen = [sum(at < end for _, at, _ in ORDER.iter_unpack(state.orders)) for state in ordered]
            features = rows.features.copy()
            features[:, column] = seen
            yield replace(rows, features=features)

    monkeypatch.setattr(history_module, "training_rows", leaky)


@pytest.mark.parametrize("days", [1, 60])
def test_training_stops_at_a_feature_that_looks_past_its_origin(monkeypatch, tmp_path: Path, days: int):
    """The whole training, as the command does it; one day of the future is enough."""
    peek(monkeypatch, "orders_90d", days)
    data = from_table(table(shop(400, DAYS)), FIRST_DAY + timedelta(days=DAYS), "USD")
    with pytest.raises(KnownProblem, match=r"a feature knows the future: orders_90d \(\d+ customers\)"):
        train(data, 60, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_count_that_ends_at_the_origin_knows_nothing_of_the_future(monkeypatch, history):
    peek(monkeypatch, "orders_90d", 0)
    leakage.training_sets(history, [(ORIGIN, 60)])


def first_order(state: CustomerState) -> bytes:
    """Its key: a name for the customer that stays the same as time goes by."""
    return min((at, key) for key, at, _ in ORDER.iter_unpack(state.orders))[1]


def future_of(history: History, noise: float, seed: int = 1) -> dict[bytes, float]:
    """What each customer, known by the first order, brings from the origin on: read past the history."""
    chance = np.random.default_rng(seed)
    found = {}
    for _, state in history.customers():
        later = sum(minor for _, at, minor in ORDER.iter_unpack(state.orders) if at >= ORIGIN * DAY_MS)
        found[first_order(state)] = later * (1 + noise * chance.standard_normal())
    return found


def bypass(monkeypatch: pytest.MonkeyPatch, history: History, noise: float) -> None:
    """Plant a column that somebody filled in afterwards: it is the same whatever history it is made from."""
    honest, future = history_module.features, future_of(history, noise)

    def leaky(states: list[CustomerState], *rest):
        rows = honest(states, *rest)
        rows.features[:, FEATURE_NAMES.index("refund_share")] = [future[first_order(s)] for s in states]
        return rows

    monkeypatch.setattr(history_module, "features", leaky)


def test_a_column_that_was_filled_in_afterwards_raises_the_alarm(monkeypatch, history):
    bypass(monkeypatch, history, noise=0.01)
    with pytest.raises(KnownProblem, match=r"refund_share alone ranks the customers .* it knows the future"):
        leakage.training_sets(history, [(ORIGIN, 60)])


def test_a_feature_that_only_guesses_well_raises_no_alarm(monkeypatch, history):
    bypass(monkeypatch, history, noise=1.0)
    leakage.training_sets(history, [(ORIGIN, 60)])


def test_a_shop_where_everybody_pays_the_same_each_month_raises_no_alarm():
    """Their spend so far ranks them as their spend to come does: that is no secret of the future."""
    rows = [order(f"{c}-{m}", f"c{c:03d}", 30 * m, f"{10 + c / 7:.2f}") for c in range(300) for m in range(8)]
    known = from_table(table(rows), FIRST_DAY + timedelta(days=240), "USD").history
    (found,) = leakage.training_sets(known, [(day_of(FIRST_DAY) + 180, 60)])
    assert leakage.correlations(found)["average_order_value"] > leakage.ALARM_CORRELATION


def test_customers_who_are_chosen_for_what_they_did_later_stop_training(history):
    (found,) = history.training_sets([(ORIGIN, 60)])
    came_back = np.flatnonzero(found.known_targets.active)
    kept = tuple(found.customer_ids[row] for row in came_back)
    survivors = TrainingSet(ORIGIN, 60, kept, found.inputs[came_back], found.features[came_back], None)
    with pytest.raises(KnownProblem, match="choice of customers knows the future"):
        leakage.check_sets(history, [survivors])


def test_an_input_that_leaks_is_named(history):
    (found,) = history.training_sets([(ORIGIN, 0)])
    inputs = found.inputs.copy()
    inputs[3, 3] += 1
    with pytest.raises(KnownProblem, match=r"total_orders \(input\) \(1 customers\)"):
        leakage.check_sets(history, [replace(found, inputs=inputs)])


def test_a_history_that_does_not_forget_stops_training(monkeypatch, history):
    """If what cuts a history off let later events through, both ways to a feature would agree, and be wrong."""
    monkeypatch.setattr(history_module, "known_before", lambda state, _: state)
    with pytest.raises(KnownProblem, match="the history itself knows the future"):
        leakage.training_sets(history, [(ORIGIN, 60)])


def test_of_many_customers_every_kth_is_checked(monkeypatch, history):
    monkeypatch.setattr(leakage, "CHECKED_CUSTOMERS_MAX", 40)
    leakage.training_sets(history, [(ORIGIN, 60)])
    peek(monkeypatch, "orders_90d", 60)
    with pytest.raises(KnownProblem, match="orders_90d"):
        leakage.training_sets(history, [(ORIGIN, 60)])


def test_what_is_learnt_of_the_whole_shop_must_not_know_the_future_either(history):
    def total(known: History) -> dict[str, np.ndarray]:
        return {"by day": known.daily().value, "orders": np.array(len(known))}

    with pytest.raises(KnownProblem, match=r"the season as of .* knows the future"):
        leakage.check_same_without_future("the season", total, history, ORIGIN)
    leakage.check_same_without_future("the season", lambda known: total(known.until(ORIGIN)), history, ORIGIN)
