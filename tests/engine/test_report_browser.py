"""The report as a browser shows it: on a phone, with names whole, and each legend in the colour of its line."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from benchmarks.chromium import ARGUMENTS, MISSING, chromium
from engine.report import report
from tests.engine.test_report import RECEIPT, RUNGS

TIERS = {1: "foundation", 47: "deployment"}
CURVES = {
    "train_loss": {"points": [[step, 1 / (step + 1)] for step in range(40)]},
    "valid_loss": {"points": [[19, 0.5], [39, 0.25]]},
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = chromium()
    if path is None:
        pytest.skip(MISSING)
    file = tmp_path_factory.mktemp("report") / "report.html"
    rungs = [*RUNGS, {**RUNGS[0], "name": "quantization_aware_training"}]
    file.write_bytes(report({**RECEIPT, "job": "job_01K9ZJ3V6T8N2QW4X5Y7R0ABCD"}, CURVES, rungs, TIERS))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        page = browser.new_page()
        page.goto(file.as_uri())
        yield page
        browser.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(shown: Page, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    edges = shown.locator(".big, .band").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert len(edges) == 3
    assert max(edges[1:]) <= edges[0] + 1, "the pyramid stays within the column"


def test_a_legend_has_the_colour_of_its_line(shown: Page) -> None:
    legend = shown.locator("svg text", has_text="valid_loss").evaluate("one => getComputedStyle(one).fill")
    line = shown.locator("polyline").nth(1).evaluate("one => getComputedStyle(one).stroke")
    assert legend == line


def test_a_bar_has_its_whole_name_inside_the_chart(shown: Page) -> None:
    name = shown.locator("svg text", has_text="quantization_aware_training")
    assert name.evaluate("one => one.getBBox().x") >= 0
