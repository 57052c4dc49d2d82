"""Pictures of the panel, to be looked at: `python -m tests.app.dashboard.screenshots FOLDER [PATH...]`.

Makes a service of its own with the jobs of `scenes`, and takes each page at 360 and 1280 pixels, light and dark. A path
may name a job or an experiment: `/jobs/{first}`, `/jobs/{running}`, `/experiments/{judged}`.
"""

import re
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from app.auth.bootstrap import bootstrap
from app.database import Base
from app.main import create_app
from app.settings import Settings
from benchmarks.chromium import ARGUMENTS, chromium
from tests.app.dashboard import experiment_scenes, scenes
from tests.app.dashboard.live import listening

PAGES = (
    "/sign-in",
    "/jobs",
    "/jobs/{first}",
    "/jobs/{running}",
    "/jobs/{failed}",
    "/compare?job={first}&job={second}",
    "/experiments",
    "/experiments/new?job={first}",
    "/experiments/{judged}",
    "/experiments/{compared}",
    "/rate/{judged}#{rater}",
)
WIDTHS = (360, 1280, 1920)


def main(folder: Path, paths: tuple[str, ...]) -> None:
    """Take the pictures into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        service = create_app(Settings(data_dir=Path(data), requests_per_second=10_000))
        Base.metadata.create_all(service.state.database.engine)
        key = bootstrap(service.state.database, service.state.settings)
        jobs = scenes.whole(service, Path(data)) | experiment_scenes.pictured(service, Path(data))
        with listening(service) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
            for theme in ("light", "dark"):
                context = browser.new_context(color_scheme=theme, base_url=address)
                page = context.new_page()
                page.on("console", lambda message: print(f"  {message.type}: {message.text}"))
                page.on("pageerror", lambda error: print(f"  error: {error}"))
                for path in paths:
                    for width in WIDTHS:
                        _take(page, path.format(**jobs), width, folder / f"{_name(path)}-{width}-{theme}.png")
                    if path == "/sign-in":
                        page.fill("#key", key or "")
                        page.press("#key", "Enter")
                        page.wait_for_url("**/jobs")
            browser.close()


def _take(page: Page, path: str, width: int, file: Path) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path)
    page.wait_for_timeout(400)
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=file, full_page=True)
    print(file.name, "" if wide <= width else f"IS TOO WIDE: {wide}")


def _name(path: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in re.split("[?#]", path.strip("/"))[0]) or "root"


if __name__ == "__main__":
    main(Path(sys.argv[1]), ("/sign-in", *sys.argv[2:]) if sys.argv[2:] else PAGES)
