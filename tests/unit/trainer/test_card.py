"""The model card: complete, self-contained, safe, the same for the same facts; and it does not change the version."""

import re
from base64 import b64decode
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from domain.features import FEATURE_NAMES, INPUT_NAMES
from schemas.dead_letters import Reason
from schemas.model_bundle import METADATA_FILE, MODEL_FILE
from services.trainer.bundle_writer import FIGURES, figure, write_bundle
from services.trainer.card import card_files, cell, leaves, signed
from services.trainer.card_facts import data_facts, limits
from services.trainer.card_plots import best_baseline
from services.trainer.evaluation import MEAN
from services.trainer.history import TrainingSet
from services.trainer.quality import HEADINGS, quality
from tests.unit.trainer.backtests import ORIGIN, backtest

BACKTESTS = [backtest(800, seed=1, origin_day=ORIGIN - 90), backtest(900)]
HALVED = backtest(900, factor=0.5)


@cache
def both() -> dict[str, Any]:
    return quality(BACKTESTS)


PLOTS = {"gain", "lift", "calibration", "coverage", "residuals", "reliability", "pit", "importance", "periods"}


def metadata(**changes: Any) -> dict[str, Any]:
    facts = both()
    known = population()
    rejected = Counter({Reason.INVALID_AMOUNT: 3, Reason.UNKNOWN_CURRENCY: 2})
    counted = {reason.value: count for reason, count in rejected.items()}
    data = data_facts(known, ORIGIN - 400, 5000, rejected)
    return {
        "horizon_days": 90,
        "currency": "USD",
        "cutoff": "2024-10-04",
        "training_window": {"first_day": "2023-08-31", "last_day": "2024-10-03"},
        "counts": {
            "customers": len(known),
            "events": 5000,
            "rejected": counted,
        },
        "structural": {"name": "exact"},
        "choices": {"structural": "exact", "weights": {"value": 0.5}},
        "fallbacks": ["too little history for <everything> | here"],
        "parity": {"rows": 100, "error_max": 1e-6},
        **facts,
        "data": data,
        "limits": limits(data, rejected, facts["backtests"], 90, "USD"),
        **changes,
    }


def population(customers: int = 500, **columns: Any) -> TrainingSet:
    chance = np.random.default_rng(0)
    inputs = np.ones((customers, len(INPUT_NAMES)))
    features = np.ones((customers, len(FEATURE_NAMES)))
    values = {
        "customer_lifetime_days": chance.integers(0, 400, customers),
        "recency_days": chance.integers(0, 300, customers),
        "frequency": chance.poisson(1.0, customers),
        "total_spending": 100.0,
        "refund_share": 0.05,
        "customer_age": np.nan,
    } | columns
    for name, column in values.items():
        features[:, FEATURE_NAMES.index(name)] = column
    return TrainingSet(ORIGIN, 0, tuple(f"c{n:04d}" for n in range(customers)), inputs, features, None)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return card_files({"model_version": "0123456789abcdef", **metadata()}, BACKTESTS)


