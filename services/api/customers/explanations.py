"""GET /v1/customers/{customer_id}/explanation: what moved the prediction that MongoDB holds, by the model that made it.

Must never explain a prediction by another model, nor hold up other requests while it works.
"""

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from schemas.customer_features import feature_matrix
from schemas.http_api.outlook import Explanation
from services.api import examples
from services.api.answers import CustomerPath, json_answer, registry_away
from services.api.customers.routes import customer_document
from services.api.models.bundles import BundleGone, Bundles, Loaded
from services.api.store import Store
from services.inference.explain import Explainer, references_of, rescored
from services.inference.model import Model, load_model
from services.runtime.http.api_keys import Scope, requires
from services.runtime.http.problems import Refused, responses
from services.runtime.registry import RegistryAway
from services.runtime.shutdown import KnownProblem

_AT_ONCE = 2
Output = Literal[
    "expected_value", "expected_orders", "p_active", "value_p10", "value_p50", "value_p90", "next_order_days"
]
"""schemas.model_bundle.OUTPUT_NAMES, as a type."""


def explanation_router(store: Store, bundles: Bundles, currency: str) -> APIRouter:
    """The route. currency: the reporting currency."""
    router = APIRouter(prefix="/v1/customers", tags=["customers"], dependencies=[Depends(requires(Scope.READ))])

    def make(folder: Path) -> tuple[Model, Explainer]:
        model = load_model(folder, currency)
        return model, Explainer(model, references_of(folder))

    explainers = Loaded(make)
    turns = asyncio.Semaphore(_AT_ONCE)

    @router.get(
        "/{customer_id:path}/explanation",
        summary="What moved a customer's prediction, fact by fact",
        response_model=Explanation,
        responses=examples.example(examples.EXPLANATION) | responses(401, 403, 404, 409, 422, 429, 503),
    )
    async def explanation(
        customer_id: CustomerPath,
        output: Annotated[Output, Query(description="Which of the model's outputs")] = "expected_value",
    ) -> Response:
        document = await customer_document(store, customer_id)
        version = document["prediction"]["model_version"]
        try:
            model, explainer = await explainers.get(version, await bundles.folder(version))
            row = rescored(feature_matrix([document["features"]])[0], model.metadata.quintiles)
            async with turns:
                (found,) = await asyncio.to_thread(
                    explainer.explain, row, [output], customer_id=customer_id, as_of=document["as_of"]
                )
        except RegistryAway as problem:
            raise registry_away(problem) from None
        except BundleGone:
            raise Refused(
                HTTPStatus.CONFLICT,
                f"the prediction was made by model {version}, which is neither in the models folder nor in the "
                "registry any more: it can be explained once the customer is predicted anew, by an order or a sweep",
            ) from None
        except (KnownProblem, KeyError) as problem:
            raise Refused(HTTPStatus.CONFLICT, f"model {version} cannot explain it: {problem}") from None
        return json_answer(Explanation.model_validate(msgspec.to_builtins(found)))

    return router
