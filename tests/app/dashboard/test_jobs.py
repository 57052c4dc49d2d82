"""The list of jobs, a job's page and the comparison, as HTML. Knows no browser."""

import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import delete, update

from app.jobs.models import Job, MetricPoint
from app.jobs.states import State
from tests.app.dashboard import scenes
from tests.app.dashboard.conftest import SignIn
from tests.app.seeds import seed_dataset, seed_job
from tests.service import job_of, statements


@pytest.fixture
def jobs(service: FastAPI, tmp_path: Path) -> dict[str, str]:
    """Jobs of the tenant `default`: one that has succeeded, and one that runs."""
    return {"first": scenes.succeeded(service, tmp_path, steps=24), "running": scenes.running(service, 24)}


def listed(page: str) -> list[str]:
    return re.findall(r'<th scope="row" class="whole"><a href="/jobs/(job_\w+)"', page)


def test_the_list_is_filtered_and_read_page_by_page(
    service: FastAPI, sign_in: SignIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.dashboard.pages.jobs.ROWS", 2)
    dataset = seed_dataset(service, tmp_path)
    made = [seed_job(service, dataset, state=State.FAILED) for _ in range(5)]
    seed_job(service, dataset)
    seed_job(service, dataset, "another", State.FAILED)
    browser, found, path = sign_in("viewer"), list[str](), "/jobs?state=failed&kind=train"
    for _ in range(3):
        page = browser.get(path)
        found += listed(page.text)
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        path = following[1].replace("&amp;", "&") if following else ""
    assert found == made[::-1]
    assert path == ""
    assert "No job fits the filter" in browser.get("/jobs?state=paused").text


def test_a_round_of_a_federation_has_no_task_and_is_shown(service: FastAPI, sign_in: SignIn, tmp_path: Path) -> None:
    job = seed_job(service, seed_dataset(service, tmp_path))
    spec = {"kind": "aggregate", "round": "rnd_01K9ZJ3V6T8N2QW4X5Y7R0ABCD"}
    with service.state.database.session() as session:
        session.execute(update(Job).where(Job.id == job).values(kind="aggregate", task=None, spec=spec))
    browser = sign_in("viewer")
    assert job in browser.get("/jobs").text
    page = browser.get(f"/jobs/{job}")
    assert page.status_code == 200
    assert "The job trains as it is" not in page.text


def test_an_empty_list_says_the_next_step(sign_in: SignIn) -> None:
    assert "fiftytwo submit --data" in sign_in().get("/jobs").text


def test_a_finished_job_shows_its_proof(sign_in: SignIn, jobs: dict[str, str]) -> None:
    page = sign_in("viewer").get(f"/jobs/{jobs['first']}").text
    for told in ("0.9722", "453\u202fkB", "107\u202fµs", "4 of 4", "Compression ladder", "Recall by class"):
        assert told in page
    tiers = re.findall(r'<li class="tier tier-(\w+)', page)
    assert tiers == ["deployment", "safety", "efficiency", "foundation"]
    assert re.search(r"Structured pruning<span class=\"instruction-effect\">parameters removed <b>0.4989</b>", page)
    ladder = re.findall(r'<th scope="row">([\w ]+)</th>\s*<td class="number" data-label="accuracy">', page)
    assert ladder == ["trained in float", "structured pruning", "trained", "the file"]


AGGREGATE = {
    "receipt_version": 1,
    "job": "job_1",
    "created_at": "2026-11-26T12:00:00.000Z",
    "inputs": {"population": "pop_1", "round": "rnd_1", "expected_clients": 20},
    "privacy": {"mechanism": "dp_gradient_aggregation", "epsilon": 1.25, "delta": 1e-5, "audited_lower_bound": None},
    "warnings": [],
    "files": [],
    "signature": None,
}
ROBUST = {"clean": 0.97, "robust": 0.61, "attacks": [{"name": "word_swaps", "robust": 0.61}]}


@pytest.mark.parametrize(
    ("receipt", "told", "not_told"),
    [
        (
            AGGREGATE,
            ["1.25", "dp_gradient_aggregation", "by its public numbers"],
            ["Compression ladder", "Limits</h3>"],
        ),
        (scenes.receipt_of("job_1", ladder=[], robustness=ROBUST), ["word swaps", "0.61"], ["Compression ladder"]),
        (scenes.receipt_of("job_1", size=None, latency=None, limits=None), ["0.9722"], ["453", "Limits</h3>"]),
    ],
)
def test_a_receipt_of_any_kind_has_its_page(
    service: FastAPI,
    sign_in: SignIn,
    tmp_path: Path,
    receipt: dict[str, object],
    told: list[str],
    not_told: list[str],
) -> None:
    job = scenes.put_job(service, "another", State.SUCCEEDED, {"result": {"summary": {"flagged": 3}}})
    scenes.put_file(service, tmp_path, job, "receipt", "receipt.json", json.dumps(receipt).encode())
    page = sign_in("viewer").get(f"/jobs/{job}").text
    assert [one for one in [*told, "<dt>flagged</dt><dd>3</dd>"] if one not in page] == []
    assert [one for one in not_told if one in page] == []


def test_a_metric_that_the_run_cannot_have_says_why(sign_in: SignIn, jobs: dict[str, str]) -> None:
    page = sign_in().get(f"/jobs/{jobs['running']}").text
    names = re.findall(r'class="multiple(?: absent)?"[^>]* data-metric="(\w+)"', page)
    assert len(names) == 12
    absent = dict(re.findall(r'multiple absent" data-metric="(\w+)"[^>]*><h3>[^<]+</h3><p>([^<]+)</p>', page))
    assert absent == {
        "loss_scale": "Only with loss scaling in float16: 28.",
        "padding_fraction": "Pictures are not padded.",
        "epsilon": "Only a private run spends it: 37 or 40.",
    }


def test_only_what_the_state_and_the_role_allow_is_offered(sign_in: SignIn, jobs: dict[str, str]) -> None:
    member, viewer = sign_in(), sign_in("viewer")
    assert re.findall(r'action="/jobs/\w+/(\w+)"', member.get(f"/jobs/{jobs['running']}").text) == ["pause", "cancel"]
    assert re.findall(r'action="/jobs/\w+/(\w+)"', member.get(f"/jobs/{jobs['first']}").text) == ["delete"]
    assert 'action="/jobs/' not in viewer.get(f"/jobs/{jobs['running']}").text
    refused = viewer.post(f"/jobs/{jobs['running']}/cancel")
    assert refused.status_code == 403
    assert "sign in with a key of role member" in refused.text


def test_the_buttons_move_the_job(service: FastAPI, sign_in: SignIn, jobs: dict[str, str]) -> None:
    browser, job = sign_in(), jobs["running"]
    answer = browser.post(f"/jobs/{job}/pause")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job}")
    assert job_of(service.state.database, job).state is State.PAUSING
    again = browser.post(f"/jobs/{job}/pause")
    assert again.status_code == 409
    assert "pause is allowed from running" in again.text
    assert browser.post(f"/jobs/{job}/fly").status_code == 404
    assert browser.post(f"/jobs/{jobs['first']}/delete").headers["location"] == "/jobs"
    assert browser.get(f"/jobs/{jobs['first']}").status_code == 404


