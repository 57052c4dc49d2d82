"""Pages of instructions, privacy, keys and webhooks: nothing is shown that is not there, or not theirs."""

import html
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.auth.models import AuditEntry, Key
from app.dashboard.pages.instructions import HEADED, parts_of, with_code
from engine.catalogue import CATALOGUE
from tests.app.dashboard.conftest import SignIn
from tests.app.seeds import seed_dataset, seed_job, seed_population, seed_webhook


def test_all_52_are_on_the_page_and_only_those_that_are_here_have_one(sign_in: SignIn) -> None:
    browser = sign_in("viewer")
    page = browser.get("/instructions").text
    assert {int(one) for one in re.findall(r"<b>(\d+)</b>", page)} == set(range(1, 53))
    assert len(re.findall(r'href="/instructions/\w+"', page)) == len(CATALOGUE)
    assert page.count("not here yet") == 52 - len(CATALOGUE)
    of_pictures = browser.get("/instructions?task=image_classification").text
    others = sum("image_classification" not in kind.tasks for kind in CATALOGUE.values())
    assert of_pictures.count("not for image classification") == others
    assert browser.get("/instructions?task=dancing").status_code == 422


def test_the_page_of_an_instruction_says_why_what_not_and_what_to_expect(sign_in: SignIn) -> None:
    browser = sign_in()
    page = html.unescape(browser.get("/instructions/45").text)
    for told in ("Why it is sound", "What it refuses", "What to expect", "head_ratio", "From 0 to 0.75", "Fang et al."):
        assert told in page
    assert 'href="/jobs/new?instructions=structured_pruning"' in page
    assert "Use it in a job" not in sign_in("viewer").get("/instructions/structured_pruning").text
    private = browser.get("/instructions/dp_sgd").text
    assert "Does not go with" in private
    assert 'href="/instructions/22"' in private
    assert "null without noise_multiplier" in private


def test_every_instruction_has_its_three_headings_and_no_stray_backtick() -> None:
    for kind in CATALOGUE.values():
        parts = parts_of(kind.__doc__ or "")
        assert [head for head, _ in parts if head] == list(HEADED)
        assert not any("`" in text for _, text in parts)
    assert with_code("a `<b>` & c") == "a <code>&lt;b&gt;</code> &amp; c"


@pytest.mark.parametrize(
    ("choice", "said"), [("mixup", "does not have it yet"), ("16", "16 mixup"), ("99", "no instruction")]
)
def test_one_that_is_not_here_is_told_so(sign_in: SignIn, choice: str, said: str) -> None:
    page = sign_in("viewer").get(f"/instructions/{choice}")
    assert page.status_code == 404
    assert said in html.unescape(page.text)


# Privacy.


