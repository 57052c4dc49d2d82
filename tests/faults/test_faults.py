"""Faults that reliability is made for, injected into real workers around the stand-in engine.

After each: every job ended, once, with the outputs of an undisturbed run, and no process is left (see the fixture).
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.auth.bootstrap import bootstrap
from app.erasure import unname
from app.jobs import repository
from app.jobs.models import JobEvent
from app.jobs.states import CANCEL_IDLE, CANCEL_RUN, Move
from app.main import create_app
from app.storage import storage_for
from tests.app.seeds import seed_dataset
from tests.faults.conftest import WAIT_SECONDS, Installation
from tests.service import artifacts_of, awaiting_erasure, job_of, put_job, states_of


def undisturbed(kind: str, steps: int) -> str:
    """The hash of an output of a run that nothing happened to."""
    chain = ""
    for step in range(1, steps + 1):
        chain = hashlib.sha256(f"{chain}:{step}".encode()).hexdigest()
    return hashlib.sha256(f"{kind}:{chain}".encode()).hexdigest()


def assert_ended_once(installation: Installation, job_id: str, steps: int) -> None:
    """Succeeded by exactly one last event, with an undisturbed run's bytes."""
    assert states_of(installation.database, job_id).count("succeeded") == 1
    kept = artifacts_of(installation.database, job_id)
    assert kept["checkpoint"] == undisturbed("checkpoint", steps)
    assert kept["model"] == undisturbed("model", steps)
    with installation.database.reading() as session:
        sequences = session.scalars(select(JobEvent.sequence).where(JobEvent.job_id == job_id)).all()
    assert sorted(sequences) == list(range(1, job_of(installation.database, job_id).events + 1))


def move(installation: Installation, job_id: str, kind: Move) -> bool:
    with installation.database.session() as session:
        return repository.move(session, job_id, kind) is not None


