"""A rater's link and page: its key alone opens it, a ballot at a time, cast once, with nothing that tells the arms."""

import html
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete, func, select

from app.auth.bootstrap import add_key, new_secret
from app.auth.models import Key
from app.experiments.models import ExperimentBallot
from app.jobs.states import State
from app.main import create_app
from tests.app.dashboard import experiment_scenes as scenes
from tests.app.dashboard.conftest import ORIGIN, SignIn
from tests.app.seeds import seed_dataset
from tests.service import lay_tables, settings_for

ITEMS = 3
# Of three arms whose answers are spam, ham, spam or the other way round, two pairs differ.
BALLOTS = 2 * ITEMS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests of this module."""
    return tmp_path_factory.mktemp("rating")


@pytest.fixture(scope="module")
def service(folder: Path) -> FastAPI:
    """One service for all tests of this module."""
    made = create_app(settings_for(folder / "data", requests_per_second=1e6))
    lay_tables(made.state.database)
    return made


@pytest.fixture
def experiment(service: FastAPI, folder: Path) -> str:
    """An experiment that people may judge."""
    return scenes.judged(service, seed_dataset(service, folder), ITEMS)


def stranger(service: FastAPI, base_url: str = "http://testserver") -> TestClient:
    """A browser that nobody has signed in with."""
    return TestClient(service, base_url=base_url, headers=ORIGIN | {"Origin": base_url}, follow_redirects=False)


def link_of(page: Any) -> str:
    """The link that a page shows."""
    found = re.search(r'id="rater-link" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return html.unescape(found[1])


def invited(sign_in: SignIn, experiment: str, name: str = "Ada") -> str:
    """A rater's key."""
    return link_of(sign_in().post(f"/experiments/{experiment}/raters", data={"name": name})).partition("#")[2]


def rater_for(service: FastAPI, experiment: str, key: str) -> TestClient:
    """A browser in which the link was opened."""
    browser = stranger(service)
    answer = browser.post(f"/rate/{experiment}/session", data={"key": key})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/rate/{experiment}")
    return browser


