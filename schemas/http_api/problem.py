"""Errors of every HTTP side, as problem details (RFC 9457 §3)."""

from pydantic import BaseModel, ConfigDict, Field

PROBLEM_JSON = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="Where it is: names from the outside in, with dots", examples=["total_orders"])
    detail: str = Field(description="What is wrong with it", examples=["must be at least 1"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Service Unavailable",
                    "status": 503,
                    "detail": "Kafka did not acknowledge within 5 s: send the same events again",
                    "request_id": "5f0c1d6e9b7a4f0e8f0f3f1b0a4c2d11",
                }
            ]
        }
    )

    type: str = Field(default="about:blank", description="Kind of problem; about:blank: the status says it all")
    title: str = Field(description="The status in words")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What went wrong and what to do")
    request_id: str = Field(description="Names this request in logs")
    errors: list[FieldProblem] | None = Field(default=None, description="Each field that is wrong, where fields are")
