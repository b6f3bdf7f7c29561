"""What a page shows while there is nothing to show: loading, empty, and problems with what to do about them.

Must never leave a reader with a blank page or a stack trace.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import streamlit as st

from services.dashboard import connection
from services.dashboard.formatting import plain
from services.dashboard.problems import ApiProblem

RETRY_SECONDS = 2.0
NO_CUSTOMERS = (
    "No customers yet",
    "Predictions appear here within seconds of the first order. Publish orders to the topic "
    "`clv.customer-events.v1`, or send one to `POST /v1/events`; `./clv demo` replays a whole shop.",
)


def page(show: Callable[[], None]) -> Callable[[], None]:
    """A page that tells the API's problems instead of breaking, and comes back by itself where waiting is the cure."""

    @wraps(show)
    def shown() -> None:
        with told():
            show()

    return shown


@contextmanager
def told() -> Iterator[None]:
    """Tell the API's problem in place of what could not be shown."""
    try:
        yield
    except ApiProblem as problem:
        problem_state(problem)


def problem_state(problem: ApiProblem) -> None:
    """The problem, what to do about it, and a button to try again; asks by itself where that is the cure."""
    tell(problem)
    if problem.heals_itself:
        _until_ready()
    else:
        st.button("Try again", key=f"again-{problem.kind}")


def tell(problem: ApiProblem) -> None:
    """The problem and what to do about it."""
    lines = [f"**{plain(problem.title)}**", problem.advice]
    lines += [f"- {plain(error.field)}: {plain(error.detail)}" for error in problem.errors]
    st.error("\n\n".join(lines) + f"\n\n:small[{plain(problem.technical)}]", icon=":material/error:")


def tell_broken() -> None:
    """A mistake in the dashboard itself."""
    st.error(
        "**This page could not be shown**\n\nIt is a mistake in the dashboard, not yours: its log says more. "
        "Choose another page, or load this one again.",
        icon=":material/error:",
    )


@st.fragment(run_every=RETRY_SECONDS)
def _until_ready() -> None:
    st.button("Try again now", key="again-now", on_click=_again)
    if connection.client().is_ready():
        st.rerun()


def _again() -> None:
    """Nothing but a click: the fragment asks when it runs anew."""


def empty_state(title: str, text: str) -> None:
    """There is nothing here yet, and how it comes about that there is."""
    st.info(f"**{plain(title)}**\n\n{text}", icon=":material/inbox:")


def no_customers() -> None:
    """The population is empty."""
    empty_state(*NO_CUSTOMERS)


@contextmanager
def loading(what: str, height: int = 160) -> Iterator[None]:
    """A grey box in place of what is being loaded, if it takes long enough to be noticed."""
    place = st.empty()
    try:
        with place.container(), st.spinner(f"Loading {what} …"), st.skeleton(height=height):
            yield
    finally:
        place.empty()