def test_1_kills_at_random_of_worker_or_group(installation: Installation) -> None:
    chance = random.Random(52)
    jobs = [put_job(installation.database, steps=40, sleep=0.03, grandchild=True) for _ in range(3)]
    for _ in range(2):
        installation.start_worker()
    for kill in range(6):
        installation.until(lambda: bool(installation.engines()), "no engine runs")
        time.sleep(chance.uniform(0, 0.4))
        if kill % 2:
            for engine in installation.engines()[:1]:
                try:
                    os.killpg(os.getpgid(engine.pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        else:
            victim = chance.choice([worker for worker in installation.workers if worker.poll() is None])
            victim.kill()
            victim.wait()
            installation.start_worker()
    for job_id in jobs:
        installation.until_state(job_id, "succeeded", "failed")
        assert_ended_once(installation, job_id, 40)
    assert "locked" not in (installation.settings.data_dir / "worker.log").read_text()


def test_2_a_zombie_past_its_lease(installation: Installation) -> None:
    job_id = put_job(installation.database, steps=40, sleep=0.05)
    zombie = installation.start_worker()
    installation.until_step(job_id, 3)
    os.kill(zombie.pid, signal.SIGSTOP)
    installation.start_worker()
    installation.until(lambda: job_of(installation.database, job_id).attempt == 2, "nobody took the job over")
    os.kill(zombie.pid, signal.SIGCONT)
    installation.until_state(job_id, "succeeded", "failed")
    assert_ended_once(installation, job_id, 40)
    assert job_of(installation.database, job_id).lapses == 1
    # The zombie has found out, and serves again.
    installation.workers[1].kill()
    after = put_job(installation.database, steps=2)
    installation.until_state(after, "succeeded")


def test_3_broker_killed_and_its_messages_lost(installation: Installation) -> None:
    jobs = [put_job(installation.database, steps=2, sleep=0) for _ in range(20)]
    for _ in jobs:
        installation.bell.ring()
    installation.kill_broker()
    installation.broker.set_aside()
    installation.start_worker()
    time.sleep(0.5)
    installation.start_broker()
    for job_id in jobs:
        installation.until_state(job_id, "succeeded")
        assert_ended_once(installation, job_id, 2)


def test_4_broker_frozen(installation: Installation, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = create_app(installation.settings)
    secret = bootstrap(installation.database, installation.settings)
    spec = {"task": "text_classification", "dataset": seed_dataset(service, tmp_path)}
    installation.start_worker()
    before = put_job(installation.database, steps=1)
    installation.until_state(before, "succeeded")
    options = service.state.queue._celery.conf.broker_transport_options
    assert options["socket_connect_timeout"] < 3
    assert options["socket_timeout"] < 3
    assert installation.broker_process is not None
    with TestClient(service, headers={"Authorization": f"Bearer {secret}"}) as client:
        os.kill(installation.broker_process.pid, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            try:
                answer = pool.submit(client.post, "/v1/jobs", json=spec).result(WAIT_SECONDS)
                installation.until(lambda: "the bell was not heard" in caplog.text, "the bell rings for ever")
            finally:
                os.kill(installation.broker_process.pid, signal.SIGCONT)
    assert answer.status_code == 202
    installation.until_state(answer.json()["id"], "succeeded")
    assert_ended_once(installation, answer.json()["id"], 12)


def test_5_broker_restarted_in_mid_job(installation: Installation) -> None:
    job_id = put_job(installation.database, steps=40, sleep=0.03)
    installation.start_worker()
    installation.until_step(job_id, 3)
    installation.kill_broker()
    installation.start_broker()
    installation.until_state(job_id, "succeeded")
    after = put_job(installation.database, steps=2)
    installation.until_state(after, "succeeded")
    assert job_of(installation.database, job_id).attempt == 1
    assert_ended_once(installation, job_id, 40)


def test_7_duplicate_messages_make_one_claim(installation: Installation) -> None:
    job_id = put_job(installation.database, steps=30, sleep=0.03)
    for _ in range(2):
        installation.start_worker()
    installation.until_step(job_id, 2)
    for _ in range(10):
        installation.bell.ring()
        time.sleep(0.02)
    installation.until_state(job_id, "succeeded")
    assert job_of(installation.database, job_id).attempt == 1
    assert_ended_once(installation, job_id, 30)


def test_8_a_job_that_kills_itself(installation: Installation) -> None:
    job_id = put_job(installation.database, sleep=0, crash={"at": 1, "how": "kill"})
    after = put_job(installation.database, steps=2, sleep=0)
    installation.start_worker()
    installation.until_state(after, "succeeded")
    job = job_of(installation.database, job_id)
    assert (job.state, job.lapses, (job.error or {})["code"]) == ("failed", 5, "worker_lost")


def test_10_a_deploy_hands_the_job_over(installation: Installation) -> None:
    job_id = put_job(installation.database, steps=60, sleep=0.03)
    leaving = installation.start_worker()
    installation.until_step(job_id, 10)
    leaving.terminate()
    assert leaving.wait(timeout=installation.settings.stop_grace_seconds) == 0
    job = job_of(installation.database, job_id)
    assert (job.state, job.lapses, job.attempt) == ("queued", 0, 1)
    installation.start_worker()
    installation.until_state(job_id, "succeeded")
    assert_ended_once(installation, job_id, 60)
    assert job_of(installation.database, job_id).lapses == 0
    log = (installation.settings.data_dir / "runs" / job_id / "log.txt").read_text()
    resumed = int(log.rsplit("starting at step ", 1)[1].split()[0])
    assert resumed >= 10


def test_10_an_idle_worker_leaves_at_once(installation: Installation) -> None:
    done = put_job(installation.database, steps=1)
    worker = installation.start_worker()
    installation.until_state(done, "succeeded")
    worker.terminate()
    assert worker.wait(timeout=10) == 0


def test_11_a_cancelled_job_never_runs_again(installation: Installation) -> None:
    queued = put_job(installation.database)
    assert move(installation, queued, CANCEL_IDLE)
    for _ in range(3):
        installation.bell.ring()
    running = put_job(installation.database, steps=1000, grandchild=True)
    worker = installation.start_worker()
    installation.until_step(running, 3)
    assert move(installation, running, CANCEL_RUN)
    installation.until_state(running, "cancelled")
    assert installation.engines() == []

    before_restart = put_job(installation.database, steps=1000, grandchild=True)
    installation.until_step(before_restart, 3)
    worker.kill()
    worker.wait()
    assert move(installation, before_restart, CANCEL_RUN)
    installation.start_worker()
    installation.until_state(before_restart, "cancelled")
    after = put_job(installation.database, steps=1)
    installation.until_state(after, "succeeded")
    for job_id in (queued, running, before_restart):
        assert job_of(installation.database, job_id).state == "cancelled"
        assert not artifacts_of(installation.database, job_id)


def test_15_a_job_whose_bell_never_rang_runs(installation: Installation) -> None:
    """As when the API is killed between commit and send."""
    installation.start_worker()
    first = put_job(installation.database, steps=1)
    installation.until_state(first, "succeeded")
    job_id = put_job(installation.database, steps=1)
    installation.until_state(job_id, "succeeded")
    assert_ended_once(installation, job_id, 1)


def test_a_killed_worker_takes_its_engine_along(installation: Installation) -> None:
    job_id = put_job(installation.database, steps=1000, grandchild=True)
    worker = installation.start_worker()
    installation.until_step(job_id, 2)
    assert len(installation.engines()) == 3, "warden, engine and grandchild"
    worker.kill()
    installation.until(lambda: installation.engines() == [], "something outlived its worker")
    assert move(installation, job_id, CANCEL_RUN)


@pytest.mark.parametrize("module", ["worker.main", "worker.tasks"])
def test_a_worker_loads_no_engine(installation: Installation, module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name in ('engine', 'torch', 'fastapi')])"
    environment = {**os.environ, "FIFTYTWO_REDIS_URL": installation.broker.url}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_a_worker_erases_what_a_crash_has_left(installation: Installation) -> None:
    """The rounds of every worker, here after an API that died between its commit and the erasure."""
    storage = storage_for(installation.settings)
    (installation.settings.data_dir / "file").write_text("bytes")
    stored = storage.save(installation.settings.data_dir / "file")
    with installation.database.session() as session:
        unname(session, [stored.key])
    assert storage.has(stored.key)
    installation.start_worker()
    installation.until(lambda: not storage.has(stored.key), "the file is never erased")
    installation.until(lambda: not awaiting_erasure(installation.database), "the entry stays")
