"""People judge in a real Chromium: two raters cast forty ballots, and the human column follows. Skips where there is
none."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import func, select, update

from app.experiments.models import ExperimentBallot, ExperimentJob
from app.jobs.models import Job
from app.jobs.states import State
from tests.app.dashboard import experiment_scenes as scenes
from tests.app.dashboard.browsing import THEMES, WIDTHS, Browsing, findings, opened
from tests.app.seeds import seed_dataset

ITEMS = 10
EACH = 2 * ITEMS
"""Ballots for one rater: two of the three pairs of arms differ on every item."""
WAYS = ("click", "1", "ArrowRight", "3", "4")


@dataclass
class Panel:
    """The browser of a member, and the experiments there are."""

    browsing: Browsing
    seen: dict[str, str]

    @property
    def page(self) -> Page:
        """The member's page."""
        return self.browsing.page

    def ballots(self) -> int:
        """How many are on record."""
        with self.browsing.service.state.database.reading() as session:
            return session.scalar(select(func.count()).select_from(ExperimentBallot)) or 0


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Panel]:
    """One browser for all tests of this module."""
    folder = tmp_path_factory.mktemp("rating")
    with opened(folder / "data") as browsing:
        dataset = seed_dataset(browsing.service, folder)
        yield Panel(browsing, scenes.whole(browsing.service, dataset, ITEMS))


@pytest.fixture(autouse=True)
def content(panel: Panel) -> Iterator[None]:
    """The browser has nothing to complain of: no script fails, and nothing breaks the policy."""
    panel.browsing.complaints.clear()
    yield
    assert panel.browsing.complaints == []


def serious(page: Page) -> list[str]:
    """What axe has against a page at both widths in both themes."""
    return [one for width in WIDTHS for theme in THEMES for one in findings(page, width, theme)]


def link_for(panel: Panel, name: str) -> str:
    """A rater's link, made on the experiment's page."""
    panel.page.goto(f"/experiments/{panel.seen['judged']}")
    panel.page.fill("#rater-name", name)
    panel.page.click("text=Make a link")
    return panel.page.input_value("#rater-link")


def opened_by(panel: Panel, link: str) -> Page:
    """A phone on which the link was opened."""
    context = panel.page.context.browser
    assert context is not None
    page = context.new_context(viewport={"width": 360, "height": 740}, reduced_motion="reduce").new_page()
    page.on("pageerror", lambda error: panel.browsing.complaints.append(str(error)))
    page.on("console", lambda told: panel.browsing.complaints.append(told.text) if told.type == "error" else None)
    page.goto(link)
    page.wait_for_selector("#choices")
    return page


def settled(page: Page) -> None:
    """Wait: a tap right after a ballot came up is taken for one that was meant for the ballot before."""
    page.wait_for_timeout(450)


def cast(page: Page, left: int, way: str) -> None:
    """Cast the ballot that is shown, and wait for the next."""
    ballot = page.input_value("[name=ballot]")
    if way == "click":
        settled(page)
        page.click("button[value=left]")
    else:
        page.keyboard.press(way)
    if left == 1:
        page.wait_for_selector(".rate-end")
    else:
        expect(page.locator("[name=ballot]")).not_to_have_value(ballot)


@pytest.mark.parametrize("path", ["/experiments/new", "/experiments/{judged}"])
def test_axe_finds_nothing_serious(panel: Panel, path: str) -> None:
    panel.page.goto(path.format(**panel.seen))
    assert serious(panel.page) == []


def test_forty_ballots_by_two_raters_change_the_human_column(panel: Panel) -> None:
    column = panel.page.locator(".human")
    links = [link_for(panel, name) for name in ("Ada", "Bo")]
    expect(column.first).to_contain_text("no ballots yet")
    for link in links:
        phone = opened_by(panel, link)
        assert "ftw_" not in phone.url
        if link == links[0]:
            assert serious(phone) == []
            phone.set_viewport_size({"width": 360, "height": 740})
        for cast_before in range(EACH):
            expect(phone.locator(".rate-left")).to_have_text(f"{EACH - cast_before} left")
            cast(phone, EACH - cast_before, WAYS[cast_before % len(WAYS)])
        expect(phone.locator("h1")).to_contain_text("Thank you")
        phone.context.close()
    assert panel.ballots() == 2 * EACH == 40
    # The page follows by itself.
    expect(panel.page.locator("#ballots")).to_contain_text("40 ballots by 2 raters", timeout=12_000)
    expect(column.first).to_contain_text("to")
    expect(panel.page.locator(".human .interval")).to_have_count(3)


