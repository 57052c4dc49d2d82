"""How soon a job's page with 100,000 points of its metrics is there: drawn by a real Chromium, nothing cached."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import insert, update

from app.database import Database
from app.jobs.models import Job, MetricPoint
from benchmarks.article.section import NotAtHand
from benchmarks.benchmark import Benchmark, Setting
from benchmarks.chromium import ARGUMENTS, MISSING, chromium
from benchmarks.pairs import Line, Pair
from benchmarks.servers import HOST, KEY, api, upload
from benchmarks.texts import prepared
from engine.baseline import PANEL

_POINTS = 100_000
_SIGNED_IN = "**/jobs"


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """The API with one job of twelve series; each turn is a browser that has seen nothing of it before."""
    browser_path = chromium()
    if browser_path is None:
        raise NotAtHand(MISSING)
    folder = setting.scratch("page")
    with api(folder / "data") as ours, ours.client() as client, sync_playwright() as playwright:
        dataset = upload(client, prepared(folder), "text_classification")
        job = str(client.post("/v1/jobs", {"task": "text_classification", "dataset": dataset})["id"])
        database = Database(ours.settings.database)
        _fill(database, job, 2_400 if setting.quick else _POINTS)
        database.close()
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(ARGUMENTS))
        address = f"http://{HOST}:{ours.port}"

        def pair(_: int) -> dict[str, float]:
            page = _seconds(browser, address, f"/jobs/{job}")
            return {"page": page, "one chart": _seconds(browser, address, f"/compare?job={job}&metric=train_loss")}

        pair(0)
        yield pair
        browser.close()


def _fill(database: Database, job: str, points: int) -> None:
    """Give the job its points, as a worker would have."""
    began, steps = datetime.now(UTC), points // len(PANEL)
    rows = [
        {
            "job_id": job,
            "name": name,
            "step": step,
            "value": math.exp(-5 * step / steps) + 0.1 * math.sin(step * (7 + place)),
            "at": began + timedelta(seconds=step / 10),
        }
        for place, name in enumerate(PANEL)
        for step in range(1, steps + 1)
    ]
    with database.session() as session:
        session.execute(insert(MetricPoint), rows)
        told = {"latest": {row["name"]: row["value"] for row in rows}, "step": steps, "total_steps": steps}
        session.execute(update(Job).where(Job.id == job).values(told))


def _seconds(browser: Browser, address: str, path: str) -> float:
    """From the navigation to the frame in which every curve is drawn, in a browser without a cache."""
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.goto("/sign-in")
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    page.wait_for_url(_SIGNED_IN)
    page.goto(path)
    page.wait_for_selector("html[data-drawn]")
    milliseconds = float(page.locator("html").get_attribute("data-drawn") or "nan")
    context.close()
    return milliseconds / 1e3


BENCHMARKS = (
    Benchmark(
        "metrics-page",
        "metrics page",
        f"a job's page with {_POINTS:,} points of {len(PANEL)} series, from the navigation to the drawn frame in "
        "Chromium with an empty cache; and the large chart of one of them",
        (
            Line("page", 2, 1, more_is_better=False, unit="s"),
            Line("one chart", unit="s"),
        ),
        opened,
        45,
    ),
)
