"""The pages of the builder: who may use it, what it says of a form, with a script and without, and the job it makes."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.jobs.models import Job
from app.jobs.states import State
from engine.spec import Spec
from tests.app.dashboard.conftest import SignIn
from tests.app.seeds import seed_artifact, seed_dataset, seed_job

Scene = tuple[TestClient, str, FastAPI]


@pytest.fixture
def scene(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> Scene:
    """A member's browser and a data set."""
    return sign_in(), seed_dataset(service, tmp_path), service


def jobs_of(service: FastAPI) -> list[Job]:
    with service.state.database.reading() as session:
        return list(session.scalars(select(Job)))


def part(page: str, name: str) -> str:
    """The text of one of the panel's commands."""
    found = re.search(rf'<pre id="{name}"[^>]*>(.*?)</pre>', page, re.S)
    assert found is not None
    return html.unescape(found[1])


def test_the_builder_is_for_members_of_its_own_tenant(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    mine, theirs = seed_dataset(service, tmp_path), seed_dataset(service, tmp_path, "other")
    page = sign_in().get("/jobs/new").text
    assert f'value="{mine}"' in page
    assert theirs not in page
    assert "New job" in sign_in().get("/jobs").text
    reader = sign_in("viewer")
    assert reader.get("/jobs/new").status_code == 403
    assert reader.post("/jobs/new", data={"dataset": mine}).status_code == 403
    assert reader.post("/jobs/new/check", data={"dataset": mine}).status_code == 403
    assert 'href="/jobs/new"' not in reader.get("/jobs").text
    refused = sign_in().post("/jobs/new/check", data={"dataset": theirs, "task": "text_classification"}).json()
    assert refused["faults"]["dataset"][0]["code"] == "unknown_dataset"


def test_no_other_page_may_submit(scene: Scene) -> None:
    browser, dataset, service = scene
    for path in ("/jobs/new", "/jobs/new/check"):
        assert (
            browser.post(path, data={"dataset": dataset}, headers={"Origin": "https://evil.example"}).status_code == 403
        )
    assert jobs_of(service) == []


def test_what_cannot_be_stored_is_refused(scene: Scene) -> None:
    browser, dataset, service = scene
    for field in ("model", "name", "metadata", "task"):
        refused = browser.post("/jobs/new", data={"dataset": dataset, field: "a\0b"})
        assert (refused.status_code, "NUL" in refused.text) == (400, True)
    assert jobs_of(service) == []


def test_an_untouched_form_is_no_fault_and_says_where_to_begin(scene: Scene) -> None:
    browser, _, _ = scene
    page = browser.get("/jobs/new").text
    assert "Choose a data set to begin" in page
    assert 'aria-invalid="true"' not in page
    assert "Choose a trained model to begin" in browser.get("/jobs/new?kind=compress").text
    assert browser.get("/jobs/new?kind=aggregate").status_code == 422
    assert browser.post("/jobs/new/check", data={"kind": "aggregate"}).status_code == 422


def test_a_conflict_stands_beside_its_field_and_goes_when_it_is_mended(scene: Scene) -> None:
    browser, dataset, _ = scene
    form = {"dataset": dataset, "instructions": ["dynamic_range"], "training.epochs": "0"}
    found = browser.post("/jobs/new/check", data=form).json()
    assert found["task"] == "text_classification"
    assert [one["code"] for one in found["faults"]["instructions.51"]] == ["missing_need"]
    assert found["faults"]["instructions.51"][0]["remedy"].startswith("add quantization_aware_training (49)")
    assert [one["code"] for one in found["faults"]["training.epochs"]] == ["greater_than_equal"]
    assert "2 things to mend" in found["panel"]
    assert 'data-toggle="f-instructions-49">Add 49<' in found["panel"]
    assert 'data-toggle="f-instructions-51">Leave 51 out<' in found["panel"]
    form |= {"instructions": ["dynamic_range", "quantization_aware_training"], "training.epochs": "2"}
    mended = browser.post("/jobs/new/check", data=form).json()
    assert mended["faults"] == {}
    assert "Ready to submit" in mended["panel"]
    steps = re.findall(r'<b class="tone-deployment">(\d+)</b>', mended["panel"])
    assert steps == ["49", "51"]


@pytest.mark.parametrize("text", ["9" * 400, "9" * 5000, "1e999", "nan"])
def test_what_no_number_holds_is_a_fault_of_its_field(scene: Scene, text: str) -> None:
    browser, dataset, _ = scene
    found = browser.post("/jobs/new/check", data={"dataset": dataset, "limits.min_metric": text}).json()
    assert [one["code"] for one in found["faults"]["limits.min_metric"]] == ["float_type"]


def test_without_a_script_the_page_says_the_same(scene: Scene) -> None:
    browser, dataset, service = scene
    form = {"dataset": dataset, "instructions": "structured_pruning", "45.ratio": "2"}
    for sent, status in ((form | {"check": "1"}, 200), (form, 422)):
        page = browser.post("/jobs/new", data=sent)
        assert page.status_code == status
        field = re.search(r'data-field="45\.ratio".*?</div>\s*</div>', page.text, re.S)
        assert field is not None
        assert 'value="2"' in field[0]
        assert 'aria-invalid="true"' in field[0]
        assert "Remedy:" in field[0]
    assert jobs_of(service) == []


def test_a_job_is_made_once_however_often_the_button_is_hit(scene: Scene) -> None:
    browser, dataset, service = scene
    token = re.search(r'name="token" value="(\w+)"', browser.get("/jobs/new").text)
    assert token is not None
    form = {
        "token": token[1],
        "dataset": dataset,
        "instructions": ["structured_pruning", "text_normalization"],
        "45.ratio": "0.4",
        "1.casefold": ["false", "true"],
        "training.epochs": "2",
        "limits.max_size_ratio": "0.9",
        "name": "built by hand",
        "metadata": "team = mail\nticket=7",
        "auto_start": "true",
    }
    first, again = browser.post("/jobs/new", data=form), browser.post("/jobs/new", data=form)
    assert (first.status_code, again.headers["location"]) == (303, first.headers["location"])
    other = browser.post("/jobs/new", data=form | {"training.epochs": "3"})
    assert other.headers["location"] != first.headers["location"]
    made = {job.id: job for job in jobs_of(service)}
    assert len(made) == 2
    job = made[first.headers["location"].rpartition("/")[2]]
    assert (job.name, job.metadata_, job.state) == ("built by hand", {"team": "mail", "ticket": "7"}, State.QUEUED)
    assert [step["number"] for step in job.plan] == [1, 45]
    chosen = {one["name"]: one for one in job.spec["instructions"]}
    assert chosen["structured_pruning"]["ratio"] == 0.4
    assert chosen["text_normalization"]["casefold"] is True
    assert (job.spec["training"]["epochs"], job.spec["limits"]["max_size_ratio"]) == (2, 0.9)


def test_a_job_fills_the_form_that_makes_it_again(scene: Scene, sign_in: SignIn) -> None:
    browser, dataset, service = scene
    form = {
        "dataset": dataset,
        "instructions": ["structured_pruning", "quantization_aware_training", "text_normalization"],
        "45.ratio": "0.4",
        "49.keep": "classifier\nembeddings",
        "1.repair": "false",
        "training.max_seconds": "900",
        "limits.min_metric": "0.9",
        "metadata": "team = mail",
        "answers": "true",
    }
    job = browser.post("/jobs/new", data=form).headers["location"].rpartition("/")[2]
    page = browser.get(f"/jobs/new?from={job}").text
    assert "Filled from" in page
    body = json.loads(part(page, "json"))
    assert body["instructions"][-1] == {"name": "quantization_aware_training", "keep": ["classifier", "embeddings"]}
    again = Spec.model_validate({name: value for name, value in body.items() if name in Spec.model_fields})
    assert again.resolved(pretrained=True) == jobs_of(service)[0].spec
    assert body["metadata"] == {"team": "mail"}
    assert f'/jobs/new?from={job}"' in browser.get(f"/jobs/{job}").text
    assert browser.get("/jobs/new?from=job_unknown").status_code == 404
    assert sign_in(tenant="other").get(f"/jobs/new?from={job}").status_code == 404


@pytest.mark.parametrize("kind", ["compress", "evaluate", "detect"])
def test_the_other_kinds_begin_with_a_trained_model(scene: Scene, tmp_path: Path, kind: str) -> None:
    browser, dataset, service = scene
    trained = seed_job(service, dataset, state=State.SUCCEEDED)
    for one in ("model", "checkpoint", "detector"):
        seed_artifact(service, tmp_path, "default", trained, one, f"{one}.zip")
    assert f'value="{trained}"' in browser.get(f"/jobs/new?kind={kind}").text
    extras: dict[str, dict[str, Any]] = {
        "compress": {"instructions": "post_training_quantization", "dataset": dataset},
        "evaluate": {"limits.min_metric": "0.9"},
        "detect": {"inputs.texts": "one\ntwo", "signals": ["softmax"]},
    }
    extra = extras[kind]
    found = browser.post("/jobs/new/check", data={"kind": kind, "model": trained, **extra}).json()
    assert found["faults"] == {}
    wrong = browser.post("/jobs/new/check", data={"kind": kind, "model": "job_none", **extra}).json()
    assert wrong["faults"]["model"][0]["code"] == "unknown_model"
    job = browser.post("/jobs/new", data={"kind": kind, "model": trained, **extra}).headers["location"]
    assert browser.get(job).status_code == 200
    again = browser.get(f"/jobs/new?from={job.rpartition('/')[2]}")
    asked = json.loads(part(again.text, "json"))
    assert (asked["kind"], asked["model"]) == (kind, trained)
    assert asked.get("inputs") == ({"texts": ["one", "two"]} if kind == "detect" else None)


def test_the_commands_stand_in_the_page_and_never_hold_a_key(scene: Scene) -> None:
    browser, dataset, _ = scene
    page = browser.get(f"/jobs/new?dataset={dataset}&instructions=11", headers={"X-Forwarded-Proto": "https"})
    assert page.status_code == 303, "the cookie of plain HTTP is none under TLS"
    page = browser.get(f"/jobs/new?dataset={dataset}&instructions=11")
    assert "http://testserver/v1/jobs" in part(page.text, "curl")
    assert json.loads(part(page.text, "json")) == {
        "kind": "train",
        "task": "text_classification",
        "dataset": dataset,
        "instructions": ["length_bucketing"],
    }
    assert "--instructions 11" in part(page.text, "command")
    assert "ftw_" not in re.sub(r'placeholder="[^"]*"', "", page.text)