def test_a_page_tells_what_the_api_tells(sign_in: SignIn, jobs: dict[str, str]) -> None:
    browser, job = sign_in("viewer"), jobs["first"]
    series = browser.get(f"/jobs/{job}/metrics?max_points=10").json()
    assert {len(points) for points in series.values()} == {10}
    assert "event: progress" in browser.get(f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}).text
    assert "epoch 25" in browser.get(f"/jobs/{job}/logs").text
    model = re.search(r'href="(/artifacts/\w+/content)" download>Download the model', browser.get(f"/jobs/{job}").text)
    assert model
    file = browser.get(model[1])
    assert file.headers["content-disposition"] == 'attachment; filename="model.zip"'
    assert len(file.content) == 454_090


def test_points_are_read_anew_only_once_the_job_was_written(
    service: FastAPI, sign_in: SignIn, jobs: dict[str, str]
) -> None:
    browser, path = sign_in("viewer"), f"/jobs/{jobs['running']}/metrics?max_points=10"
    first = browser.get(path)
    with statements(service.state.database.readers) as asked:
        again = browser.get(path)
    assert again.json() == first.json() != {}
    assert not any("job_metrics" in statement for statement in asked)
    step = first.json()["train_loss"][-1]["step"]
    assert [one["step"] for one in browser.get(f"{path}&since_step={step}").json()["train_loss"]] == [step]
    assert set(browser.get(f"{path}&names=train_loss").json()) == {"train_loss"}
    with service.state.database.session() as session:
        session.execute(delete(MetricPoint).where(MetricPoint.job_id == jobs["running"]))
        session.execute(update(Job).where(Job.id == jobs["running"]).values(revision=Job.revision + 1))
    assert browser.get(path).json() == {}


