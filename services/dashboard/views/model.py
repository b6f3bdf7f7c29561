"""Model: how good the models are, whether the world has moved away from them, and whether a better one is on trial."""

from typing import Any

import streamlit as st

from schemas.http_api.models import Comparison, ModelDetail, ModelRow, Models, Realised
from services.dashboard import markup
from services.dashboard.charts.quality import (
    DRIFT_MUCH,
    DRIFT_SOME,
    calibration_chart,
    drift_chart,
    gain_chart,
    lift_at,
)
from services.dashboard.connection import client
from services.dashboard.display import draw
from services.dashboard.formatting import count, day, money, number, percent
from services.dashboard.markup import Column, Figure
from services.dashboard.server import card_address
from services.dashboard.states import empty_state, loading, page

DRIFT_BARS = 12
METRICS: dict[str, tuple[str, str]] = {
    "mae": ("Mean error", "Mean absolute error per customer; less is better"),
    "rmse": ("RMSE", "Root mean square error per customer; less is better"),
    "spearman": ("Rank correlation", "Spearman's, of predicted and realised value; more is better"),
    "ngini": ("nGini", "How well customers are ranked by value, 1 is perfect; more is better"),
    "bias": ("Total off by", "Predicted total against realised total; nearer to 0 is better"),
    "auc_active": ("AUC active", "How well those who order again are told from the others; more is better"),
    "share_above_p90": ("Above p90", "Share of customers who spent more than value_p90; should be 10%"),
}
"""By the bundle's name of a measure: its title, and what it is."""


@page
def show() -> None:
    """The page."""
    st.title("Model")
    st.html(
        markup.lead("How good the predictions were on days that the model had not seen, and whether they still are.")
    )
    with loading("the models", 200):
        models = client().models()
    if not models.models:
        empty_state("No model yet", "Train one: `./clv train --orders orders.csv --cutoff … --horizon-days …`")
        return
    version = _choice(models)
    with loading("the model", 420):
        detail = client().model(version)
    _head(detail.model)
    _metrics(detail.model)
    _calibration(detail)
    _drift(detail)
    _trial(detail.comparison, detail.model)
    _realised(detail.realised, detail.model.currency)
    _card(detail)


def _choice(models: Models) -> str:
    named = {row.version: f"{row.version} · {row.status}" for row in models.models}
    champion = models.champion if models.champion in named else next(iter(named))
    chosen: str | None = st.selectbox(
        "Model", list(named), index=list(named).index(champion), format_func=lambda version: named.get(version, version)
    )
    return chosen or champion


def _head(model: ModelRow) -> None:
    st.html(
        markup.figures(
            [
                Figure("Status", model.status.capitalize(), _since(model)),
                Figure("Predicts", f"{model.horizon_days} days", f"in {model.currency}"),
                Figure("Trained on", f"before {day(model.cutoff)}" if model.cutoff else "–", _trained(model)),
            ]
        )
    )


def _since(model: ModelRow) -> str:
    if model.promoted_at:
        return f"in use since {day(model.promoted_at)}"
    return f"registered {day(model.registered_at)}" if model.registered_at else ""


def _trained(model: ModelRow) -> str:
    return f"trained {day(model.trained_at)}" if model.trained_at else ""


def _metrics(model: ModelRow) -> None:
    st.subheader("Quality beside simpler models")
    rows = metric_rows(model.metrics, model.currency)
    if not rows:
        empty_state("Not measured", "This bundle keeps no figures of a held-out period.")
        return
    st.html(markup.lead(_period(model.metrics)))
    shown = _measures(model.metrics)
    columns = [Column("Model"), *(Column(METRICS[name][0], right=True) for name in shown)]
    st.html(markup.table("Quality on held-out days", columns, rows, strong=0))
    with st.expander("What the columns mean"):
        st.html(
            markup.table(
                "Measures",
                [Column("Measure"), Column("Meaning", wide=True)],
                [list(METRICS[name]) for name in shown],
            )
        )


