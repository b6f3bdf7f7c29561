"""Training sets see what was known then, and nothing else."""

import tracemalloc
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.customer import DAY_MS, CustomerState, Event, OrderPlaced, OrderRefunded, ProfileUpdated, fold, union
from domain.features import FEATURE_NAMES, day_of, features
from domain.purchases import purchases
from services.trainer import history as history_module
from services.trainer.history import History
from services.trainer.judged_rows import domain_events
from services.trainer.orders_file import read_any, read_chunks
from services.trainer.sources import orders
from services.trainer.sources.orders import from_file, from_table
from tests.effort import tries
from tests.unit.trainer.shops import FIRST_DAY, order, shop, table

DAY_0 = day_of(FIRST_DAY)


def history(rows: list[dict[str, str]], before: int) -> History:
    return from_table(table(rows), FIRST_DAY + timedelta(days=before), "USD").history


def refund(order_id: str, customer: str, day: int, amount: str) -> dict[str, str]:
    at = (FIRST_DAY + timedelta(days=day)).isoformat()
    return {"type": "refund", "order_id": order_id, "customer_id": customer, "occurred_at": at, "amount": amount}


def test_events_of_the_origin_day_and_later_change_no_feature() -> None:
    rows = shop(40, 120)
    later = [order("new", "c00001", 90, "999.00"), order("new2", "c00002", 95, "999.00"), refund("", "c00003", 90, "5")]
    later += [order("o0", "c00000", 100, "777.00"), order("nobody", "unseen", 91)]
    (plain,) = history(rows, 120).training_sets([(DAY_0 + 90, 30)])
    (planted,) = history(rows + later, 120).training_sets([(DAY_0 + 90, 30)])
    assert plain.customer_ids == planted.customer_ids
    np.testing.assert_array_equal(plain.features, planted.features)
    assert planted.known_targets.value.sum() > plain.known_targets.value.sum()


def test_a_history_until_a_day_does_not_reach_further() -> None:
    rows = shop(40, 120)
    earlier = history(rows, 120).until(DAY_0 + 60)
    assert earlier.fingerprint == history(rows, 60).fingerprint
    (whole,), (part,) = (each.training_sets([(DAY_0 + 30, 30)]) for each in (history(rows, 120), earlier))
    assert part.customer_ids == whole.customer_ids
    np.testing.assert_array_equal(part.features, whole.features)
    np.testing.assert_array_equal(part.known_targets.value, whole.known_targets.value)


def test_a_window_beyond_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="history's end"):
        history(shop(5, 60), 60).training_sets([(DAY_0 + 40, 21)])


def test_targets_count_the_windows_orders_less_refunds() -> None:
    rows = [
        order(1, "a", 0, "10.00"),
        order(2, "a", 50, "30.00"),
        order(3, "a", 59, "5.00"),
        order(4, "a", 60, "100.00"),
        refund("o2", "a", 55, "12.00"),
        refund("o2", "a", 60, "7.00"),
        refund("o1", "a", 51, "4.00"),
        refund("", "a", 52, "2.50"),
        order(5, "b", 49, "10.00"),
    ]
    (found,) = history(rows, 100).training_sets([(DAY_0 + 50, 10)])
    assert found.customer_ids == ("a", "b")
    assert found.known_targets.orders.tolist() == [2.0, 0.0]
    assert found.known_targets.value.tolist() == [30.0 - 12.0 + 5.0 - 2.5, 0.0]
    assert found.known_targets.active.tolist() == [1.0, 0.0]


events = st.builds(
    lambda kind, number, customer, day, cents: (
        order(number, customer, day, f"{cents / 100:.2f}")
        if kind
        else refund(f"o{number}" if number else "", str(customer), day, f"{cents / 100:.2f}")
    ),
    st.booleans(), st.integers(0, 6), st.integers(0, 3), st.integers(0, 59), st.integers(1, 5000),
)  # fmt: skip


def standing(events: list[Event]) -> list[Event]:
    """Of events with one id and different contents the one that stands: the later, then the larger."""
    kept: dict[object, Event] = {}
    for event in events:
        name = event.order_id if isinstance(event, OrderPlaced) else event.refund_id  # type: ignore[union-attr]
        known = kept.get((type(event), name))
        if known is None or _rank(event) > _rank(known):
            kept[type(event), name] = event
    return list(kept.values())


def _rank(event: Event) -> tuple[int, int]:
    assert isinstance(event, OrderPlaced | OrderRefunded)
    return event.occurred_at_ms, event.amount_minor


