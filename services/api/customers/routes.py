"""GET /v1/customers…: one customer, what was predicted and bought before, and lists as pages or as CSV.

Must never answer from memory what MongoDB holds: each request reads it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from schemas.currencies import minor_per_major
from schemas.customer_rows import Row, decode_row, standing_state, survivor
from schemas.http_api.customers import (
    PAGE_DEFAULT,
    PAGE_MAX,
    Customer,
    CustomerHistory,
    CustomerOrders,
    CustomerPage,
    Sort,
)
from schemas.http_api.outlook import SegmentName
from schemas.mongo import CUSTOMER_STATES, CUSTOMERS, PREDICTION_HISTORY, STATES_WITH_ROW
from services.api import examples
from services.api.answers import CustomerPath, json_answer, wants_csv
from services.api.customers import csv_export
from services.api.customers.listing import Question
from services.api.customers.paging import (
    BadCursor,
    Position,
    SortBy,
    decode_cursor,
    encode_cursor,
    parts_after,
    position_in,
)
from services.api.short_cache import ShortCache
from services.api.store import Document, Store
from services.api.views import ROW_PROJECTION, customer_of, orders_of, prediction_of, row_of
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.problems import Refused, responses
from services.runtime.shutdown import KnownProblem

_HISTORY = SortBy("feature_version", descending=True)
_Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Most entries of a page")]
_Cursor = Annotated[
    str | None, Query(max_length=4096, description="`next_cursor` of the page before, with the same other parameters")
]
_Bound = Annotated[float | None, Query(ge=0, le=1e15, allow_inf_nan=False)]


async def customer_document(store: Store, customer_id: str) -> Document:
    """The customer's document. Raises Refused (404), which says whom a merged customer went to."""
    found = await store.one(CUSTOMERS, {"_id": customer_id})
    if found is None:
        raise await _unknown(store, customer_id)
    return found


async def _unknown(store: Store, customer_id: str) -> Refused:
    row = await _state_row(store, customer_id)
    merged_into = None if row is None else survivor(customer_id, row)
    if merged_into is not None:
        detail = f"customer {customer_id!r} was merged into {merged_into!r}: ask for that one"
    elif row is not None:
        detail = f"customer {customer_id!r} is known, but there is no prediction yet: ask again in a second"
    else:
        detail = f"no customer {customer_id!r} is known: is that the shop's id?"
    return Refused(HTTPStatus.NOT_FOUND, detail)


async def _state_row(store: Store, customer_id: str) -> Row | None:
    document = await store.one(CUSTOMER_STATES, {"_id": customer_id, **STATES_WITH_ROW}, {"row": 1})
    return None if document is None else decode_row(document["row"])


