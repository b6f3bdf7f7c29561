"""The dashboard as a visitor has it: the whole product behind it, and a real browser in front."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

from cli.platform import Platform, home
from deploy.local.folders import free_ports
from deploy.local.processes import ServiceProcess
from tests.conftest import ROOT
from tests.support import wait_for

SECONDS = 120
"""Longest wait for anything on a page: a machine of two cores runs servers, services and a browser here."""
DESKTOP, PHONE = 1280, 390
PAGES = {"Predict": "/", "Customer": "/customer", "Segments": "/segments", "Live": "/live", "Model": "/model"}
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

FOCUS_IS_SEEN = """() => {
  const focused = document.activeElement;
  const around = focused.closest('[data-testid=stNumberInputContainer]') || focused;
  return [focused, around].some(each => {
    const style = getComputedStyle(each);
    return style.outlineStyle !== 'none' || style.boxShadow !== 'none' || each.matches('.focused');
  });
}"""
NAME_OF_FOCUSED = "() => { const e = document.activeElement; return e.ariaLabel || e.innerText || e.tagName }"
TOO_WIDE = """() => {
  const room = document.documentElement.clientWidth, main = document.querySelector('[data-testid=stMain]');
  const scrolls = '.clv-scroll, [data-testid=stSkeleton], iframe, svg';
  const found = [...main.querySelectorAll('*')].filter(each => !each.closest(scrolls)
    && each.getBoundingClientRect().width && each.getBoundingClientRect().right > room + 1);
  return {found: found.slice(0, 5).map(each => each.outerHTML.slice(0, 120)),
          page: document.documentElement.scrollWidth - room, main: main.scrollWidth - main.clientWidth};
}"""
NAMELESS = """() => [...document.querySelectorAll('[data-testid=stMain] :is(input, select, textarea, button)')]
  .filter(each => each.offsetParent && each.tabIndex >= 0 && !(each.ariaLabel || each.labels?.length
    || each.innerText.trim() || each.getAttribute('aria-labelledby') || each.title))
  .map(each => each.outerHTML.slice(0, 200))"""


def chromium() -> str:
    """Debian's browser; a test that has none fails where everything must be there, and is skipped elsewhere."""
    path = shutil.which("chromium")
    if path is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("chromium is missing: deploy/packages/install.sh installs it on Debian")
    return str(path)


def screenshots() -> Path:
    """Where a test run keeps its pictures."""
    folder = home() / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


def start_dashboard(api_url: str, log: Path, **settings: str) -> tuple[ServiceProcess, str]:
    """A dashboard of this API, serving; and its address."""
    (port,) = free_ports(1)
    environment = {
        "PYTHONPATH": str(ROOT),
        "CLV_DASHBOARD_HTTP_PORT": str(port),
        "CLV_DASHBOARD_API_URL": api_url,
        "CLV_DASHBOARD_API_SECONDS_MAX": "30",
        **settings,
    }
    process = ServiceProcess(
        "dashboard", [sys.executable, "-m", "services.dashboard"], environment, log, cwd=log.parent
    )
    process.start()
    url = f"http://127.0.0.1:{port}"

    def serves() -> bool:
        assert process.alive, process.log_tail(30)
        try:
            return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(serves, "the dashboard", SECONDS, lambda: process.log_tail(30))
    return process, url


@dataclass
class Visit:
    """A visitor's tab, and everything that went wrong in it."""

    page: Page
    url: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(SECONDS * 1000)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def _heard(self, message: ConsoleMessage) -> None:
        # A failed request is judged by its address, in _answered.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"asked another host: {request.url}")

    def _answered(self, response: Response) -> None:
        # Streamlit looks for itself below the page's own path first, and takes 404 for "one level up".
        probing = "/_stcore/" in response.url and not response.url.startswith(f"{self.url}/_stcore/")
        if response.status >= 400 and not probing:
            self.wrong.append(f"{response.status}: {response.url}")

    def go(self, path: str) -> None:
        """Open a page by its address, and wait until it is there."""
        self.page.goto(self.url + path)
        self.settle()

    def choose(self, name: str) -> None:
        """Open a page by its link."""
        self.page.get_by_role("link", name=name, exact=True).click()
        self.page.get_by_role("heading", name=name, exact=True, level=1).wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is loading, running or about to be drawn."""
        self.page.get_by_role("heading", level=1).first.wait_for()
        self.page.wait_for_function(
            """() => !document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner]')
              && document.querySelector('.stApp')?.dataset.testScriptState !== 'running'"""
        )
        self.page.wait_for_timeout(300)

    def pick(self, label: str, option: str) -> None:
        """Choose from a list; it is opened anew if it closes, as lists do when the window changes its size."""
        wanted = self.page.get_by_role("option", name=option, exact=True)

        def is_open() -> bool:
            if not wanted.is_visible():
                self.page.get_by_label(label, exact=True).click()
                self.page.wait_for_timeout(1000)
            return wanted.is_visible()

        wait_for(is_open, f"{option} to choose from", SECONDS)
        wanted.click()

    def text(self) -> str:
        """All that the page says."""
        return self.page.get_by_test_id("stMain").inner_text()

    def says(self, *texts: str) -> None:
        """Wait until the page says all of it."""
        for text in texts:
            self.page.get_by_test_id("stMain").get_by_text(text).first.wait_for()

    def picture(self, name: str, height: int = 900) -> None:
        """Keep a picture of the page."""
        self.page.set_viewport_size({"width": self.page.viewport_size["width"], "height": height})
        self.page.wait_for_timeout(1000)
        self.page.screenshot(path=screenshots() / f"dashboard-{name}.png")

    def charts(self) -> int:
        """How many charts are drawn."""
        return self.page.locator(
            "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg.marks"
        ).count()


@dataclass
class Site:
    """A running product with its dashboard."""

    platform: Platform
    dashboard: ServiceProcess
    url: str
    browser: Browser

    @contextmanager
    def visit(self, width: int = DESKTOP, url: str | None = None) -> Iterator[Visit]:
        """A new visitor. Nothing may have gone wrong in the browser at the end."""
        context = self.browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
        try:
            visit = Visit(context.new_page(), url or self.url)
            yield visit
            assert visit.wrong == []
        finally:
            context.close()

    def api(self, path: str, **parameters: Any) -> Any:
        """What the API itself says."""
        answer = httpx.get(self.platform.url("api") + path, params=parameters, timeout=SECONDS)
        answer.raise_for_status()
        return json.loads(answer.content)
