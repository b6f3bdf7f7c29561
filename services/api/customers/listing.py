"""What a list of customers is asked for: filters and orders as MongoDB's, each order backed by a declared index.

Pure. Must never build a query that would have to sort what it found.
"""

import math
from typing import Any, NamedTuple

from domain.segments import ASCENDING
from schemas.http_api.customers import Sort
from schemas.mongo import SEGMENTS_BY_ACTIVITY, SEGMENTS_BY_HISTORY, SEGMENTS_BY_UPDATE, SEGMENTS_BY_VALUE
from services.api.customers.paging import SortBy, begins_with

_FIELDS = {
    "expected_value": "prediction.expected_value",
    "p_active": "prediction.p_active",
    "historical_value": "prediction.historical_value",
    "updated_at": "updated_at",
    "customer_id": "_id",
}
_INDEXES = {
    "expected_value": SEGMENTS_BY_VALUE,
    "p_active": SEGMENTS_BY_ACTIVITY,
    "historical_value": SEGMENTS_BY_HISTORY,
    "updated_at": SEGMENTS_BY_UPDATE,
}
SEGMENT = "prediction.segment"
_ANY_SEGMENT = {"$in": [segment.value for segment in ASCENDING]}


class Question(NamedTuple):
    """Which customers, and in which order."""

    sort: Sort = "-expected_value"
    segment: str | None = None
    min_value: float | None = None
    """Of expected_value, inclusive; major units."""
    max_value: float | None = None
    """Inclusive."""
    prefix: str = ""
    """Of customer_id."""

    @property
    def by(self) -> SortBy:
        """The order."""
        name = self.sort.removeprefix("-")
        return SortBy(_FIELDS[name], self.sort.startswith("-"), is_time=name == "updated_at")

    @property
    def wanted(self) -> dict[str, Any]:
        """The filter. It names the segments even where all are wanted: the indexes of the orders begin with them.

        (MongoDB reads such an index once a segment and merges, which is no sorting.)
        """
        found: dict[str, Any] = {}
        if self.segment is not None:
            found[SEGMENT] = self.segment
        elif self.by.field != "_id":
            found[SEGMENT] = _ANY_SEGMENT
        between = {
            name: bound
            for name, bound in (("$gte", self.min_value), ("$lte", self.max_value))
            if bound is not None and math.isfinite(bound)
        }
        if between:
            found["prediction.expected_value"] = between
        if self.prefix:
            found["_id"] = begins_with(self.prefix)
        return found

    @property
    def best_index(self) -> str | None:
        """The index to read, where there is no better choice; None leaves it to MongoDB.

        MongoDB itself would now and then rather sort what it takes for little.
        """
        name = self.sort.removeprefix("-")
        if name == "customer_id":
            return "_id_"
        bounded = self.min_value is not None or self.max_value is not None
        if self.prefix or (bounded and name != "expected_value"):
            return None
        return _INDEXES.get(name)

    @property
    def wanted_key(self) -> tuple[object, ...]:
        """The filter as a key: how many match does not depend on their order."""
        return (self.segment, self.min_value, self.max_value, self.prefix)

    @property
    def key(self) -> str:
        """The question as text, for its cursors."""
        return "|".join((self.sort, self.segment or "", repr(self.min_value), repr(self.max_value), self.prefix))
