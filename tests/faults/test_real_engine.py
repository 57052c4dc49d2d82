"""The real engine under a worker: killed, paused, its snapshot damaged, its memory limited. Same bytes in the end."""

import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import update

from app.artifacts import repository as artifacts
from app.database import Database
from app.jobs import repository
from app.jobs.models import Job
from app.jobs.states import PAUSE, RESUME
from app.settings import Settings
from app.storage import storage_for
from engine.events import Listed
from engine.interrupt import Interrupt
from engine.job import run_job
from engine.spec import TrainFile
from tests.engine.measured import in_this_process
from tests.engine.tiny import tiny_image_rows, tiny_text_rows, write_rows
from tests.service import job_of, put_job, settings_for, tables, worker_for
from worker.supervise import sweep

TRAINING = {"epochs": 30, "batch_size": 8, "seed": 3}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The real engine, one thread."""
    return settings_for(tmp_path, engine_command="", stop_grace_seconds=60, lease_seconds=60)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """SQLite in the data folder."""
    with tables(settings.database) as database:
        yield database


def put_real_job(settings: Settings, database: Database, rows: Path, task: str, **training: Any) -> str:
    """Queue a job on prepared rows."""
    stored = storage_for(settings).save(rows)
    job_id = put_job(database)
    spec = {"task": task, "dataset": "ds_tiny", "training": training}
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(spec=spec, inputs={"ds_tiny": stored.key}))
    return job_id


def until(database: Database, job_id: str, true: Callable[[Job], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true(job_of(database, job_id)):
        assert job_of(database, job_id).error is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def further(step: int) -> Callable[[Job], bool]:
    """Whether a run has recorded a step other than this one."""
    return lambda job: job.step != step


def outputs(settings: Settings, database: Database, job_id: str) -> tuple[bytes, bytes]:
    """The bytes of `checkpoint` and of `model.onnx`."""
    job = job_of(database, job_id)
    assert job.state == "succeeded", job.error
    storage = storage_for(settings)
    with database.reading() as session:
        keys = {row.kind: row.storage_key for row in artifacts.of_job(session, job.tenant, job_id)}
    checkpoint, model = (storage.local_path(keys[kind]) for kind in ("checkpoint", "model"))
    assert checkpoint is not None
    assert model is not None
    return checkpoint.read_bytes(), zipfile.ZipFile(model).read("model.onnx")


def undisturbed(rows: Path, folder: Path) -> tuple[bytes, bytes]:
    """The same from a run of this very process, which nobody disturbs."""
    spec = TrainFile.model_validate({"task": "image_classification", "dataset": str(rows), "training": TRAINING})
    torch.set_num_threads(1)
    with in_this_process():
        run_job(spec, folder, Listed(), job=None, interrupt=Interrupt())
    model = zipfile.ZipFile(folder / "outputs" / "model.zip").read("model.onnx")
    return (folder / "outputs" / "checkpoint.zip").read_bytes(), model


def test_killed_paused_and_damaged_yet_the_same_bytes(settings: Settings, database: Database, tmp_path: Path) -> None:
    rows = write_rows(tiny_image_rows(80), tmp_path / "rows.parquet", "image_classification")
    disturbed = put_real_job(settings, database, rows, "image_classification", **TRAINING)
    worker = worker_for(settings, database)
    folder = settings.data_dir / "runs" / disturbed
    for _ in range(2):
        before = job_of(database, disturbed).step
        running = threading.Thread(target=worker.run_next)
        running.start()
        until(database, disturbed, further(before))
        with database.session() as session:
            assert repository.move(session, disturbed, PAUSE) is not None
        running.join()
        assert job_of(database, disturbed).state == "paused"
        with database.session() as session:
            assert repository.move(session, disturbed, RESUME) is not None
    snapshots = sorted((folder / "checkpoints").glob("step-*.pt"))
    assert len(snapshots) == 2
    damaged = bytearray(snapshots[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    snapshots[1].write_bytes(damaged)

    before = job_of(database, disturbed).step
    running = threading.Thread(target=worker.run_next)
    running.start()
    until(database, disturbed, further(before))
    sweep(folder)
    running.join()
    assert job_of(database, disturbed).lapses == 1
    assert job_of(database, disturbed).attempt == 4

    assert outputs(settings, database, disturbed) == undisturbed(rows, tmp_path / "plain")


def test_9_out_of_memory_under_a_limit(settings: Settings, database: Database, tmp_path: Path) -> None:
    texts = write_rows(tiny_text_rows(200), tmp_path / "rows.parquet", "text_classification")
    greedy = put_real_job(settings, database, texts, "text_classification", batch_size=4096, max_length=512, epochs=1)
    limited = settings.model_copy(update={"job_memory_bytes": 2 << 30})
    worker_for(limited, database).run_next()
    job = job_of(database, greedy)
    assert (job.state, (job.error or {})["code"], job.attempt) == ("failed", "out_of_memory", 1)
    neighbour = put_job(database)
    stand_in = settings_for(tmp_path)
    worker_for(stand_in, database).run_next()
    assert job_of(database, neighbour).state == "succeeded"
