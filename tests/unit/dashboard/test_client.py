"""What becomes of answers that are none. What they look like when all is well is tested against the real API."""

import socket

import httpx
import pytest

from schemas.http_api.predict import EXAMPLE, WhatIf
from services.dashboard.client import ApiClient, check_status, headers, list_parameters
from services.dashboard.problems import HEALS_ITSELF, ApiProblem, Kind
from services.dashboard.settings import DashboardSettings


def test_an_api_that_is_not_there_is_told_as_away():
    with socket.socket() as taken:  # bound, but nobody listens: a connection is refused
        taken.bind(("127.0.0.1", 0))
        client = ApiClient(DashboardSettings(dashboard_api_url=f"http://127.0.0.1:{taken.getsockname()[1]}"))
        for ask in (client.live, lambda: client.predict(WhatIf.model_validate(EXAMPLE))):
            with pytest.raises(ApiProblem) as told:
                ask()
            assert told.value.kind == Kind.AWAY
            assert told.value.heals_itself
        assert client.is_ready() is False


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Kind.KEY),
        (403, Kind.KEY),
        (404, Kind.NOT_FOUND),
        (409, Kind.GONE),
        (422, Kind.INVALID),
        (429, Kind.LIMITED),
        (500, Kind.BROKEN),
        (503, Kind.BUSY),
    ],
)
def test_each_refusal_has_words_and_says_what_to_do(status, kind):
    body = {"title": "t", "status": status, "detail": "what went wrong", "request_id": "r-1"}
    with pytest.raises(ApiProblem) as told:
        check_status(httpx.Response(status, json=body), "/v1/live")
    assert told.value.kind == kind
    assert told.value.title
    assert told.value.advice
    assert "what went wrong" in told.value.technical
    assert "r-1" in told.value.technical


def test_an_answer_of_something_else_than_the_api_is_told_without_its_text():
    with pytest.raises(ApiProblem) as told:
        check_status(httpx.Response(502, text="<html>nginx</html>"), "/v1/live")
    assert told.value.technical == "/v1/live answered 502"
    assert told.value.kind in HEALS_ITSELF


def test_fields_that_are_wrong_are_kept():
    body = {
        "title": "t", "status": 422, "detail": "d", "request_id": "r",
        "errors": [{"field": "total_orders", "detail": "must be at least 1"}],
    }  # fmt: skip
    with pytest.raises(ApiProblem) as told:
        check_status(httpx.Response(422, json=body), "/v1/predict")
    assert [error.field for error in told.value.errors] == ["total_orders"]


def test_the_key_is_shown_to_the_api_and_to_nobody_else():
    settings = DashboardSettings(dashboard_api_key="secret-key")
    assert headers(settings)["X-API-Key"] == "secret-key"
    assert "secret-key" not in repr(settings)
    assert "X-API-Key" not in headers(DashboardSettings())


def test_a_list_and_its_export_ask_for_the_same_customers():
    assert list_parameters("c-", "at_risk", 10.0, "-p_active") == {
        "q": "c-", "segment": "at_risk", "min_value": "10.0", "sort": "-p_active",
    }  # fmt: skip
    assert list_parameters("", None, 0.0, "customer_id") == {"sort": "customer_id"}
