"""What all routes of the API share: how an answer becomes bytes, how a customer is named, what an absent server is."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Path
from fastapi.responses import Response
from pydantic import BaseModel

from services.runtime.http.problems import Refused
from services.runtime.registry import RegistryAway

CustomerPath = Annotated[
    str,
    Path(
        min_length=1,
        max_length=256,
        description="The customer, as the shop knows it; a slash in it is written %2F",
        examples=["c-42"],
    ),
]


def json_answer(answer: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The answer as JSON. It was checked when it was made: the framework need not look at it again."""
    return Response(answer.model_dump_json(), status, headers, media_type="application/json")


def registry_away(problem: RegistryAway) -> Refused:
    """To raise where the registry of models does not answer."""
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, f"the registry of models: {problem}", headers={"Retry-After": "2"})
