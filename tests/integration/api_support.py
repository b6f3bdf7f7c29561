"""Customers in MongoDB as the sink writes them, and the API as its callers see it: plain HTTP."""

import asyncio
import http.client
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from pymongo import MongoClient

from deploy.local.folders import free_ports
from deploy.local.processes import ServiceProcess
from domain.customer import DAY_MS, CustomerState
from domain.features import FEATURE_NAMES, date_of, features
from domain.ledger import ledger
from domain.rfm_scores import Quintiles
from domain.segments import STRATEGY, Segment, Thresholds, classify
from schemas.customer_features import Ledger, feature_version, named_features, named_inputs
from schemas.customer_rows import Row, encode
from schemas.mongo import COLLECTIONS
from schemas.predictions import Prediction, encode_prediction, prediction_id
from services.sink.documents import Write, judge, plan
from services.sink.mongo import Store, connect, ensure_collections
from services.sink.settings import SinkSettings
from services.sink.state_store import StateStore
from services.sink.states import StateWrite, judge_row, plan_states
from tests.bundles import AS_OF_DAY, HORIZON_DAYS, QUINTILES
from tests.conftest import ROOT
from tests.support import ready, wait_for

THRESHOLDS = Thresholds(40.0, 90.0, 200.0)
NOW = datetime(2024, 3, 18, 12, 0, tzinfo=UTC)


@dataclass
class Record:
    """A Kafka record, as far as the sink looks at it."""

    key: bytes
    value: bytes
    timestamp: int = 1_710_000_000_000
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def predicted(
    customer_id: str,
    value: float,
    *,
    events: int = 1,
    day: int = AS_OF_DAY,
    model: str = "0123456789abcdef",
    state: CustomerState | None = None,
    quintiles: Quintiles = QUINTILES,
    **changes: Any,
) -> Prediction:
    """A prediction of `value`, from the state's real features; without a state, of a customer without an order."""
    state = state or CustomerState()
    found = features([state], [day], quintiles, 100)
    money = ledger([state], [day])
    monetary = found.features[0][FEATURE_NAMES.index("monetary")]
    segment = classify(value, THRESHOLDS)
    version = feature_version(events, day)

    def known(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: None if np.isnan(each) else float(each) for name, each in values.items()}

    fields: dict[str, Any] = {
        "prediction_id": prediction_id(customer_id, version, model),
        "customer_id": customer_id,
        "feature_version": version,
        "as_of": date_of(day).isoformat(),
        "horizon_days": HORIZON_DAYS,
        "currency": "USD",
        "expected_value": value,
        "expected_orders": value / 50,
        "p_active": float(1 - np.exp(-value / 50)),
        "value_p10": value / 4,
        "value_p50": value * 0.75,
        "value_p90": value * 2,
        "historical_value": None if np.isnan(monetary) else float(monetary),
        "expected_next_order_at": None,
        "percentile": min(100.0, value / 4),
        "segment": segment.value,
        "previous_segment": None,
        "strategy": STRATEGY[Segment(segment)],
        "segment_thresholds": tuple(THRESHOLDS),
        "model_version": model,
        "inputs": known(named_inputs(found.inputs[0].tolist())),
        "features": known(named_features(found.features[0].tolist())),
        "ledger": Ledger(
            orders_placed=int(money.orders_placed[0]),
            gross=float(money.gross[0]) / 100,
            net=float(money.net[0]) / 100,
            orders_cancelled=int(money.orders_cancelled[0]),
            refunded=float(money.refunded[0]) / 100,
            loose_refunds=float(money.loose_refunds[0]) / 100,
        ),
    }
    return Prediction(**fields | changes)


class Seeder(NamedTuple):
    """Writes what the sink would write, with the sink's own code."""

    mongo_uri: str
    database: str

    def predictions(self, found: Iterable[Prediction], now: datetime = NOW) -> None:
        """`customers` and `prediction_history`; each a second later than the one before."""
        writes = [
            judge(Record(each.customer_id.encode(), encode_prediction(each)), now + timedelta(seconds=at))
            for at, each in enumerate(found)
        ]
        assert all(isinstance(each, Write) for each in writes), [each for each in writes if not isinstance(each, Write)]
        self._run(lambda database: Store(database, 1000).write(plan(writes)))  # type: ignore[arg-type]

    def rows(self, found: Mapping[str, Row]) -> None:
        """`customer_states`."""
        writes = [judge_row(Record(name.encode(), encode(row)), NOW) for name, row in found.items()]
        assert all(isinstance(each, StateWrite) for each in writes)
        self._run(lambda database: StateStore(database, 1000).write(plan_states(writes)))  # type: ignore[arg-type]

    def collections(self) -> None:
        """All of them, with their indexes, and empty."""
        self._run(lambda database: ensure_collections(database, 400))
        with MongoClient[dict[str, Any]](self.mongo_uri) as client:
            for name in COLLECTIONS:
                client[self.database][name].delete_many({})

    def _run(self, work: Callable[[Any], Any]) -> None:
        async def run() -> None:
            client = connect(SinkSettings(mongo_uri=self.mongo_uri))
            try:
                await work(client[self.database])
            finally:
                client.close()

        asyncio.run(run())


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    body: Any
    """Decoded JSON, or text."""
    headers: dict[str, str]
    """By names in small letters."""


def ask(process: ServiceProcess, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request. headers: with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)  # type: ignore[attr-defined]
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
        found = {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
    is_json = "json" in found.get("content-type", "")
    return Answer(answer.status, json.loads(text) if is_json else text, found)


def ok(process: ServiceProcess, path: str, **headers: str) -> Any:
    """The body of an answer that must be 200."""
    answer = ask(process, path, **headers)
    assert answer.status == 200, answer
    return answer.body


def customer_path(customer_id: str, rest: str = "") -> str:
    """The address of a customer."""
    return f"/v1/customers/{quote(customer_id, safe='')}{rest}"


def order_days(*days: int) -> list[int]:
    """Noon of days before AS_OF_DAY, epoch milliseconds."""
    return [(AS_OF_DAY - day) * DAY_MS + DAY_MS // 2 for day in days]


@contextmanager
def running_api(
    bootstrap_servers: str, mongo_uri: str, database: str, folder: Path, **env: str
) -> Iterator[ServiceProcess]:
    """An API process, ready; with its port in `.port`. It ends cleanly, or the test fails. env: further settings."""
    (port,) = free_ports(1)
    process = ServiceProcess(
        "api",
        [sys.executable, "-m", "services.api"],
        env={
            "PYTHONPATH": str(ROOT),
            "CLV_API_HTTP_PORT": str(port),
            "CLV_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "CLV_MONGO_URI": mongo_uri,
            "CLV_MONGO_DATABASE": database,
            "CLV_MODELS_DIR": str(folder),
            **env,
        },
        log_path=folder / f"api-{port}.log",
    )
    process.port = port  # type: ignore[attr-defined]
    process.start()
    try:
        wait_for(lambda: ready(process), "the API to be ready", 120, lambda: process.log_tail(30))
        yield process
        assert process.stop() == 0, process.log_tail(30)
    finally:
        process.kill()
