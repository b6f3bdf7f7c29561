"""How often the model beats Pareto/NBD + Gamma-Gamma on shops that nobody has looked at: generated ones of every kind,
with refunds, wholesale buyers, seasons and dirt, each trained on before a cutoff and measured on the days from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from domain.features import date_of, day_of
from schemas.model_bundle import OUTPUT_NAMES
from services.trainer.evaluation import MODEL, compare
from services.trainer.export import build_graph, run_graph
from services.trainer.fitting import fit_model
from services.trainer.generation import generate, preset
from services.trainer.progress import silent
from services.trainer.quality import is_honest
from services.trainer.sources.orders import from_table

REFERENCE = "Pareto/NBD + Gamma-Gamma"
HIGHER_WINS = ("spearman", "ngini", "auc_active")
MEASURES = ("mae", "rmse", *HIGHER_WINS, "bias")


@dataclass(frozen=True)
class Shop:
    """A preset of the generator with how many customers, over how long, and how far ahead is predicted."""

    preset: str
    customers: int
    years: float
    horizon_days: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.preset}, {self.customers} customers, {self.years:g} years, {self.horizon_days} days ahead"


SHOPS = tuple(
    Shop(*each)
    for each in (
        ("default", 600, 1.0, 90),
        ("default", 2500, 2.0, 180),
        ("default", 12_000, 3.0, 365),
        ("seasonal", 1200, 2.0, 180),
        ("seasonal", 8000, 3.0, 90),
        ("wholesale", 1000, 1.5, 120),
        ("wholesale", 5000, 2.0, 180),
        ("young", 3000, 2.0, 90),
        ("cohort", 6000, 1.5, 180),
        ("textbook", 4000, 2.0, 180),
    )
)


def run(seed: int, shops: tuple[Shop, ...] = SHOPS) -> dict[str, Any]:
    """The figures of each shop, and how many were won by measure. A shop is as its seed and its place make it."""
    found = {}
    with threadpool_limits(1):
        for place, shop in enumerate(shops):
            found[shop.name] = _measured(shop, seed * 1000 + place)
    won = {measure: sum(1 for each in found.values() if measure in each["won"]) for measure in MEASURES}
    return {
        "seed": seed,
        "shops": len(found),
        "won_of_each_measure": won,
        "won_on_all": sum(1 for each in found.values() if len(each["won"]) == len(MEASURES)),
        "shops_with_8_to_12_percent_above_value_p90": sum(1 for each in found.values() if _honest(each["model"])),
        "by_shop": found,
    }


def _measured(shop: Shop, seed: int) -> dict[str, Any]:
    ahead = shop.horizon_days / 365.25
    made = generate(preset(shop.preset, customers=shop.customers, years=shop.years + ahead, seed=seed))
    cutoff = date_of(made.end_day) - timedelta(days=shop.horizon_days)
    table = made.table
    fitted = fit_model(from_table(table, cutoff, "USD").history, day_of(cutoff), shop.horizon_days, silent)
    after = from_table(table, cutoff + timedelta(days=shop.horizon_days), "USD").history
    (held_out,) = after.training_sets([(day_of(cutoff), shop.horizon_days)])
    held_out = held_out.with_quintiles(fitted.quintiles)
    outputs = run_graph(build_graph(fitted.model).SerializeToString(), held_out.features)
    metrics = compare(held_out, {name: outputs[name] for name in OUTPUT_NAMES})
    model, reference = metrics[MODEL], metrics.get(REFERENCE, {})
    return {
        "seed": seed,
        "customers": len(held_out),
        "active_share": round(float(held_out.known_targets.active.mean()), 3),
        "won": [name for name in MEASURES if _wins(name, model.get(name), reference.get(name))],
        "model": {name: _short(value) for name, value in model.items()},
        "reference": {name: _short(reference.get(name)) for name in MEASURES},
        "fallbacks": fitted.fallbacks,
    }


def _wins(measure: str, model: float | None, reference: float | None) -> bool:
    """Better, not as good. Where the reference has no figure, nothing is won."""
    if model is None or reference is None:
        return False
    if measure in HIGHER_WINS:
        return model > reference
    return abs(model) < abs(reference)


def _honest(model: Mapping[str, float | None]) -> bool:
    """Whether value_p90 is exceeded by as many customers as it should be."""
    above = model["share_above_p90"]
    return above is not None and is_honest(above)


def _short(value: float | None) -> float | None:
    return None if value is None else float(np.format_float_positional(value, precision=5, fractional=False))
