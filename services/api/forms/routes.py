"""POST /v1/predict and /v1/predict/batch: forms in, predictions out, and what was answered kept.

Bodies are read and answers written here, without the framework's models, which would take their time from each request.
What they look like is schemas.http_api.predict all the same, which a test compares.
Must never answer by half of one model and half of another.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from domain.features import FEATURE_NAMES, INPUT_NAMES
from schemas.http_api.outlook import Outlook
from schemas.http_api.predict import (
    BatchAnswer,
    BatchRequest,
    RowProblem,
    WhatIf,
    WhatIfPrediction,
)
from schemas.http_api.problem import FieldProblem
from schemas.mongo import WhatIfDocument
from services.api import examples
from services.api.answers import wants_csv
from services.api.forms.batching import MicroBatcher
from services.api.forms.bundle_follower import BundleFollower
from services.api.forms.csv_forms import answer_line, header_line, read_forms
from services.api.forms.settings import PredictSettings
from services.api.forms.what_if import Answered, NoPrediction, Serving, answers, form_row, inputs_of, matrix_of, told
from services.api.forms.what_if_store import WhatIfStore
from services.runtime import telemetry
from services.runtime.http.api_keys import Scope, key_of, requires
from services.runtime.http.direct_routes import Handler
from services.runtime.http.problems import Refused, field_problem, responses
from services.runtime.http.request_ids import request_id_of
from services.runtime.shutdown import KnownProblem

Judged = WhatIf | list[RowProblem]
"""A row of a batch: a form, or what is wrong with it."""

PREDICT_PATH, BATCH_PATH = "/v1/predict", "/v1/predict/batch"
FORM_BYTES_MAX = 16 * 1024
_CHUNK_ROWS = 512
"""Rows of a batch in one call of the model, in a thread."""
_SLICE_ROWS = 64
"""Rows of a batch that are worked on without a pause for single requests."""
_EXPLANATIONS_AT_ONCE = 2
_RETRY_AFTER_SECONDS = 2
_PROBLEMS_MAX = 100
_EXPLAINED = "expected_value"
_PREDICTION_FIELDS = (
    *(name for name in Outlook.model_fields if name != "model_version"),  # which stands beside them in the document
    "profile_value",
    "profile_model_version",
)


class Predictor:
    """Answers forms with the model in use, and keeps the answers."""

    def __init__(self, settings: PredictSettings, follower: BundleFollower, store: WhatIfStore) -> None:
        self._follower, self._store = follower, store
        self._kept = timedelta(days=settings.api_what_if_days)
        self._batcher: MicroBatcher[list[float], Answered] = MicroBatcher(
            self._answer, settings.api_forms_at_once, settings.api_gather_ms / 1000
        )
        self._count_single = telemetry.API_PREDICTIONS.increment(kind="single")
        self._explaining = asyncio.Semaphore(_EXPLANATIONS_AT_ONCE)

    def serving(self) -> Serving:
        """What forms are answered with now. Raises Refused (503) while there is no model."""
        if self._follower.serving is None:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                self._follower.missing() or "no model yet",
                headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
            )
        return self._follower.serving

    async def single(self, form: WhatIf, origin: "Origin", *, store: bool, explain: bool) -> dict[str, Any]:
        """The answer to one form: fields of WhatIfPrediction."""
        try:
            answered = await self._batcher.ask(form_row(form))
        except NoPrediction as problem:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(problem)) from None
        fields = answered.fields
        fields["prediction_id"] = uuid.uuid4().hex
        fields["explanation"] = await self._explanation(answered) if explain else None
        fields["stored"] = store and await self._store.put(self._document(answered, origin, None))
        self._count_single()
        return fields

    def _answer(self, rows: list[list[float]]) -> Sequence[Answered | Exception]:
        telemetry.API_MODEL_ROWS.observe(len(rows))
        return answers(np.array(rows), self.serving(), today())

    async def _explanation(self, answered: Answered) -> Any:
        explainer = answered.serving.explainer
        if explainer is None:
            raise Refused(
                HTTPStatus.CONFLICT,
                "the model in use keeps nobody to compare with: train it again to have explanations",
            )
        async with self._explaining:
            try:
                (found,) = await asyncio.to_thread(
                    explainer.explain, answered.row, [_EXPLAINED], as_of=answered.fields["as_of"]
                )
            except KnownProblem as problem:
                raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(problem)) from None
        return msgspec.to_builtins(found)

    async def batch(
        self, forms: Sequence[Judged], origin: "Origin", *, store: bool
    ) -> AsyncIterator[tuple[int, dict[str, Any] | None, list[RowProblem]]]:
        """The answers to many forms, by one model, in order: place, fields of WhatIfPrediction or None, problems."""
        serving, day = self.serving(), today()
        for first in range(0, len(forms), _CHUNK_ROWS):
            chunk = forms[first : first + _CHUNK_ROWS]
            replies = iter(await _in_thread([each for each in chunk if isinstance(each, WhatIf)], serving, day))
            made = [(at, each if isinstance(each, list) else next(replies)) for at, each in enumerate(chunk, first)]
            answered = [(at, each) for at, each in made if isinstance(each, Answered)]
            for _, each in answered:
                each.fields.update(prediction_id=uuid.uuid4().hex, explanation=None)
            documents = [self._document(each, origin, at) for at, each in answered] if store else []
            stored = bool(documents) and await self._store.put_all(documents)
            store = store and (stored or not documents)  # where MongoDB is away, its timeout is waited for once
            telemetry.API_PREDICTIONS.inc(len(answered), kind="batch")
            for count, (at, reply) in enumerate(made, 1):
                match reply:
                    case Answered(fields=fields):
                        yield at, fields | {"stored": stored}, []
                    case NoPrediction():
                        yield at, None, [RowProblem(field="", detail=str(reply))]
                    case problems:
                        yield at, None, problems
                if count % _SLICE_ROWS == 0:
                    await asyncio.sleep(0)

    def _document(self, answered: Answered, origin: "Origin", row: int | None) -> WhatIfDocument:
        fields, now = answered.fields, datetime.now(UTC)
        features = zip(FEATURE_NAMES, answered.row.tolist(), strict=True)
        extras = {name: value for name, value in features if value == value}
        return {
            "_id": fields["prediction_id"],
            "created_at": now,
            "expires_at": now + self._kept,
            "request_id": origin.request_id,
            "key_id": origin.key_id,
            "row": row,
            "as_of": fields["as_of"],
            "inputs": fields["inputs"],
            "features": {**fields["features"], **extras},
            "outcomes": answered.outcomes,
            "ranking": {
                "thresholds": list(answered.serving.ranking.thresholds),
                "customers": answered.serving.customers,
            },
            "prediction": {name: fields[name] for name in _PREDICTION_FIELDS},
            "warnings": fields["warnings"],
            "model_version": fields["model_version"],
        }


async def _in_thread(forms: Sequence[WhatIf], serving: Serving, day: int) -> list[Answered | NoPrediction]:
    """answers(), with the model in a thread, where it leaves the interpreter to single requests."""
    inputs = inputs_of(forms)
    matrix = matrix_of(inputs, serving, day)
    outcomes = await asyncio.to_thread(serving.model.predict, matrix)
    found: list[Answered | NoPrediction] = []
    for each in told(inputs, matrix, outcomes, serving, day):
        found.append(each)
        if len(found) % _SLICE_ROWS == 0:
            await asyncio.sleep(0)
    return found


class Origin(NamedTuple):
    """Which request an answer belongs to."""

    request_id: str
    key_id: str | None

    @classmethod
    def of(cls, request: Request) -> "Origin":
        """The origin of what a request is answered."""
        key = key_of(request.scope)
        return cls(request_id_of(request), None if key is None else key.id)


def today() -> int:
    """Days since 1970, UTC."""
    return int(time.time() // 86_400)


_MAY_PREDICT = requires(Scope.PREDICT)
_BOOLEAN = TypeAdapter(bool)


def _flag(request: Request, name: str, default: bool) -> bool:
    """A parameter of the address, read as the framework reads it."""
    if not request.scope["query_string"]:
        return default
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        return _BOOLEAN.validate_python(given)
    except ValidationError as error:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "1 of the request's fields cannot be used: `errors` says which",
            errors=[FieldProblem(field=name, detail=error.errors()[0]["msg"])],
        ) from None


_Store = Annotated[bool, Query(description="Whether the answer is kept, with all that led to it")]


def direct_answer(predictor: Predictor) -> Handler:
    """What answers PREDICT_PATH without the framework (see services.runtime.http.direct_routes)."""

    async def answer(request: Request) -> Response:
        await _MAY_PREDICT(request)
        store, explain = _flag(request, "store", True), _flag(request, "explain", False)
        return await _answer_single(predictor, request, store=store, explain=explain)

    return answer


async def _answer_single(predictor: Predictor, request: Request, *, store: bool, explain: bool) -> Response:
    _check_media(request, "application/json")
    form = _form_in(await request.body())
    fields = await predictor.single(form, Origin.of(request), store=store, explain=explain)
    return Response(orjson.dumps(fields), media_type="application/json")


def predict_router(predictor: Predictor) -> APIRouter:
    """The routes. predictor: what answers."""
    router = APIRouter(tags=["predict"], dependencies=[Depends(_MAY_PREDICT)])

    @router.post(
        PREDICT_PATH,
        summary="Predict for one customer described by seven inputs",
        description=(
            "What is expected of a customer of whom only these seven inputs are known, as of today. Forms are answered "
            "by the model that predicts for all customers; where it knows a customer's orders one by one it may say a "
            "little more. Nothing is said of any real customer."
        ),
        response_model=WhatIfPrediction,
        responses=examples.example(examples.WHAT_IF) | responses(400, 409, 413, 415, 422, 503),
        openapi_extra=_body({"application/json": WhatIf.model_json_schema()}),
    )
    async def predict(
        request: Request,
        store: _Store = True,
        explain: Annotated[bool, Query(description="Whether to say what moved the prediction; takes longer")] = False,
    ) -> Response:
        return await _answer_single(predictor, request, store=store, explain=explain)

    @router.post(
        BATCH_PATH,
        summary="Predict for up to 10,000 customers, each described by seven inputs",
        description=(
            "JSON or CSV in, JSON or CSV out, by Content-Type and Accept; without Accept, the answer is of the kind "
            "that was sent. Each row is judged for itself: what is wrong with a row stands in its `errors`. CSV has "
            "the input names in its first line; the answer keeps the order of rows."
        ),
        response_model=BatchAnswer,
        responses={
            **responses(400, 413, 415, 422, 503),
            200: {
                "content": {
                    "application/json": {"example": examples.BATCH.model_dump(mode="json")},
                    "text/csv": {"schema": {"type": "string"}, "example": header_line()},
                }
            },
        },
        openapi_extra=_body(
            {"application/json": BatchRequest.model_json_schema(), "text/csv": {"type": "string"}},
            {"text/csv": _csv_example()},
        ),
    )
    async def predict_batch(request: Request, store: _Store = True) -> Response:
        media = _check_media(request, "application/json", "text/csv")
        body = await request.body()
        forms = await (_rows_of_csv(body) if media == "text/csv" else _rows_of_json(body))
        origin = Origin.of(request)
        accept = request.headers.get("accept", "*/*")
        as_csv = media == "text/csv" if accept.strip() in ("", "*/*") else wants_csv(accept)
        parts: list[bytes] = []
        accepted = 0
        async for index, fields, problems in predictor.batch(forms, origin, store=store):
            accepted += fields is not None
            if as_csv:
                parts.append(answer_line(index, fields, problems).encode())
            else:
                errors = [problem.model_dump() for problem in problems]
                parts.append(orjson.dumps({"index": index, "prediction": fields, "errors": errors}))
        if as_csv:
            return Response(b"".join([header_line().encode(), *parts]), media_type="text/csv; charset=utf-8")
        counts = {"request_id": origin.request_id, "accepted": accepted, "rejected": len(parts) - accepted}
        text = b"".join([orjson.dumps(counts)[:-1], b',"rows":[', b",".join(parts), b"]}"])
        return Response(text, media_type="application/json")

    return router


def _body(schemas: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {
        media: {"schema": schema, **({"example": examples[media]} if examples and media in examples else {})}
        for media, schema in schemas.items()
    }
    return {"requestBody": {"required": True, "content": content}}


def _csv_example() -> str:
    return ",".join(INPUT_NAMES) + "\r\n41,0.8,59.9,9,340,21,5\r\n"


def _check_media(request: Request, *known: str) -> str:
    sent = request.headers.get("content-type", "")
    media, *parameters = (part.strip().lower() for part in sent.split(";"))
    charset = next((each.partition("=")[2].strip('" ') for each in parameters if each.startswith("charset=")), "utf-8")
    if media not in known or charset not in ("utf-8", "utf8", "us-ascii"):
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type must be {' or '.join(known)}, in UTF-8")
    return media


def _form_in(body: bytes) -> WhatIf:
    try:
        return WhatIf.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> Refused:
    found = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return Refused(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {found[0].get('ctx', {}).get('error', '')}")
    return Refused(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"{len(found)} of the request's fields cannot be used: `errors` says which",
        errors=[field_problem(each) for each in found[:_PROBLEMS_MAX]],
    )


async def _rows_of_json(body: bytes) -> list[Judged]:
    try:
        request = BatchRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None
    return [each async for each in _judged(request.rows, [[] for _ in request.rows])]


async def _rows_of_csv(body: bytes) -> list[Judged]:
    forms = read_forms(body)
    return [each async for each in _judged([each.values for each in forms], [each.problems for each in forms])]


async def _judged(rows: Sequence[dict[str, Any]], problems: Sequence[list[RowProblem]]) -> AsyncIterator[Judged]:
    for at, (row, unreadable) in enumerate(zip(rows, problems, strict=True), 1):
        yield _judge(row, unreadable)
        if at % _SLICE_ROWS == 0:
            await asyncio.sleep(0)


def _judge(row: dict[str, Any], unreadable: list[RowProblem]) -> Judged:
    if unreadable and not row:
        return unreadable
    try:
        form = WhatIf.model_validate(row)
    except ValidationError as error:
        told = [field_problem(each) for each in error.errors(include_url=False, include_input=False)]
        known = {problem.field for problem in unreadable}
        return [
            *unreadable,
            *(RowProblem(field=each.field, detail=each.detail) for each in told if each.field not in known),
        ]
    return unreadable or form
