"""The panel in a real Chromium: drawn, live, by keyboard, in both themes, at both widths. Skips where there is none."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update

from app.jobs import repository
from app.jobs.models import Job
from app.jobs.states import SUCCEED
from tests.app.dashboard import scenes
from tests.app.dashboard.browsing import THEMES, WIDTHS, Browsing, findings, opened

STEPS = 240


@dataclass
class Panel:
    """The browser, and the jobs it can look at."""

    browsing: Browsing
    jobs: dict[str, str]

    @property
    def page(self) -> Page:
        """The one page."""
        return self.browsing.page


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Panel]:
    """One browser for all tests of this module."""
    folder = tmp_path_factory.mktemp("panel")
    with opened(folder / "data") as browsing:
        yield Panel(browsing, scenes.whole(browsing.service, folder, STEPS))


@pytest.fixture(autouse=True)
def content(panel: Panel) -> Iterator[None]:
    """The browser has nothing to complain of: no script fails, and nothing breaks the policy."""
    panel.browsing.complaints.clear()
    panel.page.set_viewport_size({"width": 1280, "height": 800})
    panel.page.emulate_media(color_scheme="light")
    yield
    assert panel.browsing.complaints == []


def drawn(page: Page) -> None:
    page.wait_for_selector("html[data-drawn]")


@pytest.mark.parametrize("path", ["/jobs", "/jobs/{first}", "/jobs/{running}", "/compare?job={first}&job={second}"])
def test_axe_finds_nothing_serious(panel: Panel, path: str) -> None:
    panel.page.goto(path.format(**panel.jobs))
    if "{" in path:
        drawn(panel.page)
    found = [one for width in WIDTHS for theme in THEMES for one in findings(panel.page, width, theme)]
    assert found == []


def test_the_reference_fits_a_phone(panel: Panel) -> None:
    panel.page.set_viewport_size({"width": 360, "height": 800})
    panel.page.goto("/docs")
    assert panel.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_twelve_metrics_are_drawn_or_say_why_not(panel: Panel) -> None:
    page = panel.page
    page.goto(f"/jobs/{panel.jobs['first']}")
    drawn(page)
    lines = page.locator(".multiple .line").evaluate_all("all => all.map(one => one.getAttribute('d'))")
    assert [line.count("L") + 1 for line in lines] == [STEPS] * 9
    assert page.locator(".multiple.absent").count() == 3
    page.locator("[data-metric=train_loss] svg").hover(position={"x": 2, "y": 20})
    expect(page.locator("#cursor")).to_contain_text("At step")
    assert page.locator("[data-metric=train_loss] .multiple-value").text_content() != "0.1417"


def test_a_running_job_is_followed_live(panel: Panel) -> None:
    page, job, database = panel.page, panel.jobs["running"], panel.browsing.service.state.database
    page.goto(f"/jobs/{job}")
    expect(page.locator("#pulse")).to_have_text("live")
    drawn(page)
    before = page.locator("[data-metric=train_loss] .line").get_attribute("d")
    scenes.put_points(panel.browsing.service, job, iter([("train_loss", STEPS - 1, 9.5)]))
    told = {"step": STEPS - 1, "eta_seconds": 1.5, "latest": {"train_loss": 9.5}, "revision": Job.revision + 1}
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job).values(told))
    expect(page.locator("#steps")).to_have_text(f"{STEPS - 1} of {STEPS} steps")
    expect(page.locator("#left")).to_contain_text("left")
    expect(page.locator("[data-metric=train_loss] .multiple-value")).to_have_text("9.5")
    assert page.locator("[data-metric=train_loss] .line").get_attribute("d") != before
    with database.session() as session:
        assert repository.move(session, job, SUCCEED)
    expect(page.locator("h1 + .lead .state")).to_have_text("succeeded")
    expect(page.locator("button", has_text="Pause")).to_have_count(0)


def test_runs_are_ticked_and_compared_in_one_chart(panel: Panel) -> None:
    page = panel.page
    page.goto("/jobs")
    expect(page.locator("#compare")).to_be_disabled()
    for job in ("first", "second"):
        page.check(f'input[value="{panel.jobs[job]}"]')
    page.click("text=Compare 2")
    drawn(page)
    assert page.locator("#chart .scatterlayer .trace").count() == 2
    page.select_option("#metric", "gradient_norm")
    page.click("text=Show")
    drawn(page)
    expect(page.locator("#chart .ytitle")).to_have_text("Gradient norm")


def test_the_keyboard_is_enough(panel: Panel) -> None:
    page = panel.page
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(f"/jobs/{panel.jobs['first']}")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.locator(".menu-toggle").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".navigation a").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".navigation a").first).to_be_hidden()
    summary = page.locator(".instructions summary").first
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".instructions details[open] .facts").first).to_be_visible()


def test_the_theme_stays_as_chosen(panel: Panel) -> None:
    page = panel.page
    page.goto("/jobs")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click(".theme-toggle")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != light
    page.click(".theme-toggle")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light
    page.context.clear_cookies(name="theme")


def test_erasing_asks_first_and_signing_out_ends_it(panel: Panel) -> None:
    page = panel.page
    page.goto(f"/jobs/{panel.jobs['second']}")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("text=Erase this job")
    assert page.url.endswith(panel.jobs["second"])
    page.click("text=Sign out")
    expect(page.locator("h1")).to_have_text("Sign in")
    found = [one for width in WIDTHS for theme in THEMES for one in findings(page, width, theme)]
    assert found == []
    page.goto("/jobs")
    expect(page.locator("h1")).to_have_text("Sign in")