def customer_router(store: Store, currency: str, count_seconds: float) -> APIRouter:
    """The routes. currency: the reporting currency. count_seconds: how long a list's total is not counted anew."""
    router = APIRouter(prefix="/v1/customers", tags=["customers"], dependencies=[Depends(requires(Scope.READ))])
    counts = ShortCache[int](count_seconds)
    try:
        unit = minor_per_major(currency)
    except ValueError as error:
        raise KnownProblem(f"CLV_CURRENCY={currency}: {error}") from None

    @router.get(
        "",
        summary="A list of customers, as pages or as CSV",
        response_model=CustomerPage,
        responses={
            200: {
                "description": "A page; or, as CSV, all customers that match",
                "content": {
                    "application/json": {"example": examples.PAGE.model_dump(mode="json")},
                    "text/csv": {"schema": {"type": "string"}, "example": csv_export.header()},
                },
            },
            **responses(400, 401, 403, 422, 429, 503),
        },
    )
    async def list_customers(
        request: Request,
        segment: Annotated[SegmentName | None, Query(description="Of this segment alone")] = None,
        min_value: Annotated[_Bound, Query(description="Least expected_value, major units")] = None,
        max_value: Annotated[_Bound, Query(description="Greatest expected_value, major units")] = None,
        q: Annotated[str, Query(max_length=256, description="What the customer_id begins with")] = "",
        sort: Annotated[Sort, Query(description="A minus sign is descending")] = "-expected_value",
        cursor: _Cursor = None,
        limit: _Limit = PAGE_DEFAULT,
        format: Annotated[  # noqa: A002 - the parameter's name in the address
            Literal["json", "csv"] | None, Query(description="Instead of the Accept header")
        ] = None,
    ) -> Response:
        question = Question(sort, segment, min_value, max_value, q)
        as_csv = format == "csv" or (format is None and wants_csv(request.headers.get("accept", "")))
        if as_csv:
            return await _csv(store, question)
        position = _position(question.key, cursor, question.by)
        documents, total = await asyncio.gather(
            _page(
                store,
                CUSTOMERS,
                question.wanted,
                question.by,
                position,
                limit + 1,
                fields=ROW_PROJECTION,
                index=question.best_index,
            ),
            counts.get(question.wanted_key, lambda: store.count(CUSTOMERS, question.wanted)),
        )
        return json_answer(
            CustomerPage(
                customers=[row_of(each) for each in documents[:limit]],
                next_cursor=_next(question.key, documents, limit, question.by),
                total=total,
            )
        )

    @router.get(
        "/{customer_id:path}/history",
        summary="What was predicted of a customer, the newest first",
        response_model=CustomerHistory,
        responses=examples.example(examples.HISTORY) | responses(400, 401, 403, 404, 422, 429, 503),
    )
    async def history(customer_id: CustomerPath, cursor: _Cursor = None, limit: _Limit = PAGE_DEFAULT) -> Response:
        question = f"history|{customer_id}"
        position = _position(question, cursor, _HISTORY)
        wanted = {"customer_id": customer_id}
        documents = await _page(store, PREDICTION_HISTORY, wanted, _HISTORY, position, limit + 1)
        if not documents and position is None:
            await customer_document(store, customer_id)
        return json_answer(
            CustomerHistory(
                customer_id=customer_id,
                predictions=[prediction_of(each) for each in documents[:limit]],
                next_cursor=_next(question, documents, limit, _HISTORY),
            )
        )

    @router.get(
        "/{customer_id:path}/orders",
        summary="A customer's orders, the newest first",
        response_model=CustomerOrders,
        responses=examples.example(examples.ORDERS) | responses(401, 403, 404, 422, 429, 503),
    )
    async def orders(customer_id: CustomerPath) -> Response:
        row = await _state_row(store, customer_id)
        if row is None or standing_state(customer_id, row) is None:
            raise await _unknown(store, customer_id)
        return json_answer(orders_of(customer_id, row, currency, unit))

    return router


def one_customer_router(store: Store) -> APIRouter:
    """GET /v1/customers/{customer_id}. Apart and last: an id may hold slashes, so that it matches all that is left."""
    router = APIRouter(prefix="/v1/customers", tags=["customers"], dependencies=[Depends(requires(Scope.READ))])

    @router.get(
        "/{customer_id:path}",
        summary="Everything current about one customer",
        response_model=Customer,
        responses=examples.example(examples.CUSTOMER) | responses(401, 403, 404, 422, 429, 503),
    )
    async def one_customer(customer_id: CustomerPath) -> Response:
        return json_answer(customer_of(await customer_document(store, customer_id)))

    return router


def _position(question: str, cursor: str | None, by: SortBy) -> Position | None:
    if cursor is None:
        return None
    try:
        return decode_cursor(question, cursor, is_time=by.is_time)
    except BadCursor as problem:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the cursor cannot be used: {problem}") from None


def _next(question: str, documents: list[Document], limit: int, by: SortBy) -> str | None:
    return encode_cursor(question, position_in(documents[limit - 1], by)) if len(documents) > limit else None


async def _page(
    store: Store,
    collection: str,
    wanted: Mapping[str, Any],
    by: SortBy,
    position: Position | None,
    limit: int,
    *,
    fields: Any = None,
    index: str | None = None,
) -> list[Document]:
    found: list[Document] = []
    for after, order in parts_after(by, position):
        both = {"$and": [wanted, after]} if wanted and after else wanted or after
        room = limit - len(found)
        found += await store.some(collection, both, order=order, limit=room, fields=fields, index=index)
        if len(found) >= limit:
            break
    return found


async def _csv(store: Store, question: Question) -> Response:
    batches = store.every(
        CUSTOMERS, question.wanted, order=question.by.order, fields=ROW_PROJECTION, index=question.best_index
    )
    # Before the answer begins, so that a server that is away is still a 503.
    first: list[Document] = await anext(batches, [])

    async def body() -> AsyncIterator[str]:
        documents = first
        yield csv_export.header()
        while documents:
            yield csv_export.lines(row_of(each).model_dump() for each in documents)
            documents = await anext(batches, [])

    headers = {"Content-Disposition": 'attachment; filename="customers.csv"'}
    return StreamingResponse(body(), media_type="text/csv; charset=utf-8", headers=headers)
