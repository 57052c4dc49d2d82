"""The builder, an upload and the other pages in a real Chromium: by keyboard, without a script, in both themes."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from app.jobs.models import Job
from tests.app.dashboard.browsing import THEMES, WIDTHS, Browsing, findings, opened
from tests.app.seeds import seed_dataset, seed_population

ROWS = b"".join(b'{"text": "text %d", "label": "%s"}\n' % (i, b"ham" if i % 3 else b"spam") for i in range(30))


@dataclass
class Scene:
    """The browser, and the data set that it can choose."""

    browsing: Browsing
    dataset: str

    @property
    def page(self) -> Page:
        """The one page."""
        return self.browsing.page


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One browser for all tests of this module."""
    folder = tmp_path_factory.mktemp("builder")
    with opened(folder / "data") as browsing:
        seed_population(browsing.service)
        yield Scene(browsing, seed_dataset(browsing.service, folder))


@pytest.fixture(autouse=True)
def content(scene: Scene) -> Iterator[None]:
    """No script fails, and nothing breaks the policy."""
    scene.browsing.complaints.clear()
    scene.page.set_viewport_size({"width": 1280, "height": 800})
    yield
    assert scene.browsing.complaints == []


def told(page: Page, said: str) -> None:
    expect(page.locator("#told")).to_have_text(said)


def test_a_conflict_shows_its_remedy_and_goes_when_it_is_mended(scene: Scene) -> None:
    page = scene.page
    page.goto("/jobs")
    page.click("text=New job")
    page.select_option("#f-dataset", scene.dataset)
    told(page, "Ready")
    page.focus("#f-instructions-51")
    expect(page.locator("#f-51-momentum")).to_be_hidden()
    page.keyboard.press("Space")
    expect(page.locator("#f-51-momentum")).to_be_visible()
    told(page, "1 to mend")
    beside = page.locator('[data-field="instructions.51"] > .field-faults')
    expect(beside).to_contain_text("Remedy: add quantization_aware_training (49)")
    expect(page.locator("#f-instructions-51")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#f-instructions-51")).to_be_focused()
    page.fill("#f-training-epochs", "0")
    told(page, "2 to mend")
    page.click('#verdict a:has-text("greater than")')
    expect(page.locator("#f-training-epochs")).to_be_focused()
    page.keyboard.type("2")
    page.fill("#f-training-epochs", "2")
    page.click("text=Add 49")
    told(page, "Ready")
    expect(beside).to_be_empty()
    expect(page.locator("#f-instructions-51")).not_to_have_attribute("aria-invalid", "true")
    expect(page.locator(".plan-steps li")).to_have_text(["49 Quantisation-aware training", "51 Dynamic range tracking"])
    command = page.locator("#command")
    expect(command).to_contain_text("--instructions 49,51")
    expect(command).to_contain_text("--set training.epochs=2")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    without = "Object.defineProperty(navigator.clipboard, 'writeText', {value: undefined})"
    for name, clipboard in (("built", "navigator.clipboard"), ("built in a browser", without)):
        page.evaluate(clipboard)
        page.fill("#f-name", name)
        expect(command).to_contain_text(f"--name {shlex.quote(name)}")
        page.click("text=Copy >> visible=true")
        expect(page.locator("[data-copy=command]")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == command.text_content()
    page.click("#submit")
    page.wait_for_url("**/jobs/job_*")
    expect(page.locator("h1")).to_have_text("built in a browser")
    page.click('a[href^="/jobs/new?from="]')
    expect(page.locator("#f-instructions-49")).to_be_checked()
    expect(page.locator("#f-training-epochs")).to_have_value("2")
    told(page, "Ready")


def test_the_core_works_without_a_script(scene: Scene) -> None:
    context = scene.page.context
    assert context.browser is not None
    plain = context.browser.new_context(
        storage_state=context.storage_state(), base_url=scene.page.url, java_script_enabled=False
    ).new_page()
    plain.goto("/jobs/new")
    plain.select_option("#f-dataset", scene.dataset)
    plain.check("#f-instructions-45")
    plain.fill("#f-45-ratio", "7")
    plain.click("#check-now")
    expect(plain.locator('[data-field="45.ratio"] .field-fault')).to_contain_text("Remedy:")
    plain.fill("#f-45-ratio", "0.4")
    plain.click("#submit")
    plain.wait_for_url("**/jobs/job_*")
    with scene.browsing.service.state.database.reading() as session:
        spec = session.scalars(select(Job.spec).where(Job.id == plain.url.rpartition("/")[2])).one()
    assert spec["instructions"][0]["ratio"] == 0.4
    plain.context.close()


def test_a_file_goes_up_with_its_progress_told(scene: Scene, tmp_path: Path) -> None:
    page = scene.page
    file = tmp_path / "mails.jsonl"
    file.write_bytes(ROWS)
    page.goto("/datasets")
    page.set_input_files("#file", file)
    page.fill("#upload #name", "mails")
    page.click("#upload button")
    page.wait_for_url("**/datasets/ds_*")
    expect(page.locator("h1")).to_have_text("mails")


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/new?dataset={dataset}&instructions=51",
        "/datasets",
        "/datasets/{dataset}",
        "/models",
        "/instructions",
        "/instructions/45",
        "/privacy",
        "/webhooks",
        "/keys",
    ],
)
def test_axe_finds_nothing_serious(scene: Scene, path: str) -> None:
    scene.page.goto(path.format(dataset=scene.dataset))
    if path.startswith("/jobs/new"):
        told(scene.page, "1 to mend")
    found = [one for width in WIDTHS for theme in THEMES for one in findings(scene.page, width, theme)]
    assert found == []