def ballot_of(page: Any) -> str:
    """The id of the ballot that a page shows."""
    found = re.search(r'name="ballot" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return found[1]


def ballots(service: FastAPI, experiment: str) -> int:
    with service.state.database.reading() as session:
        query = select(func.count()).where(ExperimentBallot.experiment_id == experiment)
        return session.scalar(query) or 0


def test_a_link_is_made_once_and_shown_once(service: FastAPI, sign_in: SignIn, experiment: str) -> None:
    browser = sign_in()
    path = f"/experiments/{experiment}"
    made = browser.post(f"{path}/raters", data={"name": " Ada "})
    assert made.status_code == 201
    link = link_of(made)
    assert link.startswith(f"http://testserver/rate/{experiment}#ftw_")
    assert "no-store" in made.headers["cache-control"]
    again = browser.post(f"{path}/raters", data={"name": "Ada"})
    assert again.status_code == 409
    assert "Ada has a key already" in again.text
    assert browser.post(f"{path}/raters", data={"name": ""}).status_code == 422
    assert link.partition("#")[2] not in browser.get(path).text
    assert browser.get(f"{path}/raters").headers["location"] == f"{path}#people"
    assert 'action="' + path in browser.get(path).text
    assert sign_in("viewer").post(f"{path}/raters", data={"name": "Bob"}).status_code == 403
    assert "Make a link" not in sign_in("viewer").get(path).text
    assert sign_in("admin", "other").post(f"{path}/raters", data={"name": "Bob"}).status_code == 404


def test_the_link_opens_its_experiment_and_nothing_else(
    service: FastAPI, sign_in: SignIn, experiment: str, folder: Path
) -> None:
    key = invited(sign_in, experiment)
    browser = stranger(service)
    assert "Open the link that you were sent" in browser.get(f"/rate/{experiment}").text
    answer = browser.post(f"/rate/{experiment}/session", data={"key": key})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("fiftytwo-rater=")
    assert f"Path=/rate/{experiment}" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert key not in cookie
    assert ballot_of(browser.get(f"/rate/{experiment}"))
    token = cookie.partition("=")[2].partition(";")[0]
    other = scenes.judged(service, seed_dataset(service, folder), ITEMS)
    assert 'name="ballot"' not in browser.get(f"/rate/{other}", headers={"Cookie": f"fiftytwo-rater={token}"}).text
    assert stranger(service).post(f"/rate/{other}/session", data={"key": key}).status_code == 401
    assert browser.get(f"/rate/{experiment}/session").headers["location"] == f"/rate/{experiment}"
    panel = stranger(service).get("/experiments", headers={"Cookie": f"fiftytwo={token}"})
    assert panel.status_code == 403, "a rater's session opens no page of the panel"
    refused = stranger(service).post("/sign-in", data={"key": key})
    assert refused.status_code == 401
    assert "open the link that it came with" in html.unescape(refused.text)
    secure = stranger(service, "https://testserver").post(f"/rate/{experiment}/session", data={"key": key})
    assert secure.headers["set-cookie"].startswith("__Secure-fiftytwo-rater=")
    assert "Secure" in secure.headers["set-cookie"]


def test_no_other_key_opens_it(service: FastAPI, experiment: str) -> None:
    member = new_secret()
    with service.state.database.session() as session:
        add_key(session, "member", "member", "default", member, made_by=None)
    for key in (member, "ftw_none", ""):
        answer = stranger(service).post(f"/rate/{experiment}/session", data={"key": key})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert "This link does not open anything" in answer.text
    foreign = {"Origin": "https://evil.example"}
    assert (
        stranger(service).post(f"/rate/{experiment}/session", data={"key": member}, headers=foreign).status_code == 403
    )


def test_a_reload_shows_the_same_ballot_and_a_second_cast_changes_nothing(
    service: FastAPI, sign_in: SignIn, experiment: str
) -> None:
    browser = rater_for(service, experiment, invited(sign_in, experiment))
    path = f"/rate/{experiment}"
    page = browser.get(path)
    assert f"{BALLOTS} left" in page.text
    assert browser.get(path).text == page.text
    first = {"ballot": ballot_of(page), "choice": "left"}
    assert browser.post(f"{path}/ballots", data=first).headers["location"] == path
    assert f"{BALLOTS - 1} left" in browser.get(path).text
    again = browser.post(f"{path}/ballots", data=first | {"choice": "right"})
    assert again.headers["location"] == f"{path}?told=twice"
    told = browser.get(again.headers["location"])
    assert "your first answer stands" in told.text
    assert f"{BALLOTS - 1} left" in told.text
    assert ballots(service, experiment) == 1
    assert browser.post(f"{path}/ballots", data=first | {"choice": "middle"}).status_code == 422
    assert browser.post(f"{path}/ballots", data=first | {"ballot": "bal_none"}).status_code == 404
    assert stranger(service).post(f"{path}/ballots", data=first).headers["location"] == path
    assert ballots(service, experiment) == 1


def test_after_the_last_there_are_thanks_and_the_human_column(
    service: FastAPI, sign_in: SignIn, experiment: str
) -> None:
    browser, path = rater_for(service, experiment, invited(sign_in, experiment)), f"/rate/{experiment}"
    before = sign_in().get(f"/experiments/{experiment}")
    assert before.text.count("no ballots yet") == 3
    for _ in range(BALLOTS):
        browser.post(f"{path}/ballots", data={"ballot": ballot_of(browser.get(path)), "choice": "left"})
    end = browser.get(path)
    assert "Thank you, Ada" in end.text
    assert f"{BALLOTS} ballots" in end.text
    after = sign_in().get(f"/experiments/{experiment}")
    assert "no ballots yet" not in after.text
    assert f"{BALLOTS} ballots by 1 rater on {ITEMS} items" in after.text
    assert f'<th scope="row">Ada</th><td class="number">{BALLOTS}</td>' in after.text


def test_nothing_tells_the_arms(service: FastAPI, sign_in: SignIn, experiment: str) -> None:
    browser, path = rater_for(service, experiment, invited(sign_in, experiment)), f"/rate/{experiment}"
    page = browser.get(path)
    assert not re.search(r"baseline|pruned|treatment|\barm\b|job_|structured", page.text)
    lefts: Counter[str] = Counter()
    shape = set()
    for name in ("one", "two", "three", "four"):
        other = rater_for(service, experiment, invited(sign_in, experiment, name))
        for _ in range(BALLOTS):
            page = other.get(path)
            labels = re.findall(r'<p class="said-label">(\w+)</p>', page.text)
            shape.add(
                re.sub(r'spam|ham|value="bal_[^"]+"|<p class="said-text">.*?</p>|\d+ left', "", page.text, flags=re.S)
            )
            lefts[labels[0]] += 1
            assert sorted(labels) == ["ham", "spam"]
            other.post(f"{path}/ballots", data={"ballot": ballot_of(page), "choice": "both"})
    # But for the answers themselves every page is the same.
    assert len(shape) == 1
    assert min(lefts["ham"], lefts["spam"]) >= 4


def test_before_the_end_there_is_nothing_to_judge(service: FastAPI, sign_in: SignIn) -> None:
    one = scenes.put_experiment(service, "soon", [[(State.QUEUED, 0.0)] * 2] * 2, human_items=4)
    browser = rater_for(service, one, invited(sign_in, one))
    assert "the models are still being trained" in browser.get(f"/rate/{one}").text


def test_a_revoked_key_closes_the_page(service: FastAPI, sign_in: SignIn, experiment: str) -> None:
    browser = rater_for(service, experiment, invited(sign_in, experiment))
    with service.state.database.session() as session:
        session.execute(delete(Key).where(Key.role == "rater"))
    assert 'name="ballot"' not in browser.get(f"/rate/{experiment}").text


def test_pictures_and_texts_are_shown_as_what_they_are(service: FastAPI, sign_in: SignIn, folder: Path) -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    one = scenes.judged(service)
    said = [{"kind": "text", "text": "<b>bold</b>"}, {"kind": "text", "text": "plain"}, None]
    scenes.put_items(
        service, one, seed_dataset(service, folder), 1, shown={"kind": "picture", "picture": picture}, answers=said
    )
    page = rater_for(service, one, invited(sign_in, one)).get(f"/rate/{one}")
    assert "Which text fits this picture better?" in page.text
    assert f'<img class="rate-picture" src="{picture}"' in page.text
    assert "&lt;b&gt;bold&lt;/b&gt;" in page.text
    assert page.headers["content-security-policy"].count("img-src 'self' data:") == 1
