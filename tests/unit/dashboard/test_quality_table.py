"""The table of measures: the product's own model first, beside the baselines, whatever a bundle keeps."""

from domain.features import FEATURES
from services.dashboard.formatting import feature_label, feature_meaning
from services.dashboard.views.model import metric_rows

HELD_OUT = {
    "past spend rate": {"mae": 37.5, "bias": 1.63, "spearman": None},
    "model": {"mae": 17.9, "bias": -0.14, "spearman": 0.378, "unheard_of": 1.0},
}


def test_the_products_model_stands_first_and_money_has_its_currency():
    rows = metric_rows({"from": "1997-09-02", "days": 122, "customers": 23500, "metrics": HELD_OUT}, "EUR")
    assert rows == [["This model", "€17.90", "0.378", "−14%"], ["Past spend rate", "€37.50", "–", "+163%"]]


def test_figures_without_their_period_are_shown_all_the_same():
    assert metric_rows(HELD_OUT, "EUR")[0][0] == "This model"


def test_a_bundle_without_figures_has_no_rows():
    assert metric_rows({}, "USD") == []


def test_every_column_of_the_model_has_a_name_and_a_meaning_for_people():
    for feature in FEATURES:
        label, meaning = feature_label(feature.name), feature_meaning(feature.name)
        assert "_" not in label
        assert "as_of" not in meaning
        assert meaning
    assert feature_label("net_spend_90d") == "Net spend, 90 days"
    assert feature_label("btyd_T") == "BTYD T"
