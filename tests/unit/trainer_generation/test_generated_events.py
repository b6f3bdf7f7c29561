"""What truly happens in a generated shop, against the laws that its parameters name."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare, kstest
from scipy.stats import gamma as gamma_law

from domain.customer import DAY_MS
from domain.features import date_of, day_of
from services.runtime.shutdown import KnownProblem
from services.trainer.generation import PRESETS, Shop, ShopSpec, generate, preset
from services.trainer.generation.customers import NEVER_MS
from services.trainer.generation.events import LOOSE
from services.trainer.generation.intensity import Intensity, season
from services.trainer.generation.spec import parameters
from tests.effort import tries

UNLIKELY = 1e-5
"""A test with a fixed seed either always fails or never; this is how far from the law a seed may be by chance."""

SHOPS = st.builds(
    preset,
    st.sampled_from(sorted(PRESETS)),
    customers=st.integers(1, 120),
    years=st.floats(0.1, 3.0),
    seed=st.integers(0, 2**63 - 1),
    start=st.dates(date(1995, 1, 1), date(2030, 12, 31)),
    currency=st.sampled_from(["USD", "JPY", "BHD"]),
    dropout=st.sampled_from(["pareto", "bg"]),
    acquisition_days=st.sampled_from([0, 1, 30]),
    refund_share=st.sampled_from([0.0, 0.3, 1.0]),
    dirty_share=st.sampled_from([0.0, 0.3, 1.0]),
    lost_share=st.sampled_from([0.0, 0.2]),
    weekly=st.sampled_from([(1.0,) * 7, (0.0, 0.0, 1.0, 2.0, 3.0, 0.5, 0.0)]),
)


@given(SHOPS)
@settings(max_examples=tries(150), deadline=None)
def test_events_keep_the_rules_of_a_history(spec: ShopSpec):
    shop = generate(spec)
    events, customers = shop.events, shop.customers
    is_order = ~events.is_refund
    assert (events.at_ms >= shop.start_day * DAY_MS).all()
    assert (events.at_ms < shop.end_day * DAY_MS).all()
    assert (np.diff(events.at_ms) >= 0).all()
    assert (events.minor > 0).all()
    assert events.number[is_order].tolist() == list(range(1, int(is_order.sum()) + 1))
    assert events.number[~is_order].tolist() == list(range(1, int((~is_order).sum()) + 1))

    owner, at_ms = events.customer[is_order], events.at_ms[is_order]
    first = np.full(len(customers), NEVER_MS)
    np.minimum.at(first, owner, at_ms)
    assert (first == customers.acquired_ms).all(), "everybody's first order is the arrival"
    assert (at_ms <= customers.dropout_ms[owner]).all(), "nobody orders after leaving"
    if spec.acquisition_days:
        assert (customers.acquired_ms < (shop.start_day + spec.acquisition_days) * DAY_MS).all()
    if 0.0 in spec.weekly and not spec.acquisition_days and spec.years > 1:
        weekday = (at_ms // DAY_MS + 3) % 7
        assert not np.isin(weekday, np.flatnonzero(np.array(spec.weekly) == 0)).any(), "a closed shop sells nothing"

    named = ~is_order & (events.order != LOOSE)
    of = events.order[named] - 1  # orders are numbered by time
    assert (events.customer[named] == owner[of]).all()
    assert (events.minor[named] <= events.minor[is_order][of]).all(), "no refund is more than its order"
    assert (events.at_ms[named] > at_ms[of]).all()


@given(SHOPS)
@settings(max_examples=tries(40), deadline=None)
def test_the_same_spec_gives_the_same_shop_and_another_seed_another(spec: ShopSpec):
    again = preset("default", **{name: getattr(spec, name) for name, _, _ in parameters(spec)})
    one, two = generate(spec), generate(again)
    assert one.table.fingerprint == two.table.fingerprint
    assert one.truth() == two.truth()
    other = generate(preset("default", customers=50, seed=1)), generate(preset("default", customers=50, seed=2))
    assert other[0].table.fingerprint != other[1].table.fingerprint


def test_dirt_changes_no_event():
    clean = {"untidy_share": 0, "duplicate_share": 0, "late_share": 0, "dirty_share": 0, "lost_share": 0}
    one, two = generate(preset("default", seed=3)), generate(preset("default", seed=3, **clean))
    assert len(two.rows) == len(two.events) < len(one.rows)
    for name in ("is_refund", "customer", "number", "order", "at_ms", "minor"):
        assert (getattr(one.events, name) == getattr(two.events, name)).all()


def test_refunds_change_no_order():
    one, two = generate(preset("default", seed=3)), generate(preset("default", seed=3, refund_share=0.0))
    assert (one.events.at_ms[~one.events.is_refund] == two.events.at_ms).all()
    assert (one.events.minor[~one.events.is_refund] == two.events.minor).all()


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "years", "end"),
    [
        ("2022-01-01", 3, "2025-01-01"),
        ("2019-07-15", 2, "2021-07-15"),
        ("2020-02-29", 1, "2021-03-01"),
        ("2020-02-29", 4, "2024-02-29"),
        ("2023-01-01", 0.5, "2023-07-02"),
        ("2023-01-01", 1.5, "2024-07-02"),
    ],
)
def test_years_are_exact(start: str, years: float, end: str):
    spec = preset("default", start=start, years=years)
    assert date_of(spec.start_day).isoformat() == start
    assert date_of(spec.end_day).isoformat() == end


@given(st.lists(st.sampled_from([0.0, 0.2, 1.0, 3.0]), min_size=1, max_size=30).filter(any), st.integers(0, 10**6))
def test_the_change_of_time_is_exact_and_has_an_inverse(per_day: list[float], seed: int):
    intensity = Intensity(np.array(per_day))
    elapsed = np.sort(np.random.default_rng(seed).random(50)) * intensity.total
    days = intensity.when(elapsed)
    assert (np.diff(days) >= 0).all()
    np.testing.assert_allclose(intensity.elapsed(days), elapsed, rtol=1e-9, atol=1e-9)
    by_hand = [sum(per_day[: int(t)]) + per_day[int(t)] * (t - int(t)) for t in days.tolist()]
    np.testing.assert_allclose(by_hand, elapsed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sharpness", [1, 2, 12, 60])
def test_a_season_is_one_on_average_and_highest_on_its_peak(sharpness: int):
    spec = preset(
        "textbook", start="2021-01-01", years=4, season_amplitude=0.7, season_sharpness=sharpness, season_peak="11-20"
    )
    found = season(spec)
    assert found.mean() == pytest.approx(1.0, abs=2e-3)
    assert date_of(spec.start_day + int(found[:365].argmax())) == date(2021, 11, 20)
    if sharpness == 1:
        assert (found.min(), found.max()) == pytest.approx((0.3, 1.7), abs=1e-3)


def seasonal_shop(**changes: object) -> Shop:
    """Customers who all come on the first day and never leave: each repeat order is where the season puts it."""
    return generate(
        preset(
            "textbook", customers=4000, years=3, seed=11, acquisition_days=1, half_life_days=1e6, dropout_shape=5.0,
            season_amplitude=0.6, season_sharpness=1, season_peak="12-10", weekly=(1, 1, 1, 1, 2, 0.5, 0.5), **changes,
        )
    )  # fmt: skip


def test_orders_follow_season_and_week_exactly():
    shop = seasonal_shop()
    assert (shop.customers.dropout_ms > shop.end_day * DAY_MS).mean() > 0.99
    stays = shop.customers.dropout_ms[shop.events.customer] > shop.end_day * DAY_MS
    repeats = (shop.events.at_ms > shop.customers.acquired_ms[shop.events.customer]) & stays
    day = shop.events.at_ms[repeats] // DAY_MS
    days = np.arange(shop.start_day + 1, shop.end_day)  # the first day is cut by the arrivals
    dates = [date_of(each) for each in days.tolist()]
    rate = np.array(
        [
            (1 + 0.6 * np.cos(2 * np.pi * (each.timetuple().tm_yday - 344) / 365.25))
            * (1, 1, 1, 1, 2, 0.5, 0.5)[each.weekday()]
            for each in dates
        ]
    )
    count = np.bincount(day[day > shop.start_day] - shop.start_day - 1, minlength=len(days))
    expected = rate / rate.sum() * count.sum()
    assert expected.min() > 5
    assert chisquare(count, expected).pvalue > UNLIKELY


def test_orders_are_spread_evenly_within_a_day_and_between_customers_of_one_rate():
    shop = seasonal_shop()
    assert kstest((shop.events.at_ms % DAY_MS) / DAY_MS, "uniform").pvalue > UNLIKELY
    is_order = ~shop.events.is_refund
    orders = np.bincount(shop.events.customer[is_order], minlength=len(shop.customers)) - 1
    stays = shop.customers.dropout_ms > shop.end_day * DAY_MS
    # Over whole years the season adds up to one: repeats are Poisson with the customer's own rate.
    came = shop.customers.acquired_ms[stays] / DAY_MS
    mean = shop.customers.rate_per_day[stays] * (shop.end_day - came)
    chi_squared = ((orders[stays] - mean) ** 2 / mean)[mean > 5]
    assert chi_squared.mean() == pytest.approx(1.0, abs=5 * np.sqrt(2 / len(chi_squared)) + 0.02)


# --- people --------------------------------------------------------------------------------------------------------


def test_rates_spend_and_lifetimes_have_their_laws():
    spec = preset("textbook", customers=20_000, seed=5)
    customers = generate(spec).customers
    purchases, money = spec.purchases, spec.spend
    rates = gamma_law(purchases.r, scale=1 / purchases.alpha_days)
    assert kstest(customers.rate_per_day, rates.cdf).pvalue > UNLIKELY
    assert rates.mean() * 365.25 == pytest.approx(spec.orders_per_year)
    scales = gamma_law(money.q, scale=1 / money.gamma_money)
    assert kstest(money.p / customers.mean_spend, scales.cdf).pvalue > UNLIKELY
    assert customers.mean_spend.mean() == pytest.approx(spec.mean_order, rel=0.03)
    life_days = (customers.dropout_ms - customers.acquired_ms) / DAY_MS

    def pareto(t: np.ndarray) -> np.ndarray:
        return 1 - (purchases.beta_days / (purchases.beta_days + t)) ** purchases.s

    assert kstest(np.minimum(life_days, 1e6), lambda t: np.where(t >= 1e6, 1.0, pareto(t))).pvalue > UNLIKELY
    assert pareto(np.array(spec.half_life_days)) == pytest.approx(0.5)
    assert binomtest(int((life_days < spec.half_life_days).sum()), 20_000, 0.5).pvalue > UNLIKELY


def test_customers_of_bg_leave_after_an_order_as_often_as_its_beta_says():
    spec = preset("textbook", customers=20_000, years=5, seed=5, dropout="bg", orders_per_year=20, rate_shape=20)
    shop = generate(spec)
    orders = np.bincount(shop.events.customer, minlength=20_000) - 1
    left = shop.customers.dropout_ms != NEVER_MS
    # With rates this high, who came early had time for two orders: P(leave at k-th) = E[p (1 − p)^(k − 1)].
    early = shop.customers.acquired_ms < (shop.start_day + 365) * DAY_MS
    first = int((early & left & (orders == 1)).sum())
    second = int((early & left & (orders == 2)).sum())
    a, b = spec.bg_a, spec.bg_b
    at_first, at_second = a / (a + b), a * b / ((a + b) * (a + b + 1))
    assert binomtest(first, int(early.sum()), at_first).pvalue > UNLIKELY
    assert binomtest(second, int(early.sum()), at_second).pvalue > UNLIKELY


def test_customers_come_as_growth_says():
    spec = preset("textbook", customers=20_000, years=2, seed=5, growth_per_year=0.5, start="2021-01-01")
    came = generate(spec).customers.acquired_ms
    in_second = int((came >= day_of(date(2022, 1, 1)) * DAY_MS).sum())
    grown = 1.5 ** (365 / 365.25)
    assert binomtest(in_second, 20_000, grown / (1 + grown)).pvalue > UNLIKELY


def test_wholesale_buyers_are_as_many_and_as_large_as_said():
    changes = {"wholesale_rate_factor": 3.0, "wholesale_spend_factor": 10.0}
    spec = preset("textbook", customers=20_000, seed=9, wholesale_share=0.2, **changes)
    customers = generate(spec).customers
    assert binomtest(int(customers.is_wholesale.sum()), 20_000, 0.2).pvalue > UNLIKELY
    for column, factor in ((customers.rate_per_day, 3.0), (customers.mean_spend, 10.0)):
        assert kstest(column[customers.is_wholesale] / factor, column[~customers.is_wholesale]).pvalue > UNLIKELY


def test_amounts_vary_around_their_customers_mean_and_prices_grow():
    spec = preset("textbook", customers=20_000, years=2, seed=4, price_growth_per_year=0.3)
    shop = generate(spec)
    years = (shop.events.at_ms / DAY_MS - shop.start_day) / 365.25
    share = shop.events.minor / 100 / shop.customers.mean_spend[shop.events.customer] / 1.3**years
    assert kstest(share, gamma_law(spec.spend_shape, scale=1 / spec.spend_shape).cdf).pvalue > UNLIKELY


def test_refunds_are_as_many_as_full_and_as_delayed_as_said():
    spec = preset("default", customers=20_000, years=2, seed=4, refund_share=0.2, refund_loose_share=0.1)
    shop = generate(spec)
    events, orders = shop.events, shop.counts["orders"]
    seen, later = shop.counts["refunds"], shop.counts["refunds_after_end"]
    assert binomtest(seen + later, orders, 0.2).pvalue > UNLIKELY
    assert binomtest(shop.counts["refunds_loose"], seen, 0.1).pvalue > UNLIKELY
    named = events.is_refund & (events.order != LOOSE)
    of = events.order[named] - 1
    is_order = ~events.is_refund
    full = events.minor[named] == events.minor[is_order][of]
    assert binomtest(int(full.sum()), len(of), spec.refund_full_share).pvalue > UNLIKELY
    part = events.minor[named][~full] / events.minor[is_order][of][~full]
    assert part.max() < 0.9
    assert np.median(part) == pytest.approx(0.5, abs=0.03)
    early = events.at_ms[is_order][of] < (shop.start_day + 365) * DAY_MS
    delay = (events.at_ms[named] - events.at_ms[is_order][of])[early] / DAY_MS
    assert kstest(delay, "expon", args=(0, 12.0)).pvalue > UNLIKELY


# --- specs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_named_shop_can_be_made(name: str):
    shop = generate(preset(name, customers=300))
    assert shop.counts["orders"] >= 300
    assert PRESETS[name].meaning


def test_every_parameter_is_explained():
    assert [name for name, _, meaning in parameters(ShopSpec()) if len(meaning) < 10] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refund_share": "2"}, "refund_share"),
        ({"refund_shar": "0.1"}, "no parameter 'refund_shar'"),
        ({"currency": "XXX"}, "no currency"),
        ({"season_peak": "02-30"}, "season_peak"),
        ({"weekly": "1,1,1"}, "seven weights"),
        ({"weekly": "0,0,0,0,0,0,0"}, "seven weights"),
        ({"dirty_kinds": "bad_weather"}, "bad_weather"),
        ({"start": "yesterday"}, "start"),
        ({"start": "1969-12-31"}, "1970"),
        ({"start": "9990-01-01", "years": "20"}, "calendar"),
        ({"years": "0.0001"}, "shorter than a day"),
        ({"customers": "0"}, "customers"),
        ({"customers": "10000000", "orders_per_year": "50"}, "fewer customers"),
        ({"acquisition_days": "5000"}, "acquisition_days"),
        ({"dropout": "never"}, "dropout"),
    ],
)
def test_an_impossible_shop_is_refused_with_what_is_wrong(changes: dict[str, str], message: str):
    with pytest.raises(KnownProblem, match=message):
        preset("default", **changes)


def test_an_unknown_shop_is_refused_with_the_known_ones():
    with pytest.raises(KnownProblem, match="wholesale"):
        preset("bazaar")
