"""How long it takes, and how much memory, from an orders file to training sets or a model, in a process of its own."""

import json
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from domain.features import date_of, day_of
from services.trainer.sources.orders import from_file
from services.trainer.train import train

FIRST_DAY = 18_993  # 2022-01-01
YEARS = 3
HORIZON_DAYS = 60
WHOLE_HORIZON_DAYS = 180
REFUND_EVERY = 25
_WRITE_ROWS = 100_000


def run(customers: int, orders: int, windows: int, whole: bool) -> dict[str, Any]:
    """Figures of reading so many orders, and of making so many training sets of them; or, whole, of a model."""
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        path = Path(folder) / "orders.csv"
        write_orders(path, customers, orders)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training", str(path), "0" if whole else str(windows)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return {"file_megabytes": round(path.stat().st_size / 1e6, 1)} | figures


def write_orders(path: Path, customers: int, orders: int, seed: int = 1) -> None:
    """Orders of customers whose rates differ widely, some refunded, in the order of time, as CSV."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.7, 1.0, customers)
    owners = rng.choice(customers, orders, p=rates / rates.sum())
    days = np.sort(rng.integers(0, YEARS * 365, orders))
    seconds = rng.integers(0, 86_400, orders)
    amounts = rng.lognormal(3.4, 0.6, orders)
    dates = [date_of(FIRST_DAY + day).isoformat() for day in range(YEARS * 365)]
    with path.open("w") as file:
        file.write("type,order_id,customer_id,occurred_at,amount,currency\n")
        for start in range(0, orders, _WRITE_ROWS):
            part = slice(start, start + _WRITE_ROWS)
            columns = (column[part].tolist() for column in (owners, days, seconds, amounts))
            for number, (owner, day, second, amount) in enumerate(zip(*columns, strict=True), start):
                at = f"{dates[day]}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
                file.write(f"order,o{number},c{owner:07d},{at},{amount + 0.01:.2f},USD\n")
                if number % REFUND_EVERY == 0:
                    file.write(f"refund,o{number},c{owner:07d},{at},{amount / 3 + 0.01:.2f},USD\n")


def measure(path: Path, windows: int) -> dict[str, Any]:
    """The figures, of this process."""
    began = time.perf_counter()
    cutoff = date_of(FIRST_DAY) + timedelta(days=YEARS * 365)
    history = from_file(path, None, cutoff, "USD").history
    read_seconds, read_megabytes = time.perf_counter() - began, _peak_megabytes()
    last = day_of(cutoff) - HORIZON_DAYS
    sets = history.training_sets([(last - 30 * back, HORIZON_DAYS) for back in range(windows)])
    seconds = time.perf_counter() - began
    sets_bytes = sum(each.inputs.nbytes + each.features.nbytes for each in sets)
    return {
        "events": len(history),
        "customers": len(history.customer_ids),
        "windows": windows,
        "training_rows": sum(map(len, sets)),
        "history_seconds": round(read_seconds, 1),
        "training_sets_seconds": round(seconds - read_seconds, 1),
        "seconds": round(seconds, 1),
        "history_peak_megabytes": read_megabytes,
        "peak_megabytes": _peak_megabytes(),
        "training_sets_megabytes": round(sets_bytes / 1e6),
    }


def measure_whole(path: Path) -> dict[str, Any]:
    """The figures of this process for all that `./clv train` does, held-out periods and card included."""
    began = time.perf_counter()
    cutoff = date_of(FIRST_DAY) + timedelta(days=YEARS * 365)
    data = from_file(path, None, cutoff, "USD")
    with tempfile.TemporaryDirectory(prefix="clv-bench-") as folder:
        bundle = train(data, WHOLE_HORIZON_DAYS, Path(folder))
    return {
        "events": len(data.history),
        "customers": len(data.history.customer_ids),
        "held_out_periods": len(bundle.metadata["backtests"]),
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time(), 1),
        "peak_megabytes": _peak_megabytes(),
    }


def _peak_megabytes() -> int:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


if __name__ == "__main__":
    orders_file, sets = Path(sys.argv[1]), int(sys.argv[2])
    print(json.dumps(measure(orders_file, sets) if sets else measure_whole(orders_file)))
