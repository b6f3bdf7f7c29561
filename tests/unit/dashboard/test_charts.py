"""Charts say what the answers say, in the colours that belong to it."""

import json
from itertools import combinations, pairwise

import numpy as np
import pytest

from schemas.http_api.live import Live, RatePoint
from schemas.http_api.models import DecileRow, FeatureDrift, GainPoint
from services.dashboard.charts.population import migration_chart, shares_chart
from services.dashboard.charts.pulse import SHOWN_SECONDS, rate_chart
from services.dashboard.charts.quality import calibration_chart, drift_chart, drift_level, gain_chart, lift_at
from services.dashboard.charts.timeline import active_chart, orders_chart, span, value_chart
from services.dashboard.charts.value import interval_chart, population_chart, waterfall_chart, waterfall_rows
from services.dashboard.theme import INK, MUTED, PAPER, SEGMENT_COLOURS, STREAMLIT_OPTIONS, SURFACE, Chart
from tests.unit.dashboard.answers import customer_orders, explanation, migration, outlook, prediction, segments


def data_of(chart: Chart) -> list[dict]:
    """All rows that the chart draws."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_a_waterfall_walks_from_typical_customers_to_the_prediction():
    rows = waterfall_rows(explanation({"a": 30.0, "b": -12.5, "c": 4.0}), "This customer")
    assert [row["label"] for row in rows] == ["Typical customer", "a", "b", "c", "This customer"]
    assert [row["kind"] for row in rows] == ["total", "plus", "minus", "plus", "total"]
    for before, after in pairwise(rows[:-1]):
        assert after["start"] == before["end"]
    assert rows[-2]["end"] == pytest.approx(rows[-1]["end"])
    assert rows[1]["text"] == "+$30.00"


def test_many_facts_share_a_last_step_and_still_end_at_the_prediction():
    facts = {f"fact {n}": 20.0 - 3 * n for n in range(14)}
    rows = waterfall_rows(explanation(facts), "This customer")
    assert len(rows) == 10
    assert rows[-2]["label"] == "Everything else"
    assert rows[-2]["end"] == pytest.approx(rows[-1]["end"])


def test_a_fact_without_effect_takes_no_room():
    assert len(waterfall_rows(explanation({"a": 1.0, "nothing": 0.0}), "x")) == 3


@pytest.mark.parametrize(
    "chart",
    [
        interval_chart(outlook()),
        population_chart(segments(), 41.7, "This customer"),
        population_chart(segments(thresholds=None)),
        waterfall_chart(explanation({"a": 1.0, "b": -200.0}), "This customer"),
        waterfall_chart(explanation({"a": 0.1}, base=0.3, unit="probability"), "This customer"),
        shares_chart(segments()),
        migration_chart(migration()),
        value_chart([prediction("2026-05-04"), prediction("2026-05-03")], ("2026-01-01", "2026-06-01")),
        active_chart([prediction("2026-05-04")], ("2026-01-01", "2026-06-01")),
        orders_chart(customer_orders(), ("2026-01-01", "2026-06-01")),
        calibration_chart([DecileRow(decile=1, customers=20, predicted=90.0, realised=80.0)], "USD"),
        gain_chart([GainPoint(customers_share=0.2, value_share=0.6)]),
        drift_chart([FeatureDrift(name="recency_days", psi=0.3)]),
    ],
)
def test_every_chart_is_valid_vega_lite_with_data(chart):
    document = chart.to_dict()  # validates against the schema of Vega-Lite
    assert data_of(chart)
    assert "https://" not in json.dumps({key: value for key, value in document.items() if key != "$schema"})


def test_the_share_chart_adds_up_and_keeps_the_segments_colours():
    rows = data_of(shares_chart(segments()))
    for of in ("Customers", "Value"):
        assert sum(row["share"] for row in rows if row["of"] == of) == pytest.approx(1.0)
    text = json.dumps(shares_chart(segments()).to_dict())
    assert all(colour in text for colour in SEGMENT_COLOURS.values())


def test_movement_is_counted_by_row():
    rows = {
        (row["from"].replace("\n", " "), row["to"].replace("\n", " ")): row
        for row in data_of(migration_chart(migration()))
    }
    assert rows["High value", "At risk"]["share"] == pytest.approx(0.2)
    assert rows["New customer", "At risk"]["text"] == "5"


def test_a_timeline_shows_all_orders_and_the_last_prediction_of_a_day():
    predictions = [
        prediction("2026-05-04", expected_value=9.0),
        prediction("2026-05-04", expected_value=8.0),
        prediction("2026-03-01"),
    ]
    days = span(customer_orders(), predictions)
    assert days[0] < "2026-01-01"
    assert days[1] > "2026-05-04"
    rows = data_of(value_chart(predictions, days))
    assert [row["expected"] for row in rows] == [41.7, 9.0]
    states = {row["state"] for row in data_of(orders_chart(customer_orders(), days))}
    assert states == {"Order", "Refunded, at least in part", "Cancelled"}


def test_a_second_without_predictions_is_drawn_as_none():
    live = Live(
        at="2026-05-04T12:00:00Z", predictions_total=7, predictions_per_second=0.1,
        rates=[RatePoint(second=1_777_895_999, predictions=7)], by_segment={}, freshness_seconds_p50=None,
        freshness_seconds_p99=None, newest_prediction_seconds=None, lags=[], dead_letters=[], customers=1, kafka=True,
    )  # fmt: skip
    rows = data_of(rate_chart(live))
    assert len(rows) == SHOWN_SECONDS + 1
    assert sum(row["predictions"] for row in rows) == 7


def test_lift_is_read_between_the_points():
    gains = [GainPoint(customers_share=0.1, value_share=0.4), GainPoint(customers_share=0.3, value_share=0.8)]
    assert lift_at(gains, 0.2) == pytest.approx(0.6)
    assert lift_at(gains, 0.1) == 0.4
    assert lift_at(gains, 0.9) is None


def test_drift_in_words():
    assert [drift_level(psi) for psi in (0.0, 0.0999, 0.1, 0.2499, 0.25, 3.0)] == [
        "Hardly any", "Hardly any", "Some", "Some", "Much", "Much",
    ]  # fmt: skip


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_can_be_read_on_every_background():
    for text in (INK, MUTED, STREAMLIT_OPTIONS["theme.linkColor"]):
        for background in (PAPER, SURFACE):
            assert contrast(text, background) >= 4.5, (text, background)
    assert contrast(STREAMLIT_OPTIONS["theme.primaryColor"], PAPER) >= 4.5  # white on buttons


# Machado, Oliveira and Fernandes (2009), severity 1.0: what people with one kind of cone missing see.
SIGHT = {
    "trichromacy": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("sight", SIGHT)
def test_segments_can_be_told_apart_with_any_colour_vision(sight):
    seen = {}
    for name, colour in SEGMENT_COLOURS.items():
        channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        seen[name] = lab(np.clip(SIGHT[sight] @ linear, 0, 1))
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)  # 2.3 is just noticeable


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(np.maximum(xyz / [0.95047, 1.0, 1.08883], 1e-4))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
