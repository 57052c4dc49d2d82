"""The pages of experiments: the list, the form with its faults, one experiment from its runs to its verdict."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from app.dashboard.experiment_form import FIRST_CHANGES
from app.database import Base
from app.experiments import settling
from app.experiments.models import Experiment
from app.jobs.models import Job
from app.jobs.states import State
from app.main import create_app
from tests.app.dashboard import experiment_scenes as scenes
from tests.app.dashboard.conftest import SignIn
from tests.app.dashboard.scenes import put_job
from tests.app.seeds import seed_dataset
from tests.service import lay_tables, settings_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests of this module."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def service(folder: Path) -> FastAPI:
    """One service for all tests of this module."""
    made = create_app(settings_for(folder / "data", requests_per_second=1e6, max_open_jobs=100))
    lay_tables(made.state.database)
    return made


@pytest.fixture(scope="module")
def dataset(service: FastAPI, folder: Path) -> str:
    """A data set of texts."""
    return seed_dataset(service, folder)


@pytest.fixture(scope="module")
def seen(service: FastAPI, dataset: str) -> dict[str, str]:
    """Experiments to look at."""
    return scenes.whole(service)


def filled(dataset: str, **changes: Any) -> dict[str, Any]:
    """The form as a browser sends it."""
    baseline = {"task": "text_classification", "dataset": dataset, "training": {"epochs": 2}}
    return {
        "once": "a1",
        "name": "does pruning hurt?",
        "baseline": json.dumps(baseline),
        "treatment_name": ["edge"],
        "treatment_changes": ['{"instructions": [47]}'],
        "seeds": "1, 2",
        "judged": "yes",
        "items": "20",
        "margin": "0.02",
        **changes,
    }


def text_of(page: Any) -> str:
    """The words of a page, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.text)).split())


def count(service: FastAPI, table: type[Base]) -> int:
    with service.state.database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_an_empty_list_says_the_next_step(sign_in: SignIn) -> None:
    page = sign_in("member", "empty").get("/experiments")
    assert "No experiments yet" in page.text
    assert 'href="/experiments/new"' in page.text
    assert 'href="/experiments/new"' not in sign_in("viewer", "empty").get("/experiments").text


def test_the_list_has_states_runs_and_verdicts(sign_in: SignIn, seen: dict[str, str]) -> None:
    page = sign_in("viewer").get("/experiments")
    text = text_of(page)
    assert f'href="/experiments/{seen["judged"]}"' in page.text
    assert "pruned: undecided pruned, 8 bits: worse" in text
    assert "running baseline pruned pruned, 8 bits" in text
    assert "2 of 9 ended" in text


def test_the_form_starts_from_a_job_without_its_seed(service: FastAPI, sign_in: SignIn, seen: dict[str, str]) -> None:
    browser = sign_in()
    made = put_job(service, "seeded", State.SUCCEEDED, {}, {"seed": 9})
    with service.state.database.reading() as session:
        job = session.scalars(select(Job).where(Job.id == made)).one()
    page = browser.get(f"/experiments/new?job={job.id}")
    written = re.search(r'<textarea id="baseline"[^>]*>(.*?)</textarea>', page.text, re.S)
    assert written is not None
    spec = json.loads(html.unescape(written[1]))
    assert spec["dataset"] == job.spec["dataset"]
    assert [one["name"] for one in spec["instructions"]] == [one["name"] for one in job.spec["instructions"]]
    assert spec["training"]["epochs"] == 25
    assert "seed" not in spec["training"]
    assert not spec.keys() & {"kind", "answers"}
    assert f'<option value="{job.id}" selected>' in page.text
    assert browser.get("/experiments/new?job=job_none").status_code == 404


def test_a_form_makes_one_experiment_however_often_it_is_sent(service: FastAPI, sign_in: SignIn, dataset: str) -> None:
    browser = sign_in()
    before = count(service, Experiment)
    made = browser.post("/experiments", data=filled(dataset))
    assert made.status_code == 303, text_of(made)
    again = browser.post("/experiments", data=filled(dataset))
    assert again.headers["location"] == made.headers["location"]
    assert count(service, Experiment) == before + 1
    with service.state.database.reading() as session:
        one = session.scalars(select(Experiment).order_by(Experiment.id.desc())).first()
    assert one is not None
    assert made.headers["location"] == f"/experiments/{one.id}"
    assert (one.name, one.seeds, one.margin, one.human_items) == ("does pruning hurt?", [1, 2], 0.02, 20)
    assert one.treatments == [{"name": "edge", "changes": {"instructions": [47]}}]
    assert (
        browser.post("/experiments", data=filled(dataset, name="another")).headers["location"]
        != f"/experiments/{one.id}"
    )


FAULTY = {
    "baseline": '{"task": "text_classification", "dataset": "ds_none", "training": {"epochs": 0}}',
    "treatment_name": ["", "edge", "edge"],
    "treatment_changes": ["", '{"instructions": [47', '{"colour": "red"}'],
    "seeds": "1 one",
    "margin": "wide",
}


