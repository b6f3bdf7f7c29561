"""The dashboard's settings."""

from typing import Annotated

from pydantic import Field

from services.runtime.settings import CommonSettings


class DashboardSettings(CommonSettings):
    """Settings of `python -m services.dashboard`."""

    dashboard_http_port: Annotated[int, Field(description="Port of the pages and of health", ge=1, le=65_535)] = 8006
    dashboard_api_url: Annotated[
        str, Field(description="Where the API is; the dashboard reads from nothing else", pattern=r"^https?://[^\s/]+")
    ] = "http://127.0.0.1:8005"
    dashboard_api_key: Annotated[
        str,
        Field(
            description="Key that the dashboard shows to the API, with the scopes read and predict; empty where the "
            "API needs none",
            repr=False,
        ),
    ] = ""
    dashboard_api_seconds_max: Annotated[
        float, Field(description="Longest wait for an answer of the API, seconds", gt=0, le=120)
    ] = 10.0
    dashboard_live_seconds: Annotated[
        float, Field(description="Pause between two refreshes of the page Live, seconds", ge=0.2, le=60)
    ] = 1.0
