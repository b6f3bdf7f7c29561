"""What routes of the API share: how an answer becomes bytes, of which kind, how customers are named, who is away."""

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


def wants_csv(accept: str) -> bool:
    """Whether an Accept header asks for CSV rather than JSON (RFC 9110 §12.5.1)."""
    csv_weight, json_weight = 0.0, 0.0
    for part in accept.lower().split(","):
        media, *parameters = (each.strip() for each in part.split(";"))
        weight = _weight(parameters)
        if media == "text/csv":
            csv_weight = max(csv_weight, weight)
        elif media in ("application/json", "application/*", "*/*"):
            json_weight = max(json_weight, weight)
    return csv_weight > 0 and csv_weight >= json_weight


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
