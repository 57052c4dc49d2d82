"""No page shows another tenant's rows, changes them, or tells that they are there; none opens for nobody.

The routes come from the panel's own list: one that is new here fails until somebody has said what its path names.
"""

import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.dashboard.pages import ROUTERS
from app.dashboard.routing import PanelRoute
from tests.app.dashboard.conftest import ORIGIN, SignIn
from tests.app.seeds import seed
from tests.app.test_strangers import OWNED

# Path parameters that name nothing of a tenant's.
NAMES = {"move": "cancel", "part": "arms"}
# Pages that open without a session: files, signing in, what the API is, and the page of a rater, whose key opens it.
OPEN = re.compile(r"/static/.*|/sign-in|/docs|/rate/.*")
# Answers that lead on to a page and tell nothing.
LEADING = {("GET", "/experiments/{experiment_id}/raters")}
# What everybody who is signed in may see.
PUBLIC = {"choice"}


def pages() -> list[tuple[str, str]]:
    """Method and path of each page that needs a session."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, PanelRoute)]
    found = {(method, route.path) for route in routes for method in route.methods or ()}
    return sorted((method, path) for method, path in found - LEADING if not OPEN.fullmatch(path))


def test_a_stranger_sees_no_page_of_another_tenant(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    seeds = seed(service, tmp_path)
    stranger, looked = sign_in("admin", "another"), list[str]()
    for method, path in pages():
        names = re.findall(r"{(\w+)(?::\w+)?}", path)
        if not set(names) - PUBLIC:
            continue
        assert set(names) <= {*OWNED, *NAMES}, f"say what {names} of {path} name"
        filled = re.sub(
            r"{(\w+)(?::\w+)?}",
            lambda found: NAMES.get(found[1]) or getattr(seeds, OWNED[found[1]])[0],
            path,
        )
        answer = stranger.request(method, filled)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
        looked.append(path)
    assert "/jobs/{job_id}" in looked


def test_no_page_opens_for_nobody(service: FastAPI) -> None:
    nobody = TestClient(service, headers=ORIGIN, follow_redirects=False)
    for method, path in pages():
        answer = nobody.request(method, re.sub(r"{\w+(?::\w+)?}", "x", path))
        assert answer.status_code == 303, f"{method} {path}: {answer.status_code}"
        assert answer.headers["location"].startswith("/sign-in"), path