def _held_out(metrics: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The measures of each model on the held-out period, by the model's name; the product's own is "model"."""
    measured = metrics.get("metrics", metrics)
    return {name: values for name, values in measured.items() if isinstance(values, dict)}


def _measures(metrics: dict[str, Any]) -> list[str]:
    """The measures that any of the models has, in the order of METRICS."""
    found = {name for values in _held_out(metrics).values() for name in values}
    return [name for name in METRICS if name in found]


def _period(metrics: dict[str, Any]) -> str:
    """Which days the figures are of, as far as the bundle says."""
    if not {"from", "days", "customers"} <= metrics.keys():
        return "On days that training had not seen, on the same customers."
    return (
        f"On the {metrics['days']} days from {day(metrics['from'])}, which training had not seen, "
        f"for {count(metrics['customers'], 'customer')}."
    )


def metric_rows(metrics: dict[str, Any], currency: str) -> list[list[str]]:
    """A row a model, the product's own first, with the measures of _measures()."""
    held_out, shown = _held_out(metrics), _measures(metrics)
    names = sorted(held_out, key=lambda name: name != "model") if shown else []
    return [
        [
            "This model" if name == "model" else name[:1].upper() + name[1:],
            *(_metric(measure, held_out[name].get(measure), currency) for measure in shown),
        ]
        for name in names
    ]


def _metric(name: str, value: float | None, currency: str) -> str:
    if value is None:
        return "–"
    match name:
        case "mae" | "rmse":
            return money(value, currency)
        case "bias":
            return percent(value, signed=True)
        case "share_above_p90":
            return percent(value)
    return number(value, 3)


def _calibration(detail: ModelDetail) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Calibration")
        if detail.deciles:
            st.html(markup.lead("What was predicted for each tenth of the customers, and what came true."))
            draw(
                calibration_chart(detail.deciles, detail.model.currency),
                "Predicted and realised mean spend by tenth of customers",
            )
        else:
            empty_state("Not kept", "This bundle keeps no calibration table.")
    with right:
        st.subheader("Lift")
        if detail.gains:
            best = lift_at(detail.gains, 0.2)
            st.html(
                markup.lead(
                    f"The best-ranked fifth of customers brought {percent(best)} of all spend, "
                    f"{number((best or 0) / 0.2, 1)} times as much as a random fifth."
                )
            )
            draw(gain_chart(detail.gains), "Share of all spend by best-ranked share of customers")
        else:
            empty_state("Not kept", "This bundle keeps no gain curve.")


def _drift(detail: ModelDetail) -> None:
    st.subheader("Drift")
    if not detail.drift:
        empty_state("Not measured yet", "Drift shows once there are enough customers to compare with training.")
        return
    much = [each for each in detail.drift if each.psi >= DRIFT_MUCH]
    said = (
        f"{count(len(much), 'column')} moved much: think about training anew."
        if much
        else "No column has moved much since training."
    )
    st.html(
        markup.lead(
            f"How far {count(detail.drift_customers, 'customer')} of today differ from those of training. {said} "
            f"Lines: from {DRIFT_SOME} some, from {DRIFT_MUCH} much."
        )
    )
    draw(drift_chart(detail.drift[:DRIFT_BARS]), "Population stability index by column")
    rest = len(detail.drift) - DRIFT_BARS
    if rest > 0:
        st.html(markup.quiet(f"{count(rest, 'column')} more moved less than these."))


def _trial(comparison: Comparison | None, model: ModelRow) -> None:
    st.subheader("Champion against challenger")
    if comparison is None:
        empty_state(
            "No challenger is on trial", "`./clv models challenge VERSION` lets one predict beside the champion."
        )
        return
    currency = model.currency
    st.html(
        markup.table(
            "Champion and challenger on the same customers",
            [Column(""), Column("Model"), Column("Total expected value", right=True)],
            [
                ["Champion", comparison.champion, money(comparison.champion_total, currency, whole=True)],
                ["Challenger", comparison.challenger, money(comparison.challenger_total, currency, whole=True)],
            ],
        )
    )
    st.html(
        markup.figures(
            [
                Figure("Compared", f"{comparison.customers:,}", "customers, from the same features"),
                Figure("Mean difference", money(comparison.mean_difference, currency, signed=True), "per customer"),
                Figure("Rank correlation", number(comparison.rank_correlation, 3), "1 is the same order"),
                Figure("Other segment", percent(comparison.segment_differs), "of customers"),
            ]
        )
    )


def _realised(realised: list[Realised], currency: str) -> None:
    st.subheader("What came true in use")
    if not realised:
        empty_state("Nothing to compare yet", "Predictions are held against what came once their days are over.")
        return
    columns = [
        Column("Model"),
        Column("Customers", right=True),
        Column("Predicted", right=True),
        Column("Came true", right=True),
        Column("Mean error", right=True),
        Column("Above p90", right=True),
    ]
    rows = [
        [
            each.model_version,
            f"{each.customers:,}",
            money(each.predicted, currency, whole=True),
            money(each.realised, currency, whole=True),
            money(each.mean_absolute_error, currency),
            percent(each.share_above_p90),
        ]
        for each in realised
    ]
    st.html(markup.table("Predictions held against what came", columns, rows))


def _card(detail: ModelDetail) -> None:
    st.subheader("Model card")
    if not detail.has_card:
        empty_state("No card", "This bundle was made without one.")
        return
    address = card_address(detail.model.version)
    st.link_button("Open the model card", address, icon=":material/open_in_new:")
    with st.expander("Show it here"):
        st.iframe(address, height=720, alt="Model card")