def test_casting_twice_changes_nothing_and_is_told_kindly(panel: Panel) -> None:
    link = link_for(panel, "Cy")
    phone = opened_by(panel, link)
    before = panel.ballots()
    shown = phone.input_value("[name=ballot]")
    phone.reload()
    assert phone.input_value("[name=ballot]") == shown
    other = phone.context.new_page()
    other.goto(phone.url)
    cast(phone, EACH, "click")
    human = panel.page.request.get(f"/experiments/{panel.seen['judged']}/parts/arms").text()
    settled(other)
    other.click("button[value=right]")
    expect(other.locator(".note")).to_contain_text("your first answer stands")
    expect(other.locator(".rate-left")).to_have_text(f"{EACH - 1} left")
    assert panel.ballots() == before + 1
    assert panel.page.request.get(f"/experiments/{panel.seen['judged']}/parts/arms").text() == human
    # Another rater's link in the same browser, after what is left of the first: its own name, with all of its ballots.
    other.goto(link_for(panel, "Di"))
    expect(other.locator(".rate-left")).to_have_text(f"{EACH} left")
    phone.context.close()


def test_faults_stand_beside_the_fields_as_they_are_typed(panel: Panel) -> None:
    page = panel.page
    with panel.browsing.service.state.database.reading() as session:
        job = session.scalars(select(ExperimentJob.job_id)).first()
    page.goto(f"/experiments/new?job={job}")
    expect(page.locator("#baseline-faults")).to_contain_text("the page Data sets lists yours")
    expect(page.get_by_text("1 fault so far", exact=False)).to_be_visible()
    expect(page.locator("#treatment-0-name-faults")).to_be_empty()
    page.goto("/experiments/new")
    page.fill("#baseline", '{"task": "text_classification", "dataset": "ds_none"}')
    page.fill("#treatment-0-name", "baseline")
    expect(page.locator("#baseline-faults")).to_contain_text("ds_none")
    expect(page.locator("#treatment-0-name-faults")).to_contain_text("another arm")
    expect(page.locator("#treatment-0-name")).to_have_attribute("aria-invalid", "true")
    page.select_option("#treatment-0-add", "length_bucketing")
    assert '"length_bucketing"' in page.input_value("#treatment-0-changes")
    page.click("#add-treatment")
    page.fill("#treatment-1-changes", "{")
    expect(page.locator("#treatment-1-changes-faults")).to_contain_text("line 1")
    page.locator(".remove-treatment").last.click()
    expect(page.locator(".treatment")).to_have_count(1)


def test_runs_are_followed_live_until_they_are_cancelled(panel: Panel) -> None:
    page, experiment = panel.page, panel.seen["running"]
    page.goto(f"/experiments/{experiment}")
    expect(page.locator("#runs")).to_contain_text("2 of 9 runs ended")
    with panel.browsing.service.state.database.session() as session:
        jobs = select(ExperimentJob.job_id).where(ExperimentJob.experiment_id == experiment, ExperimentJob.seed == 2)
        ended = update(Job).where(Job.id.in_(jobs), Job.state == State.RUNNING).values(state=State.SUCCEEDED)
        session.execute(ended)
    expect(page.locator("#runs")).to_contain_text("4 of 9 runs ended")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("text=Cancel")
    expect(page.locator("h1 + .lead .state")).to_have_text("cancelled")


def test_a_link_is_copied(panel: Panel) -> None:
    panel.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    link = link_for(panel, "Eve")
    panel.page.click("text=Copy")
    expect(panel.page.locator("[data-copy-link]")).to_have_text("Copied")
    assert panel.page.evaluate("navigator.clipboard.readText()") == link
