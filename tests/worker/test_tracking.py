"""Trackers: what is recorded goes out, in order and once, and whatever a tracker does the job does not mind."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from app.database import Database
from app.jobs import lifecycle, repository
from app.jobs.lifecycle import Point
from app.jobs.models import Job
from app.jobs.states import State
from app.settings import Settings
from tests.service import job_of, put_job, settings_for, worker_for
from worker import tracking
from worker.tasks import Worker
from worker.tracking import Telling, Tracked, Tracker, parameters, tracker_of


class Listening:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.runs: list[Tracked] = []
        self.heard: list[Point] = []
        self.ends: list[State | None] = []

    def begin(self, run: Tracked) -> None:
        self.runs.append(run)

    def points(self, points: Sequence[Point]) -> None:
        self.heard += points

    def end(self, state: State | None) -> None:
        self.ends.append(state)


class Failing(Listening):
    """Fails in one of its methods."""

    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self._fail)

    def _fail(self, _: Any) -> None:
        raise ConnectionError("https://user:password@tracker")


class Hanging(Listening):
    """Never comes back."""

    def points(self, points: Sequence[Point]) -> None:
        threading.Event().wait(30)


class Fencing(Listening):
    """Lets another attempt begin as soon as it is told of points."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def points(self, points: Sequence[Point]) -> None:
        with self._database.session() as session:
            session.execute(update(Job).values(attempt=Job.attempt + 1))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path)


def worker_with(settings: Settings, database: Database, make: Callable[[], Tracker]) -> Worker:
    worker = worker_for(settings, database)
    worker._tracker = make
    return worker


def test_what_is_recorded_goes_out(settings: Settings, database: Database) -> None:
    listening = Listening()
    job_id = put_job(database, steps=5, sleep=0)
    worker_with(settings, database, lambda: listening).run_next()
    with database.reading() as session:
        stored = {(name, step): value for name, step, value, _ in repository.points(session, job_id, None, 0)}
    assert {(one.name, one.step): one.value for one in listening.heard} == stored
    assert len(listening.heard) == len(stored) > 0
    assert listening.ends == [State.SUCCEEDED]
    (run,) = listening.runs
    assert (run.job_id, run.tenant, run.attempt, run.parameters["kind"]) == (job_id, "default", 1, "train")


@pytest.mark.parametrize("method", ["begin", "points", "end"])
def test_a_failing_tracker_hurts_nobody(
    settings: Settings, database: Database, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = put_job(database, steps=3, sleep=0)
    worker_with(settings, database, lambda: Failing(method)).run_next()
    assert job_of(database, job_id).state is State.SUCCEEDED
    assert "the tracker failed" in caplog.text
    assert "password" not in caplog.text


def test_nor_does_one_that_hangs(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(tracking, "MOST_WAITING", 1)
    job_id = put_job(database, steps=3, sleep=0)
    worker_with(settings, database, Hanging).run_next()
    assert job_of(database, job_id).state is State.SUCCEEDED


def test_a_fenced_run_says_nothing_more(settings: Settings, database: Database) -> None:
    listening = Fencing(database)
    put_job(database, steps=500)
    worker_with(settings, database, lambda: listening).run_next()
    assert len(listening.runs) == 1
    assert listening.ends == []


def test_what_waits_when_the_fence_falls_is_not_said(database: Database) -> None:
    listening, fenced, begun = Listening(), threading.Event(), threading.Event()
    put_job(database, steps=1)
    run = lifecycle.claim(database, "a worker", 60, 1)
    assert run is not None

    def make() -> Tracker:
        begun.wait(10)
        return listening

    telling = Telling(make, run, fenced.is_set)
    telling.take([Point("train_loss", 1, 0.5, datetime.now(UTC))])
    fenced.set()
    begun.set()
    telling.end(State.QUEUED)
    assert (listening.runs, listening.heard, listening.ends) == ([], [], [])


def test_a_tracker_that_is_not_installed_is_told_of_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name}")

    assert tracker_of(settings) is None
    monkeypatch.setattr(tracking.importlib, "import_module", absent)  # type: ignore[attr-defined]
    assert tracker_of(settings.model_copy(update={"mlflow_uri": SecretStr("http://user:password@tracker")})) is None
    assert "pip install" in caplog.text
    assert "password" not in caplog.text


def test_parameters_are_flat_and_hold_no_texts() -> None:
    spec = {
        "kind": "detect",
        "training": {"epochs": 2, "max_steps": None},
        "instructions": [{"name": "warmup_schedule", "steps": 3}, {"name": "autocast"}],
        "inputs": {"texts": ["my letter"]},
        "parent": {"spec": {"dataset": "ds_1"}},
    }
    assert parameters(spec) == {
        "kind": "detect",
        "training.epochs": "2",
        "instructions": "warmup_schedule, autocast",
        "warmup_schedule.steps": "3",
    }


def test_mlflow_has_a_run_for_each_job(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/store"
    make = tracker_of(settings.model_copy(update={"mlflow_uri": SecretStr(uri)}))
    assert make is not None
    job_id = put_job(database, steps=4, sleep=0)
    worker_with(settings, database, make).run_next()
    client = tracking.importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=uri)  # type: ignore[attr-defined]
    experiment = client.get_experiment_by_name("fiftytwo")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (job_id, "FINISHED")
    assert run.data.tags["fiftytwo.job"] == job_id
    history = client.get_metric_history(run.info.run_id, "train/loss")
    with database.reading() as session:
        stored = [(step, value) for _, step, value, _ in repository.points(session, job_id, ["train_loss"], 0)]
    assert sorted((one.step, one.value) for one in history) == stored

    # A later attempt goes on with it, and a job that waits again is no end.
    again = make()
    again.begin(Tracked(job_id, "default", 2, {}))
    again.points([Point("epsilon", 5, 1.5, job_of(database, job_id).created_at)])
    again.end(None)
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.tags["fiftytwo.attempt"]) == ("SCHEDULED", "2")
    assert run.data.metrics["privacy/epsilon"] == 1.5

    # Nor is one that another worker goes on with already.
    make().begin(Tracked(job_id, "default", 3, {}))
    again.end(None)
    assert client.search_runs([experiment.experiment_id])[0].info.status == "RUNNING"
