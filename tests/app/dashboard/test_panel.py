"""Who gets in, what a page may load, who may post, and how a page refuses."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.auth.bootstrap import add_key, new_secret
from app.auth.models import AuditEntry, Key
from app.dashboard import assets, guard
from app.dashboard.models import PanelSession
from app.dashboard.sessions import Visitor
from app.dependencies import RANKS
from app.identity import Identity
from tests.app.dashboard.conftest import ORIGIN, SignIn


@pytest.fixture
def secret(service: FastAPI) -> str:
    """The secret of a viewer's key."""
    made = new_secret()
    with service.state.database.session() as session:
        add_key(session, "reader", "viewer", "default", made, made_by=None)
    return made


def browser_for(service: FastAPI, base_url: str = "http://testserver") -> TestClient:
    return TestClient(service, base_url=base_url, headers=ORIGIN | {"Origin": base_url}, follow_redirects=False)


def test_the_bare_address_is_the_panel_to_a_browser_and_json_to_a_program(service: FastAPI) -> None:
    browser = browser_for(service).get("/")
    assert (browser.status_code, browser.headers["location"]) == (303, "/jobs")
    program = TestClient(service).get("/")
    assert program.json()["service"] == "fiftytwo"
    assert program.headers["vary"] == browser.headers["vary"] == "Accept"


def test_nobody_is_led_to_the_form_and_on_to_where_they_wanted(service: FastAPI, secret: str) -> None:
    browser = browser_for(service)
    led = browser.get("/jobs?state=failed")
    assert led.headers["location"] == "/sign-in?next=/jobs%3Fstate%3Dfailed"
    form = browser.get(led.headers["location"])
    assert 'name="next" value="/jobs?state=failed"' in form.text
    signed_in = browser.post("/sign-in", data={"key": secret, "next": "/jobs?state=failed"})
    assert signed_in.headers["location"] == "/jobs?state=failed"
    assert browser.get("/jobs").status_code == 200
    assert browser.get("/sign-in").headers["location"] == "/jobs"


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example", "jobs", "/a\nb"])
def test_nobody_is_led_to_another_server(elsewhere: str) -> None:
    assert guard.own_path(elsewhere) == "/jobs"


def test_a_script_of_a_page_is_told_as_a_program_is(service: FastAPI) -> None:
    refused = TestClient(service, headers={"Accept": "application/json"}).get("/jobs")
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (401, "unauthorized")