@given(st.lists(events, min_size=1, max_size=40), st.integers(1, 40), st.integers(1, 20))
@settings(max_examples=tries(150), deadline=None)
def test_a_training_set_equals_folding_each_customer(rows: list[dict[str, str]], origin: int, horizon: int) -> None:
    (found,) = history(rows, 60).training_sets([(DAY_0 + origin, horizon)])
    every, _ = domain_events(table(rows), "USD")
    every = {name: standing(mine) for name, mine in every.items()}
    start, end = (DAY_0 + origin) * DAY_MS, (DAY_0 + origin + horizon) * DAY_MS
    known, then = (
        {name: fold(e for e in mine if e.occurred_at_ms < limit) for name, mine in every.items()}
        for limit in (start, end)
    )
    buyers = sorted(name for name, state in known.items() if state.orders)
    assert found.customer_ids == tuple(buyers)
    if not buyers:
        return
    quintiles = found.fit_quintiles()
    states = [known[name] for name in buyers]
    expected = features(states, [DAY_0 + origin] * len(states), quintiles, 100)
    scored = found.with_quintiles(quintiles)
    np.testing.assert_array_equal(scored.features, expected.features)
    np.testing.assert_array_equal(scored.inputs, expected.inputs)
    last = DAY_0 + origin + horizon - 1
    for row, name in enumerate(buyers):
        bought, loose = purchases([then[name]], [last])
        inside, back = bought.day >= DAY_0 + origin, loose.minor[loose.day >= DAY_0 + origin].sum()
        assert found.known_targets.orders[row] == bought.orders[inside].sum()
        assert found.known_targets.value[row] == (bought.net[inside].sum() - back) / 100


@given(st.randoms())
@settings(max_examples=tries(20), deadline=None)
def test_the_order_of_the_rows_does_not_matter(chance: object) -> None:
    rows = shop(15, 60)
    shuffled = rows.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert history(rows, 60).fingerprint == history(shuffled, 60).fingerprint
    (a,), (b,) = (history(each, 60).training_sets([(DAY_0 + 40, 20)]) for each in (rows, shuffled))
    np.testing.assert_array_equal(a.features, b.features)


def test_scores_are_missing_until_the_quintiles_are_known() -> None:
    (found,) = history(shop(40, 60), 60).training_sets([(DAY_0 + 60, 0)])
    assert found.targets is None
    scores = found.with_quintiles(found.fit_quintiles()).features[:, FEATURE_NAMES.index("recency_score")]
    assert set(scores) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_chunks_of_customers_and_of_rows_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = shop(120, 200, seed=3)
    rows += [refund(f"o{n}", row["customer_id"], 150, "1.00") for n, row in enumerate(rows) if n % 9 == 0]
    path = tmp_path / "orders.csv"
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row[name] for name in rows[0]) for row in rows)]))
    cutoff = FIRST_DAY + timedelta(days=180)
    windows = [(DAY_0 + 160, 20), (DAY_0 + 90, 30), (DAY_0 + 180, 0), (DAY_0 + 90, 60)]
    whole = from_file(path, None, cutoff, "USD")
    monkeypatch.setattr(history_module, "CHUNK_CUSTOMERS", 7)
    told: list[tuple[str, int, int | None]] = []
    monkeypatch.setattr(
        orders, "read_chunks", lambda path, columns: read_chunks(path, columns, rows_max=11)
    )  # fmt: skip
    parts = from_file(path, None, cutoff, "USD", lambda what, done=0, total=None: told.append((what, done, total)))
    assert whole.history.fingerprint == parts.history.fingerprint == history(rows, 180).fingerprint
    assert (whole.rejected, whole.later, len(whole.history)) == (parts.rejected, parts.later, len(parts.history))
    monkeypatch.undo()
    for one, other in zip(whole.history.training_sets(windows), parts.history.training_sets(windows), strict=True):
        assert one.customer_ids == other.customer_ids
        np.testing.assert_array_equal(one.features, other.features)
        if one.horizon_days:
            np.testing.assert_array_equal(one.known_targets.value, other.known_targets.value)
    assert told[-1][1] == told[-1][2] == len(parts.history.customer_ids)
    reads = [done for what, done, _ in told if what == "rows read"]
    assert reads == [*range(11, len(rows), 11), len(rows)]


def test_training_sets_of_small_chunks_are_those_of_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = history(shop(60, 120), 120)
    windows = [(DAY_0 + day, 30) for day in (30, 60, 90)]
    wanted = whole.training_sets(windows)
    monkeypatch.setattr(history_module, "CHUNK_CUSTOMERS", 7)
    for one, other in zip(wanted, whole.training_sets(windows), strict=True):
        assert one.customer_ids == other.customer_ids
        np.testing.assert_array_equal(one.features, other.features)
        np.testing.assert_array_equal(one.known_targets.orders, other.known_targets.orders)


