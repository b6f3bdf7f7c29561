"""The API as functions: typed questions, answers as the models of schemas.http_api. The dashboard's only way out.

Must never answer from memory: what a page shows is what the API says now.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from schemas.http_api.customers import Customer, CustomerHistory, CustomerOrders, CustomerPage, Sort
from schemas.http_api.live import Live
from schemas.http_api.models import ModelDetail, Models
from schemas.http_api.outlook import Explanation, SegmentName
from schemas.http_api.predict import WhatIf, WhatIfPrediction
from schemas.http_api.problem import Problem
from schemas.http_api.segments import Segments
from services.dashboard.problems import ApiProblem, Kind, from_answer
from services.dashboard.settings import DashboardSettings

A = TypeVar("A", bound=BaseModel)
CONNECT_SECONDS_MAX = 2.0
"""The API is near; who does not take a connection by then is away."""


def timeouts(settings: DashboardSettings) -> httpx.Timeout:
    """How long to wait for the API."""
    return httpx.Timeout(settings.dashboard_api_seconds_max, connect=CONNECT_SECONDS_MAX)


def headers(settings: DashboardSettings) -> dict[str, str]:
    """What every request carries."""
    key = settings.dashboard_api_key
    return {"User-Agent": "clv-dashboard", **({"X-API-Key": key} if key else {})}


@contextmanager
def told_as_problems(path: str) -> Iterator[None]:
    """Turn what goes wrong on the way into an ApiProblem."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise ApiProblem(Kind.AWAY, f"no connection for {path}: {error or type(error).__name__}") from error
    except httpx.TimeoutException as error:
        raise ApiProblem(Kind.AWAY, f"no answer to {path} in time") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ApiProblem(Kind.AWAY, f"{path}: {error or type(error).__name__}") from error


def check_status(answer: httpx.Response, path: str) -> None:
    """Raise the ApiProblem that the answer tells, if it is none of success. Its body must have been read."""
    if answer.is_success:
        return
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        problem = None
    raise from_answer(answer.status_code, problem, path)


class ApiClient:
    """A connection to the API, for all threads of the process. Every method raises ApiProblem."""

    def __init__(self, settings: DashboardSettings) -> None:
        self._http = httpx.Client(
            base_url=settings.dashboard_api_url.rstrip("/"), headers=headers(settings), timeout=timeouts(settings)
        )

    def predict(self, form: WhatIf, *, store: bool = True) -> WhatIfPrediction:
        """What is expected of a customer described by the form, with an explanation."""
        parameters = {"explain": "true", "store": str(store).lower()}
        return self._ask(WhatIfPrediction, "/v1/predict", parameters, form.model_dump_json().encode())

    def customer(self, customer_id: str) -> Customer:
        """One customer now."""
        return self._ask(Customer, f"/v1/customers/{quote(customer_id, safe='')}")

    def history(self, customer_id: str, limit: int) -> CustomerHistory:
        """The customer's newest predictions."""
        return self._ask(CustomerHistory, f"/v1/customers/{quote(customer_id, safe='')}/history", {"limit": str(limit)})

    def orders(self, customer_id: str) -> CustomerOrders:
        """The customer's orders."""
        return self._ask(CustomerOrders, f"/v1/customers/{quote(customer_id, safe='')}/orders")

    def explanation(self, customer_id: str, output: str) -> Explanation:
        """What moved one of the outputs of the customer's prediction."""
        return self._ask(Explanation, f"/v1/customers/{quote(customer_id, safe='')}/explanation", {"output": output})

    def customers(
        self,
        *,
        prefix: str = "",
        segment: SegmentName | None = None,
        min_value: float | None = None,
        sort: Sort = "-expected_value",
        limit: int = 50,
        cursor: str | None = None,
    ) -> CustomerPage:
        """A page of the customers whose id begins with `prefix`."""
        parameters = list_parameters(prefix, segment, min_value, sort) | {"limit": str(limit)}
        return self._ask(CustomerPage, "/v1/customers", parameters | ({"cursor": cursor} if cursor else {}))

    def segments(self, from_date: str | None = None, to_date: str | None = None) -> Segments:
        """The population; with both days, also who moved between them."""
        parameters = {"from": from_date, "to": to_date} if from_date and to_date else {}
        return self._ask(Segments, "/v1/segments", {name: day for name, day in parameters.items() if day})

    def models(self) -> Models:
        """All models."""
        return self._ask(Models, "/v1/models")

    def model(self, version: str) -> ModelDetail:
        """One model in full."""
        return self._ask(ModelDetail, f"/v1/models/{quote(version, safe='')}")

    def live(self) -> Live:
        """The state of the pipeline."""
        return self._ask(Live, "/v1/live")

    def is_ready(self) -> bool:
        """Whether the API says that it is ready."""
        try:
            return self._http.get("/readyz", timeout=CONNECT_SECONDS_MAX).status_code == HTTPStatus.OK
        except httpx.HTTPError:
            return False

    def _ask(self, kind: type[A], path: str, parameters: dict[str, str] | None = None, body: bytes | None = None) -> A:
        with told_as_problems(path):
            if body is None:
                answer = self._get(path, parameters or {})
            else:
                answer = self._http.post(
                    path, params=parameters, content=body, headers={"content-type": "application/json"}
                )
        check_status(answer, path)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ApiProblem(Kind.BROKEN, f"{path}: {where}: {first['msg']}") from error

    def _get(self, path: str, parameters: dict[str, str]) -> httpx.Response:
        try:
            return self._http.get(path, params=parameters)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            # A kept connection that the API has closed meanwhile, as it does when it restarts: reading is repeatable.
            return self._http.get(path, params=parameters)


def list_parameters(prefix: str, segment: str | None, min_value: float | None, sort: str) -> dict[str, str]:
    """Query parameters that choose and order customers, the same for a page and for the whole list as CSV."""
    chosen = {"q": prefix, "segment": segment or "", "min_value": "" if not min_value else repr(float(min_value))}
    return {name: value for name, value in chosen.items() if value} | {"sort": sort}