def test_the_cookie_is_no_key_and_out_of_reach_of_scripts_and_other_sites(service: FastAPI, secret: str) -> None:
    plain = browser_for(service).post("/sign-in", data={"key": secret}).headers["set-cookie"]
    assert secret not in plain
    assert "HttpOnly" in plain
    assert "SameSite=strict" in plain
    assert "Path=/" in plain
    assert "Secure" not in plain
    secure = browser_for(service, "https://testserver").post("/sign-in", data={"key": secret}).headers["set-cookie"]
    assert secure.startswith("__Host-fiftytwo=")
    assert "Secure" in secure
    behind = browser_for(service).post("/sign-in", data={"key": secret}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in behind.headers["set-cookie"]
    with service.state.database.reading() as session:
        stored = session.scalars(select(PanelSession.token_sha256)).all()
    assert len(stored) == 3
    assert not any(digest in plain + secure for digest in stored)


def test_an_unknown_key_opens_nothing(service: FastAPI) -> None:
    browser = browser_for(service)
    for key, said in (("ftw_wrong", "not known here"), ("", "Enter a key")):
        refused = browser.post("/sign-in", data={"key": key})
        assert refused.status_code == 401
        assert said in refused.text
        assert "set-cookie" not in refused.headers


def test_a_session_ends_with_sign_out_with_its_time_and_with_its_key(service: FastAPI, sign_in: SignIn) -> None:
    browser = sign_in()
    left = dict(browser.cookies)
    assert browser.post("/sign-out").headers["location"] == "/sign-in"
    assert not browser.cookies
    assert browser.get("/jobs", headers={"Cookie": f"fiftytwo={left['fiftytwo']}"}).status_code == 303

    late, revoked = sign_in(), sign_in("viewer")
    database = service.state.database
    with database.session() as session:
        session.delete(session.scalars(select(Key).where(Key.role == "viewer")).one())
    assert late.get("/jobs").status_code == 200
    assert revoked.get("/jobs").status_code == 303
    with database.session() as session:
        session.execute(update(PanelSession).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    assert late.get("/jobs").status_code == 303
    sign_in()
    with database.reading() as session:
        assert len(session.scalars(select(PanelSession)).all()) == 1, "what is over is swept"
        actions = session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()
    assert [one for one in actions if one.startswith("session.")] == [
        "session.create",
        "session.delete",
        *["session.create"] * 3,
    ]


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ({"Origin": "http://testserver"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_only_a_page_of_this_origin_may_post(
    service: FastAPI, secret: str, headers: dict[str, str], let_in: bool
) -> None:
    browser = TestClient(service, headers={"Accept": "text/html"}, follow_redirects=False)
    answer = browser.post("/sign-in", data={"key": secret}, headers=headers)
    assert answer.status_code == (303 if let_in else 403)
    assert ("set-cookie" in answer.headers) is let_in


def test_every_answer_of_the_panel_is_protected(service: FastAPI, sign_in: SignIn) -> None:
    browser = sign_in()
    answers = [
        browser.get("/jobs"),
        browser.get("/jobs?after=%21"),
        browser.get(assets.address("panel.js")),
        browser.post("/sign-out", headers={"Origin": "https://evil.example"}),
        browser_for(service).get("/jobs"),
    ]
    assert [answer.status_code for answer in answers] == [200, 422, 200, 403, 303]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"]


def test_a_refusal_is_a_page_that_says_the_next_step(sign_in: SignIn) -> None:
    browser = sign_in()
    page = browser.get("/jobs?state=sleeping")
    assert page.status_code == 422
    assert "query parameter state" in page.text
    assert "Remedy" in page.text
    assert page.headers["x-request-id"] in page.text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"key=a&" * 1001),
        ("multipart/form-data; boundary=x", b"no part"),
        ("multipart/form-data", b"--x--"),
    ],
)
def test_a_form_that_cannot_be_read_is_the_senders_fault(service: FastAPI, kind: str, body: bytes) -> None:
    refused = browser_for(service).post("/sign-in", content=body, headers={"Content-Type": kind})
    assert refused.status_code == 400
    assert "open the page and send its form" in refused.text


def test_files_are_kept_for_ever_under_an_address_that_changes_with_them(service: FastAPI) -> None:
    browser = TestClient(service)
    script = browser.get(assets.address("panel.js"))
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert script.headers["content-encoding"] == "gzip"
    assert script.text == (assets.FOLDER / "panel.js").read_text()
    assert browser.get(assets.address("panel.js"), headers={"Accept-Encoding": ""}).text == script.text
    assert browser.get("/static/0000000000000000/panel.js").status_code == 404
    assert browser.get("/static/0000000000000000/models.py").status_code == 404


def test_the_chart_library_comes_out_of_its_package(service: FastAPI) -> None:
    library = TestClient(service).get(assets.address(assets.LIBRARY))
    assert library.status_code == 200
    assert "plotly.js" in library.text[:200]


def test_the_theme_that_was_chosen_stands_in_the_page(sign_in: SignIn) -> None:
    browser = sign_in()
    assert '<html lang="en">' in browser.get("/jobs").text
    browser.cookies.set("theme", "dark")
    assert '<html lang="en" data-theme="dark">' in browser.get("/jobs").text
    browser.cookies.set("theme", '"><script>')
    assert '<html lang="en">' in browser.get("/jobs").text


def test_only_sections_that_a_key_may_open_are_shown(sign_in: SignIn) -> None:
    assert '<a href="/jobs" aria-current="page">Jobs</a>' in sign_in("viewer").get("/jobs").text
    assert 'href="/keys"' not in sign_in("viewer").get("/jobs").text


def test_pages_offer_writes_to_members_and_admins_alone() -> None:
    may = {role for role in RANKS if Visitor(Identity("default", "key_1", role), "Ann", "").may_write}
    assert may == {"member", "admin"}
