"""What a run has left on a machine goes when its job has ended, whoever ended it and wherever."""

import fcntl
from pathlib import Path

import pytest

from app.database import Database
from app.jobs.states import State
from app.settings import Settings
from tests.service import put_job
from worker.leftovers import sweep_runs


def left_by(settings: Settings, job_id: str) -> Path:
    """The folder of a run that was broken off: a copy of its rows, a snapshot, a lock and its log."""
    folder = settings.data_dir / "runs" / job_id
    for name in ("inputs/ds_1.parquet", "checkpoints/step_000003.json", ".lock", "log.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("left")
    return folder


@pytest.mark.parametrize("state", [State.CANCELLED, State.SUCCEEDED, State.FAILED])
def test_of_a_job_that_has_ended_elsewhere_the_log_stays(settings: Settings, database: Database, state: State) -> None:
    folder = left_by(settings, put_job(database, state=state))
    sweep_runs(database, settings.data_dir)
    assert [one.name for one in folder.iterdir()] == ["log.txt"]
    sweep_runs(database, settings.data_dir)
    assert (folder / "log.txt").exists()


def test_of_a_job_that_is_no_more_nothing_stays(settings: Settings, database: Database) -> None:
    folder = left_by(settings, "job_erased")
    sweep_runs(database, settings.data_dir)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("state", [State.QUEUED, State.PAUSED, State.RUNNING, State.CANCELLING])
def test_a_job_that_may_go_on_keeps_all(settings: Settings, database: Database, state: State) -> None:
    folder = left_by(settings, put_job(database, state=state))
    before = sorted(folder.rglob("*"))
    sweep_runs(database, settings.data_dir)
    assert sorted(folder.rglob("*")) == before


def test_a_folder_in_which_something_runs_still_is_left_alone(settings: Settings, database: Database) -> None:
    folder = left_by(settings, put_job(database, state=State.CANCELLED))
    with (folder / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep_runs(database, settings.data_dir)
        assert (folder / "checkpoints").exists()
    sweep_runs(database, settings.data_dir)
    assert not (folder / "checkpoints").exists()


def test_without_runs_there_is_nothing_to_do(settings: Settings, database: Database) -> None:
    sweep_runs(database, settings.data_dir / "elsewhere")
    assert not (settings.data_dir / "elsewhere").exists()