def test_nobody_sees_another_tenants_job(sign_in: SignIn, jobs: dict[str, str]) -> None:
    stranger, owner, job = sign_in("admin", "another"), sign_in(), jobs["first"]
    model = re.search(r'href="(/artifacts/\w+/content)"', owner.get(f"/jobs/{job}").text)
    assert model
    paths = [f"/jobs/{job}", *(f"/jobs/{job}/{part}" for part in ("metrics", "events", "logs")), model[1]]
    paths += [f"/compare?job={job}"]
    assert [stranger.get(path).status_code for path in paths] == [404] * len(paths)
    assert [owner.get(path).status_code for path in paths] == [200] * len(paths)
    assert [stranger.post(f"/jobs/{job}/{move}").status_code for move in ("cancel", "delete")] == [404] * 2
    assert listed(stranger.get("/jobs").text) == []


def test_what_a_user_wrote_is_never_markup(service: FastAPI, sign_in: SignIn) -> None:
    job = scenes.put_job(service, "<script>alert(1)</script>", State.QUEUED, {})
    browser = sign_in()
    for path in ("/jobs", f"/jobs/{job}", f"/compare?job={job}"):
        page = browser.get(path).text
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert" not in page
        assert "style=" not in page, "the policy forbids styles in attributes"
        assert not re.search(r"<script(?![^>]* src=)(?![^>]*application/json)", page)


def test_runs_are_compared_by_what_differs(
    service: FastAPI, sign_in: SignIn, jobs: dict[str, str], tmp_path: Path
) -> None:
    second = scenes.succeeded(service, tmp_path, "slower", steps=24, training={"learning_rate": 1e-3})
    browser = sign_in("viewer")
    page = browser.get(f"/compare?job={jobs['first']}&job={second}&metric=train_loss").text
    assert "2 runs compared" in page
    assert re.findall(r'<tr><th scope="row">([^<]+)</th><td>([^<]+)</td><td>([^<]+)</td></tr>', page) == [
        ("training: learning rate", "0.002", "0.001")
    ]
    assert '<option value="train_loss" selected>' in page
    assert '<a href="/jobs" aria-current="true">Jobs</a>' in page
    alone = browser.get(f"/compare?job={jobs['first']}").text
    assert "Validation score of digits for the scanner" in alone
    assert browser.get("/compare").status_code == 422
    assert browser.get("/compare?" + "&".join(f"job=job_{n}" for n in range(9))).status_code == 422


def test_a_page_that_is_nowhere_is_told_on_a_page(service: FastAPI, sign_in: SignIn) -> None:
    browser = sign_in()
    page = browser.get("/nowhere")
    assert page.status_code == 404
    assert "no page /nowhere" in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert browser.get("/nowhere", headers={"Accept": "application/json"}).json()["status"] == 404
    assert browser.get("/v1/nowhere").json()["status"] == 404
