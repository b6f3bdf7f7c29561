"""Puts charts on a page, with words for those who cannot see them."""

import streamlit as st

from services.dashboard.theme import Chart


def draw(chart: Chart, words: str) -> None:
    """The chart, as wide as its place. words: what it shows, for screen readers."""
    st.altair_chart(chart, theme=None, alt=words)
