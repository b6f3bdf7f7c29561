"""GET /v1/segments: how the population divides, and who moved, as aggregations of MongoDB and what is made of them.

Pure but for the queries, of which each reads one declared index alone. Must never load customers one by one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from domain.segments import STRATEGY, Segment
from schemas.http_api.outlook import SEGMENT_NAMES, SegmentName
from schemas.http_api.segments import Bin, Flow, Migration, Segments, SegmentSummary
from schemas.mongo import CUSTOMERS, PREDICTION_HISTORY, SEGMENTS_BY_DAY, SEGMENTS_BY_VALUE
from services.api.customers.listing import Question
from services.api.store import Document, Store

_VALUE = "$prediction.expected_value"
_BINS_DECADES = 4
"""The histogram begins so many powers of ten below the greatest value."""
_SMALLEST = 1e-6
"""What is less is nothing, in any currency."""
_MANTISSAS = (1.0, 2.0, 5.0)


class _Newest(NamedTuple):
    """What the newest prediction says of all."""

    as_of: str | None
    currency: str
    horizon_days: int | None
    thresholds: tuple[float, float, float] | None


def bin_edges(greatest: float) -> list[float]:
    """Round edges, 0 and then 1, 2, 5, 10, … for values from 0 up to `greatest`, which is below the last one."""
    if greatest < _SMALLEST:
        return [0.0, 1.0]
    top = math.floor(math.log10(greatest))
    edges = [0.0]
    for power in range(top - _BINS_DECADES + 1, top + 2):
        for mantissa in _MANTISSAS:
            edge = float(f"{mantissa:g}e{power}")  # rounded once, where 10**power times a number is not
            edges.append(edge)
            if edge > greatest:
                return edges
    raise AssertionError(f"no edge above {greatest}")


def summary_pipeline(edges: Sequence[float]) -> list[Document]:
    """Aggregation of CUSTOMERS: counts and sums by segment and bin. Reads the index SEGMENTS_BY_VALUE alone."""
    reached = {"$size": {"$filter": {"input": list(edges), "as": "edge", "cond": {"$lte": ["$$edge", _VALUE]}}}}
    return [
        {"$match": Question().wanted},
        {
            "$project": {
                "_id": 0,
                "prediction.segment": 1,
                "prediction.expected_value": 1,
                "prediction.p_active": 1,
                "prediction.historical_value": 1,
            }
        },
        {
            "$group": {
                "_id": {"segment": "$prediction.segment", "bin": {"$subtract": [reached, 1]}},
                "customers": {"$sum": 1},
                "value": {"$sum": _VALUE},
                "active": {"$sum": "$prediction.p_active"},
                "historical": {"$sum": "$prediction.historical_value"},
            }
        },
    ]


def flows_pipeline(from_date: str, to_date: str) -> list[Document]:
    """Aggregation of PREDICTION_HISTORY: how many customers went from which segment to which between two dates.

    By each customer's prediction with the highest feature_version as of each date. Reads SEGMENTS_BY_DAY alone.
    """
    entry = {"version": "$feature_version", "segment": "$prediction.segment"}
    return [
        {"$match": {"as_of": {"$lte": to_date}}},
        {"$project": {"_id": 0, "as_of": 1, "customer_id": 1, "feature_version": 1, "prediction.segment": 1}},
        {
            "$group": {
                "_id": "$customer_id",
                "was": {"$max": {"$cond": [{"$lte": ["$as_of", from_date]}, entry, None]}},
                "became": {"$max": entry},
            }
        },
        {"$group": {"_id": {"was": "$was.segment", "became": "$became.segment"}, "customers": {"$sum": 1}}},
    ]


async def read_segments(store: Store, currency: str) -> Segments:
    """The population as it is now, without a migration. currency: what is answered while there is no customer.

    Raises PyMongoError if MongoDB does not answer."""
    newest = await _newest(store)
    dates = await store.some(PREDICTION_HISTORY, {}, order=[("as_of", 1)], limit=1, fields={"as_of": 1})
    first_date = dates[0]["as_of"] if dates else None
    if newest is None:
        return segments_of([], [0.0, 1.0], _Newest(None, currency, None, None), first_date)
    wanted = Question("-expected_value")
    greatest = await store.some(
        CUSTOMERS,
        wanted.wanted,
        order=wanted.by.order,
        limit=1,
        fields={"prediction.expected_value": 1},
        index=wanted.best_index,
    )
    edges = bin_edges(greatest[0]["prediction"]["expected_value"] if greatest else 0.0)
    groups = await store.aggregate(CUSTOMERS, summary_pipeline(edges), hint=SEGMENTS_BY_VALUE)
    return segments_of(groups, edges, newest, first_date)


async def _newest(store: Store) -> _Newest | None:
    question = Question("-updated_at")
    fields = {"as_of": 1, "prediction": 1}
    found = await store.some(
        CUSTOMERS, question.wanted, order=question.by.order, limit=1, fields=fields, index=question.best_index
    )
    if not found:
        return None
    said = found[0]["prediction"]
    return _Newest(found[0]["as_of"], said["currency"], said["horizon_days"], tuple(said["segment_thresholds"]))


async def read_migration(store: Store, from_date: str, to_date: str) -> Migration:
    """Who moved between two dates. Raises PyMongoError if MongoDB does not answer."""
    groups = await store.aggregate(PREDICTION_HISTORY, flows_pipeline(from_date, to_date), hint=SEGMENTS_BY_DAY)
    flows = [
        Flow(
            from_segment=each["_id"].get("was"),
            to_segment=each["_id"]["became"],
            customers=each["customers"],
        )
        for each in groups
    ]
    order: tuple[SegmentName | None, ...] = (*SEGMENT_NAMES, None)
    flows.sort(key=lambda flow: (order.index(flow.from_segment), order.index(flow.to_segment)))
    return Migration(from_date=from_date, to_date=to_date, flows=flows)


def segments_of(
    groups: Iterable[Mapping[str, Any]], edges: Sequence[float], newest: _Newest, first_date: str | None
) -> Segments:
    """The answer from what summary_pipeline(edges) gives."""
    by_segment: dict[SegmentName, list[Mapping[str, Any]]] = {name: [] for name in SEGMENT_NAMES}
    for group in groups:
        by_segment[group["_id"]["segment"]].append(group)
    customers = sum(group["customers"] for found in by_segment.values() for group in found)
    value = math.fsum(group["value"] for found in by_segment.values() for group in found)
    return Segments(
        as_of=newest.as_of,
        currency=newest.currency,
        horizon_days=newest.horizon_days,
        customers=customers,
        expected_value=value,
        thresholds=newest.thresholds,
        segments=[
            _summary(name, found, edges, customers, value, newest.thresholds) for name, found in by_segment.items()
        ],
        migration=None,
        first_date=first_date,
    )


def _summary(
    name: SegmentName,
    groups: Sequence[Mapping[str, Any]],
    edges: Sequence[float],
    all_customers: int,
    all_value: float,
    thresholds: tuple[float, float, float] | None,
) -> SegmentSummary:
    count = sum(group["customers"] for group in groups)
    value = math.fsum(group["value"] for group in groups)
    in_bin = {int(group["_id"]["bin"]): group["customers"] for group in groups}
    borders = (None, *(thresholds or (None, None, None)), None)
    from_below = len(SEGMENT_NAMES) - 1 - SEGMENT_NAMES.index(name)
    return SegmentSummary(
        segment=name,
        strategy=STRATEGY[Segment(name)],
        customers=count,
        share=count / all_customers if all_customers else 0.0,
        expected_value=value,
        value_share=value / all_value if all_value > 0 else 0.0,
        mean_expected_value=value / count if count else None,
        mean_p_active=math.fsum(group["active"] for group in groups) / count if count else None,
        historical_value=math.fsum(group["historical"] for group in groups),
        from_value=borders[from_below],
        to_value=borders[from_below + 1],
        distribution=[
            Bin(from_value=low, to_value=high, customers=in_bin.get(place, 0))
            for place, (low, high) in enumerate(pairwise(edges))
        ],
    )
