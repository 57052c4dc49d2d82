"""Debian's Chromium on a service that listens, signed in: one browser for a module of tests.

`opened` is what a module's fixture wraps; `findings` is what axe has against a page as it stands.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Page, sync_playwright

from app.auth.bootstrap import bootstrap
from app.database import Base
from app.main import create_app
from app.settings import Settings
from benchmarks.chromium import ARGUMENTS, MISSING, chromium
from tests.app.dashboard.live import listening

WIDTHS = (360, 1280)
THEMES = ("light", "dark")
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@dataclass
class Browsing:
    """A page that is signed in, the service behind it, and what the browser complained of."""

    page: Page
    service: FastAPI
    key: str
    complaints: list[str] = field(default_factory=list)


@contextmanager
def opened(folder: Path) -> Iterator[Browsing]:
    """A service in this folder and a browser that is signed in to it with the first key; skips where there is none."""
    path = chromium()
    if path is None:
        pytest.skip(MISSING)
    service = create_app(Settings(data_dir=folder, requests_per_second=10_000))
    Base.metadata.create_all(service.state.database.engine)
    key = bootstrap(service.state.database, service.state.settings)
    assert key is not None
    with listening(service) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        page = browser.new_context(base_url=address, viewport={"width": 1280, "height": 800}).new_page()
        browsing = Browsing(page, service, key)
        page.on("pageerror", lambda error: browsing.complaints.append(str(error)))
        page.on("console", lambda told: browsing.complaints.append(told.text) if told.type == "error" else None)
        page.goto("/sign-in")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_url("**/jobs")
        yield browsing
        browser.close()


def findings(page: Page, width: int, theme: str) -> list[str]:
    """What axe calls serious or critical at this width and theme, and whether the page is wider than the screen."""
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    # Of all the rules only contrast depends on the theme.
    options = {"runOnly": _RULES if theme == THEMES[0] else ["color-contrast"], "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(options)", options)["violations"]
    told = [
        f"{one['id']} at {width}, {theme}: {node['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    wide = page.evaluate("document.documentElement.scrollWidth")
    return told if wide <= width else [*told, f"{wide} pixels wide at {width}"]