def test_every_fault_stands_beside_its_field_and_nothing_is_stored(
    service: FastAPI, sign_in: SignIn, dataset: str
) -> None:
    browser = sign_in()
    before = count(service, Experiment), count(service, Job)
    told = browser.post("/experiments/check", data=filled(dataset, **FAULTY)).json()
    faults = {field: [fault["pointer"] for fault in found] for field, found in told["faults"].items()}
    assert sorted(faults["baseline"]) == ["/dataset", "/training/epochs"]
    assert faults["treatment-1-changes"] == [""]
    assert "line 1" in told["faults"]["treatment-1-changes"][0]["detail"]
    assert "/colour" in faults["treatment-2-changes"]
    assert "/1" in faults["seeds"]
    assert faults["margin"] == [""]
    assert told["jobs"] == 6
    page = browser.post("/experiments", data=filled(dataset, **FAULTY))
    assert page.status_code == 422
    beside = re.search(r'<ul[^>]* data-field="baseline">(.*?)</ul>', page.text, re.S)
    assert beside is not None
    assert "training/epochs" in beside[1]
    assert "ds_none" in html.unescape(page.text), "what was typed stays"
    assert (count(service, Experiment), count(service, Job)) == before


def test_a_sound_form_says_how_many_jobs(sign_in: SignIn, dataset: str) -> None:
    assert sign_in().post("/experiments/check", data=filled(dataset)).json() == {"faults": {}, "jobs": 4}
    empty = sign_in().post("/experiments/check", data=filled(dataset, baseline="")).json()["faults"]
    assert [fault["detail"] for fault in empty["baseline"]] == ["empty"]
    blank = filled(dataset, treatment_name=[""], treatment_changes=[FIRST_CHANGES])
    bare = sign_in().post("/experiments/check", data=blank).json()["faults"]
    assert {field: [fault["detail"] for fault in found] for field, found in bare.items()} == {
        "treatment-0-name": ["there is no treatment yet"]
    }


def test_an_experiment_shows_verdicts_dimensions_and_front(sign_in: SignIn, seen: dict[str, str]) -> None:
    page = sign_in("viewer").get(f"/experiments/{seen['judged']}")
    assert page.status_code == 200
    text = text_of(page)
    assert "Undecided" in text
    assert "The data do not decide about pruned" in text
    assert "about 4 more" in text
    assert "−0.0203 (−0.0324 to −0.0089, 95 %)" in text
    assert "0.0006, adjusted 0.0012" in text
    assert "0.9821 0.97 to 0.991" in text
    assert "16.0 MB 0.121 of PyTorch’s 8 min 52 s not private" in text
    assert page.text.count('class="front-point') == 6
    assert page.text.count("<b>on it</b>") == 3
    for state in ("cancel", "raters"):
        assert f'action="/experiments/{seen["judged"]}/{state}"' not in page.text
    assert " style=" not in page.text
    assert sign_in("viewer", "other").get(f"/experiments/{seen['judged']}").status_code == 404


def test_runs_are_told_anew_with_the_state(sign_in: SignIn, seen: dict[str, str]) -> None:
    browser = sign_in("viewer")
    page = browser.get(f"/experiments/{seen['running']}")
    assert "No verdict yet" in page.text
    part = browser.get(f"/experiments/{seen['running']}/parts/runs")
    assert part.headers["x-experiment-state"] == "running"
    assert "2 of 9 runs ended" in text_of(part)
    assert page.text.count('class="run-tile" href="/jobs/job_') == part.text.count('href="/jobs/job_') == 9
    assert "<html" not in part.text
    assert browser.get(f"/experiments/{seen['running']}/parts/all").status_code == 404


def test_a_running_experiment_is_cancelled_by_whoever_may(
    service: FastAPI, sign_in: SignIn, seen: dict[str, str]
) -> None:
    one = scenes.put_experiment(service, "to be cancelled", [[(State.QUEUED, 0.0)] * 2] * 2)
    path = f"/experiments/{one}/cancel"
    assert sign_in("viewer").post(path).status_code == 403
    assert sign_in("member", "other").post(path).status_code == 404
    browser = sign_in()
    assert f'action="{path}"' in browser.get(f"/experiments/{one}").text
    assert browser.post(path).headers["location"] == f"/experiments/{one}"
    page = browser.get(f"/experiments/{one}")
    assert "This experiment was cancelled" in page.text
    assert f'action="{path}"' not in page.text
    assert browser.post(path).status_code == 409


def test_nothing_is_to_be_cancelled_while_figures_are_worked_out(service: FastAPI, sign_in: SignIn) -> None:
    one = scenes.put_experiment(service, "being worked out", [[(State.SUCCEEDED, 1.0)] * 2] * 2)
    assert settling._one_at_a_time.acquire(blocking=False)
    try:
        page = sign_in().get(f"/experiments/{one}").text
    finally:
        settling._one_at_a_time.release()
    assert "No verdict yet" in page
    assert f'action="/experiments/{one}/cancel"' not in page


def test_a_failed_experiment_says_what_to_do(sign_in: SignIn, seen: dict[str, str]) -> None:
    text = text_of(sign_in().get(f"/experiments/{seen['failed']}"))
    assert "An arm has no run that succeeded" in text
    assert "submit a new experiment" in text


def test_names_are_text_and_never_markup(service: FastAPI, sign_in: SignIn) -> None:
    one = scenes.put_experiment(service, "<script>alert(1)</script>", [[(State.QUEUED, 0.0)] * 2] * 2)
    for path in ("/experiments", f"/experiments/{one}"):
        assert "<script>alert" not in sign_in().get(path).text
