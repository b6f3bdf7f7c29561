"""Topics as declared in schemas/topics/*.yaml: name, key, partitions, retention, owner. Read once; used everywhere."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

TOPICS_DIR = Path(__file__).parent / "topics"


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One declared topic."""

    name: Annotated[str, Meta(pattern=r"^clv\.[a-z-]+(\.v[0-9]+)?$")]
    purpose: str
    owner: str
    producers: list[str]
    consumers: list[str]
    key: str
    schema: str | None
    partitions: Annotated[int, Meta(ge=1)]
    config: dict[str, str | int | float]

    @property
    def is_compacted(self) -> bool:
        """Whether a tombstone removes what the topic holds of its key."""
        return "compact" in str(self.config.get("cleanup.policy", "")).split(",")

    def broker_config(self) -> dict[str, str]:
        """Topic settings as the broker takes them."""
        return {key: str(value) for key, value in self.config.items()}


@cache
def topics() -> Mapping[str, Topic]:
    """All declared topics by their short name, the file's. Raises ValueError naming the file that is wrong."""
    found = {}
    for path in sorted(TOPICS_DIR.glob("*.yaml")):
        try:
            found[path.stem] = msgspec.convert(yaml.safe_load(path.read_text()), Topic)
        except (msgspec.ValidationError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: {error}") from error
    return found


def topic(short_name: str) -> Topic:
    """The declared topic. Raises KeyError with the names there are."""
    try:
        return topics()[short_name]
    except KeyError:
        raise KeyError(f"no topic {short_name!r} is declared; there are {', '.join(topics())}") from None


CUSTOMER_EVENTS = topic("customer-events").name
ORDERS = topic("orders").name
CUSTOMER_STATE_CHANGELOG = topic("customer-state-changelog").name
CUSTOMER_FEATURES = topic("customer-features").name
PREDICTIONS = topic("predictions").name
CHALLENGER_PREDICTIONS = topic("challenger-predictions").name
SEGMENT_THRESHOLDS = topic("segment-thresholds").name
DEAD_LETTERS = topic("dead-letters").name
