"""How good the trained model is on a later period of a shop, beside naive and BTYD baselines on the same customers.

Trains on what happened before the cutoff alone, as `./clv train` does, then looks at what really happened after it.
"""

import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from deploy.local import binaries
from domain.features import day_of
from schemas.model_bundle import OUTPUT_NAMES
from services.inference.model import load_model
from services.trainer.evaluation import compare
from services.trainer.orders_file import read_any, read_cdnow
from services.trainer.sources.orders import from_table
from services.trainer.train import train


def run(orders: Path | None, cutoff: date, horizon_days: int, currency: str) -> dict[str, Any]:
    """Run the benchmark on CDNOW, or on a file of one's own; returns its figures."""
    table = read_any(orders) if orders else read_cdnow(binaries.cdnow_purchases())
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        began = time.perf_counter()
        bundle = train(from_table(table, cutoff, currency), horizon_days, Path(folder))
        seconds = time.perf_counter() - began
        model = load_model(bundle.path, currency)
    origin = day_of(cutoff)
    history = from_table(table, cutoff + timedelta(days=horizon_days), currency).history
    (held_out,) = history.training_sets([(origin, horizon_days)])
    outcomes = model.predict(held_out.with_quintiles(model.metadata.quintiles).features)
    return {
        "cutoff": cutoff.isoformat(),
        "horizon_days": horizon_days,
        "customers": len(held_out),
        "training_seconds": round(seconds, 1),
        "model_version": model.version,
        "metrics": compare(held_out, {name: getattr(outcomes, name) for name in OUTPUT_NAMES}),
    }
