"""The file of a generated shop: every row is an event or is refused for exactly the declared reason, at declared
shares. The judge is the trainer's own, which another test compares with ingest's."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from scipy.stats import binomtest

from schemas.dead_letters import Reason
from services.runtime.shutdown import KnownProblem
from services.trainer.generation import Shop, ShopSpec, generate, preset
from services.trainer.generation.breakages import BREAKAGES
from services.trainer.generation.file_rows import KINDS, UNBROKEN
from services.trainer.generation.files import write_orders
from services.trainer.judged_rows import VALID, judge
from services.trainer.orders_file import COLUMNS, read_orders
from tests.effort import tries
from tests.unit.trainer_generation.test_generated_events import SHOPS, UNLIKELY

REASONS = tuple(Reason)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """One with so much of everything that shares can be told apart."""
    shares = {"untidy_share": 0.2, "duplicate_share": 0.05, "late_share": 0.08, "dirty_share": 0.15, "lost_share": 0.01}
    return generate(preset("default", customers=6000, seed=21, **shares))


def frame(of: Shop) -> pd.DataFrame:
    return pd.DataFrame({name: of.table.columns[name] for name in COLUMNS}, dtype=object)


@given(SHOPS)
@settings(max_examples=tries(150), deadline=None)
def test_every_row_is_its_event_or_is_refused_for_the_declared_reason(spec: ShopSpec):
    made = generate(spec)
    judged = judge(made.table, spec.currency)
    rows, events = made.rows, made.events
    declared = [None if kind == UNBROKEN else BREAKAGES[KINDS[kind]].reason for kind in rows.breakage.tolist()]
    found = [None if code == VALID else REASONS[code] for code in judged.reason.tolist()]
    assert found == declared
    of = rows.event[judged.valid]
    assert (judged.is_refund[judged.valid] == events.is_refund[of]).all()
    assert (judged.customer_ids[judged.valid] == made.customers.ids[events.customer[of]]).all()
    assert (judged.order_ids[judged.valid] == made.order_ids(events.order[of])).all()
    refunds = judged.valid & judged.is_refund
    assert (judged.refund_ids[refunds] == made.refund_ids(events.number[rows.event[refunds]])).all()
    assert (judged.at_ms[judged.valid] == events.at_ms[of]).all()
    assert (judged.amount_minor[judged.valid] == events.minor[of]).all()


@given(SHOPS)
@settings(max_examples=tries(60), deadline=None)
def test_every_event_has_a_good_row_unless_it_is_lost(spec: ShopSpec):
    made = generate(spec)
    good = np.zeros(len(made.events), dtype=bool)
    good[made.rows.event[made.rows.breakage == UNBROKEN]] = True
    assert (good == ~made.rows.is_lost).all()
    assert made.rows.is_lost.sum() == int(spec.lost_share * len(made.events))


def test_every_kind_of_breakage_in_every_variant_is_refused_for_its_reason():
    made = generate(preset("default", customers=2000, seed=2, dirty_share=1.0))
    seen = {kind: set(made.rows.variant[made.rows.breakage == place] % 7) for place, kind in enumerate(KINDS)}
    assert all(len(variants) == 7 for variants in seen.values())
    judged = judge(made.table, "USD")
    declared = made.rows.breakage[~judged.valid]
    assert [REASONS[code] for code in judged.reason[~judged.valid].tolist()] == [
        BREAKAGES[KINDS[kind]].reason for kind in declared.tolist()
    ]


def test_shares_of_dirt_are_as_declared(shop: Shop):
    events, spec, counts = len(shop.events), shop.spec, shop.counts
    dirty, lost = sum(counts["dirty"].values()), sum(counts["lost"].values())
    assert lost == int(0.01 * events)
    for count, among, share in (
        (dirty, events - lost, spec.dirty_share),
        (counts["duplicates"], events - lost, spec.duplicate_share),
        (counts["late"], events, spec.late_share),
    ):
        assert binomtest(count, among, share).pvalue > UNLIKELY
    assert len(shop.table) == counts["rows"] == events + dirty + counts["duplicates"]
    for kind in set(KINDS) - {"missing_order"}:  # a refund needs no order: it is given another kind
        assert counts["dirty"][kind] == pytest.approx(dirty / len(KINDS), abs=6 * np.sqrt(dirty / len(KINDS)))


def test_refusals_by_reason_are_the_declared_ones(shop: Shop):
    want: dict[Reason, int] = {}
    for counted in (shop.counts["dirty"], shop.counts["lost"]):
        for kind, count in counted.items():
            want[BREAKAGES[kind].reason] = want.get(BREAKAGES[kind].reason, 0) + count
    assert judge(shop.table, "USD").rejected() == want


def test_repeated_rows_are_exact_and_counted(shop: Shop):
    assert int(frame(shop).duplicated().sum()) == shop.counts["duplicates"]


def test_late_rows_are_those_out_of_time_order(shop: Shop):
    """A row that arrived when it happened stands behind no row that happened later."""
    judged = judge(shop.table, "USD")
    rows = pd.DataFrame({"event": shop.rows.event, "at_ms": judged.at_ms})[judged.valid].drop_duplicates("event")
    is_behind = rows["at_ms"] < rows["at_ms"].cummax()
    late = shop.rows.is_late & ~shop.rows.is_lost
    assert set(rows.loc[is_behind, "event"]) <= set(np.flatnonzero(late))
    assert is_behind.sum() >= 0.999 * late.sum()


def test_untidy_rows_are_written_otherwise_and_say_the_same(shop: Shop):
    cells = frame(shop)[shop.rows.breakage == UNBROKEN]
    plain = (
        cells["type"].isin(["order", "refund"])
        & (cells["currency"] == "USD")
        & cells["occurred_at"].str.fullmatch(r"[\d-]{10}T[\d:]{8}Z")
        & cells["amount"].str.fullmatch(r"\d+\.\d\d")
    )
    untidy = shop.rows.form[shop.rows.event[shop.rows.breakage == UNBROKEN]] >= 0
    assert (plain == ~untidy).all()
    # The two forms that are for orders alone leave a refund tidy.
    assert 0.17 * len(shop.events) < shop.counts["untidy"] < 0.21 * len(shop.events)


@pytest.mark.parametrize("name", ["shop.csv", "shop.parquet"])
@pytest.mark.parametrize("currency", ["USD", "JPY"])
def test_the_written_file_is_read_as_the_table(tmp_path: Path, name: str, currency: str):
    made = generate(preset("default", customers=800, seed=8, dirty_share=0.3, lost_share=0.05, currency=currency))
    write_orders(made, tmp_path / name)
    assert read_orders(tmp_path / name).fingerprint == made.table.fingerprint


def test_a_parquet_file_without_broken_bytes_has_text_alone(tmp_path: Path):
    import pyarrow.parquet as pq

    write_orders(generate(preset("textbook", customers=50)), tmp_path / "shop.parquet")
    assert {str(kind) for kind in pq.read_schema(tmp_path / "shop.parquet").types} == {"string"}


def test_pieces_are_the_table():
    made = generate(preset("default", customers=300, seed=5, dirty_share=0.2))
    pieces = list(made.chunks(100))
    assert [len(piece) for piece in pieces[:-1]] == [100] * (len(pieces) - 1)
    for name in COLUMNS:
        whole = np.concatenate([piece.columns[name] for piece in pieces])
        assert whole.tolist() == made.table.columns[name].tolist()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path):
    for name in ("shop.csv", "shop.parquet"):
        with pytest.raises(KnownProblem, match="cannot write"):
            write_orders(generate(preset("textbook", customers=5)), tmp_path / "no" / name)
