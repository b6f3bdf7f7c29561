"""Completeness after preprocessing: measured on the default shop with all its dirt; and what the measure notices."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from domain.customer import CustomerState, apply
from domain.features import FEATURE_NAMES, features
from domain.rfm_scores import Quintiles
from services.trainer.generation import Shop, ShopSpec, generate, preset
from services.trainer.generation.completeness import (
    COMPLETENESS_MIN,
    Completeness,
    knowable_cells,
    measure,
    true_domain_events,
)
from services.trainer.generation.files import write_orders
from tests.effort import tries
from tests.unit.trainer_generation.test_generated_events import SHOPS

QUINTILES = Quintiles((9.0, 9.0, 9.0, 9.0), (9.0, 9.0, 9.0, 9.0), (9.0, 9.0, 9.0, 9.0))


@pytest.fixture(scope="module")
def shop() -> Shop:
    return generate(preset("default", customers=20_000, years=3, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shop.csv", "shop.parquet"])
@pytest.mark.long
def test_the_default_shop_is_complete_after_reading_and_judging(shop: Shop, tmp_path: Path, name: str):
    """Its file has 1 % broken rows, 2 % late ones, 5 % in other forms, and no good row of .01 % of events."""
    write_orders(shop, tmp_path / name)
    found = measure(shop, tmp_path / name)
    assert COMPLETENESS_MIN == 0.9998
    assert found.events == shop.counts["orders"] + shop.counts["refunds"] > 80_000
    assert COMPLETENESS_MIN <= found.events_share < 1.0
    assert COMPLETENESS_MIN <= found.cells_share < 1.0
    assert found.exact_share > 0.999
    assert found.rows_invented == 0
    assert found.is_enough
    assert found.events - found.events_found == sum(shop.counts["lost"].values()), "nothing else was lost"


def test_without_lost_events_everything_is_there_to_the_last_bit():
    made = generate(preset("default", customers=2000, seed=6, lost_share=0.0, dirty_share=0.1, late_share=0.2))
    found = measure(made)
    assert found.events_found == found.events
    assert found.cells == found.cells_found == found.cells_exact
    assert found.rows_invented == 0


@given(SHOPS)
@settings(max_examples=tries(60), deadline=None)
def test_what_a_history_suffices_for_is_what_its_features_know(spec: ShopSpec):
    made = generate(spec)
    states = [CustomerState() for _ in range(spec.customers)]
    for customer, event in zip(made.events.customer.tolist(), true_domain_events(made), strict=True):
        apply(states[customer], event)
    days = [made.end_day - 1] * len(states)
    known = ~np.isnan(features(states, days, QUINTILES, 10**spec.exponent).features)
    wrong = np.argwhere(known != knowable_cells(made))
    assert [(int(row), FEATURE_NAMES[column]) for row, column in wrong] == []


def drop_every_100th(rows: list[list[str]]) -> list[list[str]]:
    return [row for number, row in enumerate(rows) if number % 100]


def shift_an_amount(rows: list[list[str]]) -> list[list[str]]:
    rows[50][4] = "123456.78"
    return rows


def shift_a_time(rows: list[list[str]]) -> list[list[str]]:
    rows[50][3] = "2022-07-07T07:07:07Z"
    return rows


def give_to_another(rows: list[list[str]]) -> list[list[str]]:
    rows[50][2] = "c0001" if rows[50][2] != "c0001" else "c0002"
    return rows


def invent_a_row(rows: list[list[str]]) -> list[list[str]]:
    return [*rows, ["order", "o99999999", "c0001", "2022-07-07T07:07:07Z", "5.00", "USD", ""]]


def say_it_twice_differently(rows: list[list[str]]) -> list[list[str]]:
    return [*rows, [*rows[50][:4], "123456.78", *rows[50][5:]]]


@pytest.mark.parametrize(
    ("tamper", "lost", "invented"),
    [
        (drop_every_100th, None, 0),
        (shift_an_amount, 1, 1),
        (shift_a_time, 1, 1),
        (give_to_another, 1, 1),
        (invent_a_row, 0, 1),
        (say_it_twice_differently, 1, 1),
    ],
)
def test_a_file_that_was_tampered_with_is_found_out(
    tmp_path: Path, tamper: Callable[[list[list[str]]], list[list[str]]], lost: int | None, invented: int
):
    made = generate(preset("textbook", customers=500, seed=6))
    path = tmp_path / "shop.csv"
    write_orders(made, path)
    assert measure(made, path).is_enough
    header, *rows = csv.reader(path.read_text().splitlines())
    path.write_text("\n".join(",".join(row) for row in [header, *tamper(rows)]) + "\n")
    found = measure(made, path)
    assert found.events - found.events_found == (len(rows) - len(drop_every_100th(rows)) if lost is None else lost)
    assert found.rows_invented == invented
    assert found.cells_exact < found.cells
    assert not found.is_enough


def test_a_shop_just_below_the_bound_is_not_enough():
    assert not Completeness(10_000, 9_997, 0, 100, 100, 100).is_enough
    assert not Completeness(10_000, 10_000, 0, 10_000, 9_997, 9_997).is_enough
    assert not Completeness(10_000, 10_000, 1, 100, 100, 100).is_enough
    assert Completeness(10_000, 9_998, 0, 10_000, 9_998, 9_990).is_enough
