"""Makes the application of an HTTP side, with everything that all of them share installed.

Must never build anything at import: a service makes its application once, from its settings.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from schemas.http_api.problem import FieldProblem, Problem
from services.runtime.health import Health
from services.runtime.http.api_keys import OPEN_PATHS, SECURITY_SCHEME, ApiKeys, Identify, KeysRequired
from services.runtime.http.body_limits import BodyLimits
from services.runtime.http.direct_routes import DirectRoutes, Handler
from services.runtime.http.measured import Measured
from services.runtime.http.problems import Faults, add_problem_handlers, responses
from services.runtime.http.rate_limits import RateLimits
from services.runtime.http.request_ids import RequestIds
from services.runtime.http.response_headers import ResponseHeaders
from services.runtime.http.settings import HttpSettings
from services.runtime.http.unread_bodies import UnreadBodies

_BEARER_SCHEME = "Bearer"
_EXPOSED_HEADERS = ("X-Request-Id", "Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


def new_app(
    *,
    title: str,
    description: str,
    settings: HttpSettings,
    health: Health,
    body_bytes_max: int,
    body_bytes_max_by_path: Mapping[str, int] = {},
    direct: Mapping[str, Handler] = {},
    service: str | None = None,
) -> FastAPI:
    """An application with health routes and without others. Raises KnownProblem if the keys file cannot be used.

    direct: by path, what answers POST requests without the framework (see direct_routes.py).
    service: its name in metrics; by default that of the package that `settings` belongs to.
    """
    keys = ApiKeys.from_file(settings.http_keys_file)
    named = service or type(settings).__module__.split(".")[-2]
    layers = [
        Middleware(RequestIds),
        Middleware(Measured, named),
        Middleware(ResponseHeaders),
        *_cors(settings),
        Middleware(UnreadBodies),
        Middleware(Faults),
        Middleware(Identify, keys),
        *_rate_limits(settings),
        Middleware(KeysRequired, keys),
        Middleware(BodyLimits, body_bytes_max, body_bytes_max_by_path),
        *([Middleware(DirectRoutes, direct)] if direct else []),
    ]
    if settings.http_trusted_proxies:
        layers.insert(0, Middleware(ProxyHeadersMiddleware, list(settings.http_trusted_proxies)))
    app = FastAPI(
        title=title, version="1", description=description, docs_url="/docs", redoc_url=None, middleware=layers
    )
    app.state.api_keys = keys
    app.state.schemas = {}
    app.router.routes.extend(health.routes())
    add_problem_handlers(app)
    add_schemas(app, _problem_schemas())
    _complete_openapi(app, keys)
    return app


def add_schemas(app: FastAPI, schemas: Mapping[str, Any]) -> None:
    """Add JSON Schemas to #/components/schemas of the OpenAPI document."""
    app.state.schemas.update(schemas)


def _cors(settings: HttpSettings) -> list[Middleware]:
    if not settings.http_cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.http_cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "Content-Type", "X-API-Key", "X-Request-Id"),
            expose_headers=_EXPOSED_HEADERS,
        )
    ]


def _rate_limits(settings: HttpSettings) -> list[Middleware]:
    if settings.http_requests_per_second == 0:
        return []
    return [Middleware(RateLimits, settings.http_requests_per_second, settings.http_burst)]


def _problem_schemas() -> dict[str, Any]:
    template = "#/components/schemas/{model}"
    problem = Problem.model_json_schema(ref_template=template)
    problem.pop("$defs", None)
    return {"Problem": problem, "FieldProblem": FieldProblem.model_json_schema(ref_template=template)}


def _complete_openapi(app: FastAPI, keys: ApiKeys) -> None:
    """What the framework does not know: problems instead of its own errors, and which scope a route asks for."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            components = document.setdefault("components", {})
            known = components.setdefault("schemas", {})
            for of_framework in ("HTTPValidationError", "ValidationError"):
                known.pop(of_framework, None)
            known.update(app.state.schemas)
            components.pop("securitySchemes", None)
            if keys.on:
                components["securitySchemes"] = {
                    SECURITY_SCHEME: {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    _BEARER_SCHEME: {"type": "http", "scheme": "bearer"},
                }
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    if isinstance(operation, dict) and path not in OPEN_PATHS:
                        _complete_operation(operation, keys)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete_operation(operation: dict[str, Any], keys: ApiKeys) -> None:
    scopes = [name.partition(":")[2] for each in operation.pop("security", ()) for name in each]
    possible = [429, 500]
    if "requestBody" in operation:
        possible += [400, 413, 415]
    if "422" in operation["responses"]:
        operation["responses"].pop("422")
        possible.append(422)
    if keys.on:
        operation["security"] = [{SECURITY_SCHEME: scopes}, {_BEARER_SCHEME: scopes}]
        possible += [401, 403] if scopes else [401]
    for status, response in responses(*possible).items():
        operation["responses"].setdefault(str(status), response)
