"""The script that Streamlit runs for every visitor: frame, navigation, and the page that was asked for."""

from pathlib import Path

import streamlit as st

from services.dashboard.theme import LOGO, STYLE
from services.dashboard.views import customer, live, model, predict, segments

ICON = str(Path(__file__).parent / "icon.svg")
"""A file: a named icon would be fetched from a host of others."""

st.set_page_config(page_title="Customer value", page_icon=ICON, layout="wide")
st.logo(LOGO, size="large")
page = st.navigation(
    [
        st.Page(predict.show, title="Predict", icon=":material/calculate:", default=True),
        st.Page(customer.show, title="Customer", icon=":material/person_search:", url_path="customer"),
        st.Page(segments.show, title="Segments", icon=":material/donut_small:", url_path="segments"),
        st.Page(live.show, title="Live", icon=":material/sensors:", url_path="live"),
        st.Page(model.show, title="Model", icon=":material/model_training:", url_path="model"),
    ],
    position="top",
)
st.html(STYLE)
page.run()