def test_a_budget_is_set_and_shown_with_what_is_left(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    dataset, theirs = seed_dataset(service, tmp_path), seed_dataset(service, tmp_path, "other")
    browser, reader = sign_in(), sign_in("viewer")
    assert "No budget is set" in reader.get("/privacy").text
    form = {"dataset": dataset, "epsilon": "8", "delta": "1e-5"}
    assert reader.post("/privacy/budgets", data=form).status_code == 403
    assert browser.post("/privacy/budgets", data=form, headers={"Origin": "https://evil.example"}).status_code == 403
    assert browser.post("/privacy/budgets", data=form | {"dataset": theirs}).status_code == 404
    wrong = browser.post("/privacy/budgets", data=form | {"epsilon": "much", "delta": ""})
    assert wrong.status_code == 422
    assert wrong.text.count("problem-place") == 2
    assert 'value="much"' in wrong.text
    too_large = browser.post("/privacy/budgets", data=form | {"delta": "0.5"})
    assert too_large.status_code == 422
    assert "delta_too_large" in too_large.text
    assert browser.post("/privacy/budgets", data=form).headers["location"] == "/privacy"
    page = reader.get("/privacy").text
    assert "epsilon 0 of 8 is spent" in page
    assert "within budget" in page
    assert "texts of default" in page
    assert "Set a budget" not in page
    assert "texts of" not in sign_in(tenant="third").get("/privacy").text
    assert '<span class="figure-value">8</span>' in reader.get(f"/datasets/{dataset}").text


def test_a_private_job_stands_in_the_ledger(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    seed_population(service)
    browser = sign_in()
    page = browser.get("/privacy").text
    assert "population <code>pop_" in page
    assert "Nothing was spent yet" in page


# Keys.


def test_keys_are_for_admins(sign_in: SignIn) -> None:
    member = sign_in()
    assert member.get("/keys").status_code == 403
    assert member.post("/keys", data={"name": "mine", "role": "admin"}).status_code == 403
    admin = sign_in("admin")
    assert 'href="/keys"' in admin.get("/jobs").text
    assert admin.post("/keys", data={"name": "x"}, headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_secret_is_shown_once_and_opens_the_door(service: FastAPI, sign_in: SignIn) -> None:
    admin = sign_in("admin")
    token = re.search(r'name="token" value="(\w+)"', admin.get("/keys").text)
    assert token is not None
    form = {"name": "notebook", "role": "viewer", "tenant": "", "token": token[1]}
    made = admin.post("/keys", data=form)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "private, no-store"
    secret = re.search(r'id="secret">(ftw_[\w-]+)<', made.text)
    assert secret is not None
    again = admin.post("/keys", data=form).text
    assert secret[1] not in again + admin.get("/keys").text
    assert "was shown when the key was made" in again
    with service.state.database.reading() as session:
        keys = session.scalars(select(Key).where(Key.name == "notebook")).all()
        assert [(key.role, key.tenant) for key in keys] == [("viewer", "default")]
        kept = session.scalars(select(AuditEntry.detail)).all()
    assert secret[1] not in str(kept)
    reader = sign_in("viewer")
    assert reader.post("/sign-in", data={"key": secret[1]}).status_code == 303
    assert admin.post(f"/keys/{keys[0].id}/revoke").headers["location"] == "/keys"
    assert reader.get("/jobs").status_code == 303, "the session went with its key"
    assert admin.post(f"/keys/{keys[0].id}/revoke").status_code == 404


def test_what_is_wrong_with_a_key_is_told_and_makes_none(service: FastAPI, sign_in: SignIn) -> None:
    admin, theirs = sign_in("admin"), sign_in("admin", "other")
    wrong = admin.post("/keys", data={"name": "", "role": "king", "tenant": "A B"})
    assert wrong.status_code == 422
    assert wrong.text.count("problem-place") == 3
    assert 'name="tenant"' not in theirs.get("/keys").text
    form = {"name": "spy", "role": "viewer", "tenant": "default", "token": "0123456789abcdef"}
    for _ in range(2):
        refused = theirs.post("/keys", data=form)
        assert (refused.status_code, "its own tenant" in refused.text) == (403, True)
    assert "admin of default" not in theirs.get("/keys").text.partition("All keys")[2]
    with service.state.database.reading() as session:
        mine = session.scalars(select(Key.id).where(Key.tenant == "default")).one()
        assert session.scalars(select(Key).where(Key.name == "spy")).all() == []
    assert theirs.post(f"/keys/{mine}/revoke").status_code == 404
    last = admin.post(f"/keys/{mine}/revoke")
    assert last.status_code == 409
    assert "last admin key" in last.text


# Webhooks.


def test_a_webhook_is_made_with_its_secret_shown_once_and_deleted(service: FastAPI, sign_in: SignIn) -> None:
    browser, reader = sign_in(), sign_in("viewer")
    assert "No webhooks yet" in reader.get("/webhooks").text
    token = re.search(r'name="token" value="(\w+)"', browser.get("/webhooks").text)
    assert token is not None
    form = {"url": "https://93.184.216.34/hooks", "events": ["job.failed"], "token": token[1]}
    assert reader.post("/webhooks", data=form).status_code == 403
    assert browser.post("/webhooks", data=form, headers={"Origin": "https://evil.example"}).status_code == 403
    private = browser.post("/webhooks", data=form | {"url": "http://127.0.0.1/hooks"})
    assert private.status_code == 422
    assert "The webhook was not made" in private.text
    assert browser.post("/webhooks", data={"url": "ftp://x", "events": "job.slept"}).text.count("problem-place") == 2
    made, again = browser.post("/webhooks", data=form), browser.post("/webhooks", data=form)
    assert (made.status_code, again.status_code) == (201, 201)
    secret = re.search(r'id="secret">(whsec_[^<]+)<', made.text)
    assert secret is not None
    assert secret[1] not in again.text + reader.get("/webhooks").text
    found = set(re.findall(r'href="/webhooks/(wh_\w+)"', reader.get("/webhooks").text))
    assert len(found) == 1
    webhook = found.pop()
    assert "Nothing was sent yet" in reader.get(f"/webhooks/{webhook}").text
    assert sign_in(tenant="other").post(f"/webhooks/{webhook}/delete").status_code == 404
    assert reader.post(f"/webhooks/{webhook}/delete").status_code == 403
    assert browser.post(f"/webhooks/{webhook}/delete").headers["location"] == "/webhooks"
    assert reader.get(f"/webhooks/{webhook}").status_code == 404


def test_what_was_sent_is_told_and_sent_again(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    job = seed_job(service, seed_dataset(service, tmp_path))
    webhook, delivery = seed_webhook(service, job)
    browser = sign_in()
    page = browser.get(f"/webhooks/{webhook}").text
    assert "1: 204" in page
    assert '<span class="badge badge-good">delivered</span>' in page
    again = f"/webhooks/{webhook}/redeliver/{delivery}"
    assert sign_in("viewer").post(again).status_code == 403
    assert sign_in(tenant="other").post(again).status_code == 404
    assert browser.post(again).headers["location"] == f"/webhooks/{webhook}"
    assert '<span class="badge badge-warn">pending</span>' in browser.get(f"/webhooks/{webhook}").text
