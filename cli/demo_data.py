"""What the demo replays: CDNOW or the user's own file, as public events and as the batch oracle's events; its model."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from cli.platform import home
from cli.publishing import Event as PublicEvent
from deploy.local import binaries
from domain.customer import DAY_MS, Event
from domain.features import date_of
from schemas.profile_model import METADATA_FILE
from services.runtime.bundle import POINTER
from services.runtime.shutdown import KnownProblem
from services.trainer.judged_rows import domain_events
from services.trainer.orders_file import OrdersTable, customer_events, read_any, read_cdnow
from services.trainer.profile.table import table_of
from services.trainer.profile.train import train_profile
from services.trainer.progress import Progress
from services.trainer.sources.orders import from_table
from services.trainer.train import train

HORIZON_DAYS_MAX = 180
PROFILE_SEED = 7
Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoData:
    """One history in the forms that the demo needs."""

    name: str
    table: OrdersTable
    currency: str
    events: list[PublicEvent]
    """Public events in the order they happened; the broken ones where they stand in the file."""
    domain_events: dict[str, list[Event]]
    """Valid events by customer, for the batch recomputation."""
    first_day: int
    last_day: int
    """Days since 1970 (UTC) of the first and last valid event."""


def load_demo_data(orders: Path | None, columns: dict[str, str], currency: str, say: Say) -> DemoData:
    """Read the history. Raises KnownProblem if the file cannot be read or holds no valid order."""
    table = read_any(orders, columns) if orders else read_cdnow(binaries.cdnow_purchases(announce=say))
    valid, _ = domain_events(table, currency)
    days = [event.occurred_at_ms // DAY_MS for events in valid.values() for event in events]
    if not days:
        raise KnownProblem(
            f"{table.name} holds no valid order: see the columns in the README, or use --map name=column"
        )
    events = sorted(customer_events(table, currency), key=_when)
    return DemoData(table.name, table, currency, events, valid, min(days), max(days))


def _when(event: PublicEvent) -> str:
    return str(event.get("occurred_at") or "")


def demo_model(data: DemoData, models_dir: Path, say: Say) -> Path:
    """Models folder with a model for this history; trained now if there is none.

    The model sees what happened before its cutoff alone; the horizon behind the cutoff is a third of the history,
    HORIZON_DAYS_MAX at most.
    """
    horizon_days = max(1, min(HORIZON_DAYS_MAX, (data.last_day - data.first_day + 1) // 3))
    cutoff: date = date_of(data.last_day + 1) - timedelta(days=horizon_days)
    folder = models_dir / f"{data.table.fingerprint[:16]}-{data.currency}-{cutoff.isoformat()}-{horizon_days}d"
    if (folder / POINTER).is_file():
        say(f"model of an earlier run: {folder.name}")
        return folder
    say(f"training on {data.name} before {cutoff.isoformat()}, horizon {horizon_days} days")
    train(from_table(data.table, cutoff, data.currency), horizon_days, folder, _once_each(say))
    return folder


def cdnow_model(say: Say, currency: str = "USD") -> Path:
    """Models folder, in the installation's home, with the demo's model of CDNOW; trained now if there is none."""
    return demo_model(load_demo_data(None, {}, currency, say), home() / "models", say)


def _once_each(say: Say) -> Progress:
    """Progress that says what begins, and not how far it is."""
    last = ""

    def tell(what: str, done: int = 0, total: int | None = None) -> None:
        nonlocal last
        if what != last:
            say(what)
        last = what

    return tell


def demo_profile(data: DemoData, models_dir: Path, say: Say) -> Path | None:
    """Folder of a profile model for this history; trained now, without the neural candidate, if there is none.

    None, and said, for a history that is too short for one: forms are answered without it.
    """
    folder = models_dir / f"{data.table.fingerprint[:16]}-{data.currency}-profile"
    if (folder / METADATA_FILE).is_file():
        return folder
    say(f"training the classic profile model on {data.name}")
    try:
        table = table_of(data.table, data.currency, None, {}, {"kind": "orders file", "file": data.name})
        train_profile(table, folder, seed=PROFILE_SEED, with_network=False, progress=lambda _: None)
    except KnownProblem as problem:
        say(f"no profile model: {problem}")
        return None
    return folder