def test_nothing_after_the_last_day_is_reachable() -> None:
    earlier = history(shop(40, 120), 120).until(DAY_0 + 60)
    for _, state in earlier.customers():
        found, _ = purchases([state], [DAY_0 + 100_000])
        assert (found.day < DAY_0 + 60).all()
    assert len(earlier) < len(history(shop(40, 120), 120))


def test_day_by_day_adds_up_to_what_the_customers_did() -> None:
    rows = [
        order(1, "a", 0, "10.00"),
        order(2, "a", 3, "30.00"),
        order(3, "b", 3, "5.00"),
        refund("o2", "a", 5, "12.00"),
        refund("", "a", 4, "2.50"),
        order(4, "c", 9, "99.00"),
    ]
    found = history(rows, 8).daily()
    assert found.day.tolist() == [DAY_0 + day for day in range(8)]
    assert found.orders.tolist() == [1, 0, 0, 2, 0, 0, 0, 0]
    assert found.value.tolist() == [10.0, 0, 0, 30.0 - 12.0 + 5.0, -2.5, 0, 0, 0]
    assert found.new_customers.tolist() == [1, 0, 0, 1, 0, 0, 0, 0]


@given(st.integers(0, 2**32), st.integers(1, 100))
@settings(max_examples=tries(20), deadline=None)
def test_day_by_day_has_the_totals_of_the_training_set(seed: int, before: int) -> None:
    whole = history(shop(30, 100, seed=seed), before)
    if not len(whole):
        return
    daily = whole.daily()
    (known,) = whole.training_sets([(DAY_0 + before, 0)])
    assert daily.orders.sum() == known.features[:, FEATURE_NAMES.index("frequency")].sum() + len(known)
    assert daily.value.sum() == pytest.approx(known.features[:, FEATURE_NAMES.index("monetary")].sum())
    assert daily.new_customers.sum() == len(known)


def test_states_in_any_order_of_arrival_are_one_history() -> None:
    """As the feature worker has them: merged from parts, orders in the order of their arrival, times of profiles."""
    rows = [*shop(30, 120), refund("o3", "c00001", 40, "1.00")]
    every, _ = domain_events(table(rows), "USD")

    def arrived(events: list[Event], year: int | None = None) -> CustomerState:
        own = [fold(events[::-1][place::2]) for place in range(2)]
        if year is not None:
            own.append(fold([ProfileUpdated(year, 7)]))
        return union(own)

    streamed = History(((name, arrived(mine)) for name, mine in reversed(every.items())), DAY_0 + 100, 100)
    assert streamed.fingerprint == history(rows, 100).fingerprint
    assert len(streamed) == len(history(rows, 100))
    known = History(((name, arrived(mine, 1980)) for name, mine in every.items()), DAY_0 + 100, 100)
    assert known.fingerprint != streamed.fingerprint


def test_a_customer_who_comes_twice_is_refused() -> None:
    state = fold([OrderPlaced("o", 100, DAY_0 * DAY_MS)])
    with pytest.raises(ValueError, match="twice"):
        History([("a", state), ("a", state)], DAY_0 + 1, 100)


def test_nothing_known_is_an_empty_history() -> None:
    empty = History([("a", fold([OrderPlaced("o", 100, DAY_0 * DAY_MS)]))], DAY_0, 100)
    assert len(empty) == 0
    assert empty.customer_ids == ()
    (found,) = empty.training_sets([(DAY_0, 0)])
    assert found.features.shape == (0, len(FEATURE_NAMES))
    with pytest.raises(ValueError, match="first day"):
        empty.daily()


@pytest.mark.slow
def test_memory_grows_with_the_packed_orders_not_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rows = tmp_path / "orders.csv", 30_000
    with path.open("w") as file:
        file.write("order_id,customer_id,occurred_at,amount\n")
        for n in range(rows):
            file.write(
                f"order-number-{n},customer-{n % 3000},{FIRST_DAY.isoformat()}T00:00:{n % 60:02d}Z,{n % 977}.50\n"
            )
    monkeypatch.setattr(orders, "read_chunks", lambda path, columns: read_chunks(path, columns, rows_max=1000))
    peaks = []
    for read in (lambda: read_any(path), lambda: from_file(path, None, FIRST_DAY + timedelta(days=1), "USD")):
        tracemalloc.start()
        read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] / 2
    assert peaks[1] < rows * 250
