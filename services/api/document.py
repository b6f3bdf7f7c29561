"""The OpenAPI document of the API, for the file that is kept beside the other contracts.

Must never read the environment: the same code gives the same document.
"""

import asyncio
from pathlib import Path
from typing import Any

from services.api.service import Api
from services.api.settings import ApiSettings


def openapi_document() -> dict[str, Any]:
    """The document as /openapi.json answers it by default, where no key is asked for. Talks to no server."""

    async def make() -> dict[str, Any]:
        api = Api(ApiSettings.model_construct(models_dir=Path("models")))
        try:
            document: dict[str, Any] = api.app.openapi()
            return document
        finally:
            api.client.close()
            await api.prediction.close()

    return asyncio.run(make())