class Page(HTMLParser):
    """What a page shows and refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_card_says_in_a_sentence_that_customers_are_of_two_classes(files):
    found = {"second_class": {"found": True, "share": 0.0812, "spend_factor": 15.71, "rate_factor": 5.96}}
    told = card_files({"model_version": "0123456789abcdef", **metadata(choices=found)}, ())
    for name in ("model_card.html", "model_card.md"):
        assert "8.1% spend 15.7 times as much" in told[name].decode()
        assert "order 6.0 times as often" in told[name].decode()
        assert "two classes" not in files[name].decode()
    without = {"second_class": {"found": False, "log_likelihood_gain": 1.2}}
    told = card_files({"model_version": "0123456789abcdef", **metadata(choices=without)}, ())
    assert b"two classes" not in told["model_card.md"]


def test_the_html_card_loads_nothing_from_elsewhere(files):
    page = Page(files["model_card.html"].decode())
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
    assert "url(" not in files["model_card.html"].decode()


def test_every_plot_is_in_both_cards_and_says_in_words_what_it_shows(files):
    assert {Path(name).stem for name in files if name.startswith("plots/")} == PLOTS
    images = [attributes for tag, attributes in Page(files["model_card.html"].decode()).tags if tag == "img"]
    shown = {b64decode((each["src"] or "").split(",", 1)[1]) for each in images}
    assert shown == {content for name, content in files.items() if name.startswith("plots/")}
    assert all(len(each["alt"] or "") > 40 for each in images)
    linked = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", files["model_card.md"].decode())
    assert {target for _, target in linked} == {name for name in files if name.startswith("plots/")}
    for name in PLOTS:
        ElementTree.fromstring(files[f"plots/{name}.svg"])


def test_both_cards_hold_every_figure_of_every_model_and_period(files):
    facts = metadata()
    for text in (Page(files["model_card.html"].decode()).text, files["model_card.md"].decode()):
        for test in facts["backtests"]:
            assert test["from"] in text
            for name, figures in test["metrics"].items():
                assert name in text
                for each in ("mae", "rmse", "spearman", "ngini", "bias", "decile_mape", "auc_active"):
                    assert figure(each, figures[each]) in text
        low, high = facts["backtests"][-1]["intervals"]["model"]["ngini"]
        assert f"{low:.3f} to {high:.3f}" in text
        for heading in HEADINGS.values():
            assert heading in text
        assert "model, certain" in text
        assert "undecided" in text


def test_both_cards_say_what_the_data_lacks(files):
    facts = metadata()
    page = " ".join(Page(files["model_card.html"].decode()).text.split())
    markdown = files["model_card.md"].decode()
    for each in facts["limits"]:
        assert each in page
        assert cell(each) in markdown
    for text in (page, markdown):
        for reason, count in facts["counts"]["rejected"].items():
            assert re.search(rf"{reason}\D*{count}\b", text)
        assert "99.9001%" in text, "usable rows: 5,000 of 5,005"


def test_text_from_outside_cannot_become_markup(files):
    html, markdown = files["model_card.html"].decode(), files["model_card.md"].decode()
    assert "<everything>" not in html
    assert "&lt;everything&gt; | here" in html
    assert "\\<everything> \\| here" in markdown


def test_no_customer_is_named(files):
    ids = [customer.encode() for each in BACKTESTS for customer in each.customer_ids[:50]]
    assert not [customer for customer in ids for content in files.values() if customer in content]


@pytest.mark.slow
def test_the_same_facts_give_the_same_bytes(files):
    assert card_files({"model_version": "0123456789abcdef", **metadata()}, BACKTESTS) == files


def test_the_card_has_no_part_in_the_version(tmp_path: Path):
    facts = metadata()
    with_plots, folder = write_bundle(tmp_path / "a", b"graph", facts, BACKTESTS)
    without, plain = write_bundle(tmp_path / "b", b"graph", facts)
    assert with_plots == without
    assert {path.name for path in folder.iterdir()} == {
        MODEL_FILE, METADATA_FILE, "model_card.html", "model_card.md", "plots",
    }  # fmt: skip
    assert {path.stem for path in (folder / "plots").iterdir()} == PLOTS
    assert not (plain / "plots").exists()
    other, _ = write_bundle(tmp_path / "a", b"graph", facts | {"limits": ["another"]})
    assert other != with_plots


def test_a_bundle_that_could_not_be_measured_has_a_card_too():
    nothing = metadata(**quality([]))
    found = card_files({"model_version": "v", **nothing})
    assert set(found) == {"model_card.html", "model_card.md"}
    for content in found.values():
        assert "its quality is unknown" in content.decode()


def test_metadata_of_an_older_trainer_still_makes_a_card():
    old = {
        name: value for name, value in metadata().items() if name not in ("backtests", "importance", "data", "limits")
    }
    assert b"Net value of a customer" in card_files({"model_version": "v", **old})["model_card.html"]


def test_the_best_baseline_is_the_one_that_ranks_best():
    assert best_baseline(metadata()["backtests"][-1]) == "the truth"
    assert best_baseline({"metrics": {"model": {"ngini": 0.9}, MEAN: {"ngini": None}}}) is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mae", -1234.5, "−1,234.50"),
        ("bias", 0.0312, "+3.1%"),
        ("ngini", -0.0004, "0.000"),
        ("auc_active", 0.0, "0.000"),
    ],
)
def test_a_difference_has_a_sign_unless_it_is_nothing(name, value, says):
    assert signed(name, value) == says


def test_choices_are_listed_by_their_dotted_names():
    assert leaves({"a": {"b": 0.123456789, "c": {}}, "d": [1, 2]}) == [("a.b", "0.123457"), ("d", "[1, 2]")]


def test_what_fits_into_a_terminal_is_part_of_the_card():
    assert FIGURES.items() <= HEADINGS.items()
    assert figure("mae", None) == "–"


def said(**changes: Any) -> str:
    """The limits of data that lacks nothing, but for the changes."""
    data = {"period_days": 1000, "newest_customer_days": 0, "first_month_share": 0.03, "silent_year_share": 0.0,
            "customers": 20_000, "repeat_buyers": 9_000, "refunded_share": 0.02, "top_percent_share": 0.05,
            "missing_shares": {}}  # fmt: skip
    tests = changes.pop("tests", both()["backtests"])
    tests = quality([HALVED])["backtests"] if changes.pop("halved", False) else tests
    rejected = changes.pop("rejected", Counter())
    horizon = changes.pop("horizon", 90)
    return "\n".join(limits(data | changes, rejected, tests, horizon, "EUR"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"period_days": 300}, "not one whole year"),
        ({"period_days": 500}, "no season was seen twice"),
        ({"period_days": 60}, "further than the 60 days"),
        ({"newest_customer_days": 200}, "No customer is new"),
        ({"first_month_share": 0.4}, "40% of the customers have their first known order in the first 30 days"),
        ({"customers": 600, "repeat_buyers": 300}, "only 600 customers"),
        ({"repeat_buyers": 1_000}, "Only 1,000 of 20,000 customers (5.0%) ever ordered again"),
        ({"refunded_share": 0.0}, "no refund"),
        ({"top_percent_share": 0.3}, "top 1% of customers brought 30%"),
        ({"missing_shares": {"customer_age": 1.0}}, "Nobody's age"),
        ({"rejected": Counter({Reason.UNKNOWN_CURRENCY: 7})}, "7 rows in another or an unknown currency"),
        ({"horizon": 180}, "The horizon of 180 days was never tested in full"),
        ({"tests": []}, "quality is unknown"),
        ({"tests": both()["backtests"][-1:]}, "one held-out period only"),
        ({"halved": True}, "Totals were off by -4"),
        ({"halved": True}, "value_p90 was exceeded by"),
        ({"halved": True}, "the truth was certainly better"),
        ({"halved": True}, "beyond chance"),
    ],
)
def test_each_limit_is_said_where_the_data_has_it_and_only_there(changes, sentence):
    assert sentence in said(**changes)
    assert sentence not in said()


def test_the_completeness_of_the_data_is_counted():
    found = data_facts(population(400), ORIGIN - 400, 3_000, Counter({Reason.INVALID_AMOUNT: 40}), duplicates=60)
    assert (found["rows_read"], found["refused"], found["duplicates"]) == (3_100, 40, 60)
    assert found["usable_share"] == pytest.approx(3_060 / 3_100, abs=1e-6)
    assert found["missing_shares"] == {"customer_age": 1.0}
    assert (found["cells"], found["cells_missing"]) == (400 * len(FEATURE_NAMES), 400)
    assert found["refunded_share"] == pytest.approx(0.05)
    assert found["period_days"] == 400
    with pytest.raises(ValueError, match="no customers"):
        data_facts(population(0), ORIGIN - 400, 0, Counter())
