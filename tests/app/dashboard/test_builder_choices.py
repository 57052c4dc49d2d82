"""The builder's webhook of one job, and data sets and models that are too old for its lists."""

import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.dashboard import offers
from app.jobs.states import State
from app.webhooks.models import WebhookEndpoint
from tests.app.dashboard.conftest import SignIn
from tests.app.dashboard.test_builder import jobs_of, part
from tests.app.seeds import seed_artifact, seed_dataset, seed_job

SECRET = "whsec_" + "c2VjcmV0IG9mIDI0IGJ5dGVzISEh"
ADDRESS = "https://93.184.216.34/hooks"


def check(browser: TestClient, form: dict[str, str]) -> dict[str, list[str]]:
    """The codes of the faults by their control."""
    found = browser.post("/jobs/new/check", data=form).json()["faults"]
    return {name: [one["code"] for one in faults] for name, faults in found.items()}


def test_a_job_is_given_a_webhook_whose_secret_no_command_shows(
    service: FastAPI, sign_in: SignIn, tmp_path: Path
) -> None:
    browser, form = sign_in(), {"dataset": seed_dataset(service, tmp_path), "webhook.url": ADDRESS}
    assert check(browser, form) == {"webhook.secret": ["missing"]}
    assert "Webhook secret: Field required" in browser.post("/jobs/new/check", data=form).json()["panel"]
    assert "Unticked: checked and stored" in browser.get("/jobs/new").text
    assert check(browser, form | {"webhook.secret": "swordfish"}) == {"webhook.secret": ["webhook_secret"]}
    whole = form | {"webhook.secret": SECRET}
    panel = browser.post("/jobs/new/check", data=whole).json()["panel"]
    assert SECRET not in panel
    assert panel.count("whsec_YOUR_SECRET") == 3
    assert browser.post("/jobs/new", data=whole).status_code == 303
    with service.state.database.reading() as session:
        (endpoint,) = session.query(WebhookEndpoint).all()
        assert (endpoint.url, endpoint.secret) == (ADDRESS, SECRET)
    again = browser.get(f"/jobs/new?from={jobs_of(service)[0].id}").text
    assert json.loads(part(again, "json"))["webhook"] == {"url": ADDRESS}
    assert SECRET not in again


def test_what_is_too_old_for_a_list_is_named_by_its_id(
    service: FastAPI, sign_in: SignIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = sign_in()
    old, newest = (seed_dataset(service, tmp_path) for _ in range(2))
    assert 'name="dataset.id"' not in browser.get("/jobs/new").text
    monkeypatch.setattr(offers, "MOST", 1)
    page = browser.get("/jobs/new").text
    assert 'name="dataset.id"' in page
    assert f'value="{old}"' not in page
    found = browser.post("/jobs/new", data={"dataset": newest, "dataset.id": old, "check": "1"}).text
    body = json.loads(part(found, "json"))
    assert (body["dataset"], body["task"]) == (old, "text_classification")
    assert re.search(rf'<option value="{old}" selected>', found)
    assert check(browser, {"dataset.id": "ds_none", "task": "text_classification"}) == {"dataset": ["unknown_dataset"]}
    theirs = seed_dataset(service, tmp_path, "other")
    assert theirs not in re.sub(r'value="[^"]*"', "", browser.get(f"/jobs/new?dataset={newest}").text)
    assert "task" in check(browser, {"dataset.id": theirs})


def test_so_is_a_trained_model(
    service: FastAPI, sign_in: SignIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "MOST", 1)
    browser, dataset = sign_in(), seed_dataset(service, tmp_path)
    old, newest = (seed_job(service, dataset, state=State.SUCCEEDED) for _ in range(2))
    for job in (old, newest):
        for kind in ("model", "checkpoint"):
            seed_artifact(service, tmp_path, "default", job, kind, f"{kind}.zip")
    page = browser.get("/jobs/new?kind=evaluate").text
    assert f'value="{newest}"' in page
    assert f'value="{old}"' not in page
    assert 'name="model.id"' in page
    answer = browser.post("/jobs/new", data={"kind": "evaluate", "model.id": old, "check": "1"})
    assert json.loads(part(answer.text, "json"))["model"] == old
    assert "Ready to submit" in answer.text
