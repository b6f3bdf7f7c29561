"""The one connection of this process to the API, shared by all its visitors."""

import streamlit as st

from services.dashboard.client import ApiClient
from services.dashboard.settings import DashboardSettings
from services.runtime.settings import load

SERVICE = "dashboard"


@st.cache_resource(show_spinner=False)
def settings() -> DashboardSettings:
    """The settings of this process."""
    return load(DashboardSettings, SERVICE)


@st.cache_resource(show_spinner=False)
def client() -> ApiClient:
    """The API."""
    return ApiClient(settings())
