"""While a page or an answer reads the store of files, which may be far away, it holds no connection of the database."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.jobs import service as jobs
from app.jobs.models import Job
from app.storage import Storage
from tests.app.dashboard import scenes
from tests.app.dashboard.conftest import SignIn
from tests.app.seeds import seed_dataset, seed_file


class Watched:
    """A store that notes how many connections were held whenever it was asked for something."""

    def __init__(self, storage: Storage, held: Callable[[], int]) -> None:
        self._storage, self._held = storage, held
        self.asked: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return partial(self._ask, name)

    def _ask(self, name: str, *arguments: Any) -> Any:
        self.asked.append((name, self._held()))
        return getattr(self._storage, name)(*arguments)


@pytest.fixture
def watched(service: FastAPI) -> Watched:
    """The service's store, watched."""
    made = Watched(service.state.storage, service.state.database.readers.pool.checkedout)
    service.state.storage = made
    return made


def test_no_connection_is_held_while_the_store_is_read(
    service: FastAPI, admin: TestClient, sign_in: SignIn, tmp_path: Path, watched: Watched
) -> None:
    job, dataset, file = (
        scenes.succeeded(service, tmp_path, steps=3),
        seed_dataset(service, tmp_path),
        seed_file(service, tmp_path),
    )
    (tmp_path / "engine.log").write_text("epoch 25 of 25")
    kept = service.state.storage.save(tmp_path / "engine.log")
    with service.state.database.session() as session:
        session.execute(update(Job).where(Job.id == job).values(log_key=kept.key))
    shutil.rmtree(jobs.run_folder(service.state.settings, job))
    browser = sign_in()
    model = re.search(r"/artifacts/\w+", browser.get(f"/jobs/{job}").text)
    assert model
    pages = [f"/jobs/{job}", f"/jobs/{job}/logs", f"/compare?job={job}", f"/datasets/{dataset}", f"{model[0]}/content"]
    answers = [f"/jobs/{job}/logs", f"/jobs/{job}/receipt", f"/datasets/{dataset}/preview", f"{model[0]}/content"]
    answers += [f"/files/{file}/content", f"/files/{model[0].rpartition('/')[2]}/content"]
    for client, path in [(browser, one) for one in pages] + [(admin, f"/v1{one}") for one in answers]:
        watched.asked.clear()
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert watched.asked, path
        assert {held for _, held in watched.asked} == {0}, path
    assert "epoch 25 of 25" in browser.get(f"/jobs/{job}").text
