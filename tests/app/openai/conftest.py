"""The real `openai` client on a service in this process: one service a module, a tenant of its own each test."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.auth.bootstrap import add_key, new_secret
from app.datasets.models import Dataset
from app.identity import Role
from app.ids import new_id
from app.jobs.models import Job
from app.jobs.states import OPEN, State
from app.main import create_app
from app.openai_tables.models import File, FileDataset
from tests.app.seeds import seed_dataset, seed_file
from tests.service import lay_tables, settings_for, worker_for
from worker.tasks import Worker

CHAT = [{"role": "user", "content": "You have won a prize!"}, {"role": "assistant", "content": "spam"}]
MakeClient = Callable[..., openai.OpenAI]


def jsonl(*rows: Any) -> bytes:
    """The rows as lines; one that is bytes is a line already."""
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


GOOD = jsonl(*({"messages": [{**CHAT[0], "content": f"Text {i}"}, CHAT[1]]} for i in range(6)))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A service of this module's own around the stand-in engine, running."""
    folder = tmp_path_factory.mktemp("data")
    made = create_app(
        settings_for(folder, requests_per_second=10_000, max_upload_bytes=200_000, max_decompressed_bytes=1_000_000)
    )
    lay_tables(made.state.database)
    with TestClient(made):
        yield made


@pytest.fixture
def secret_of(service: FastAPI) -> Callable[..., str]:
    """Makes a key and gives its secret."""

    def make(tenant: str, role: Role = "member") -> str:
        secret = new_secret()
        with service.state.database.session() as session:
            add_key(session, "test", role, tenant, secret, made_by=None)
        return secret

    return make


@pytest.fixture
def client_for(service: FastAPI, secret_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> MakeClient:
    """Makes an unmodified client of a tenant, which waits for nothing before it tries again."""

    def make(tenant: str, role: Role = "member") -> openai.OpenAI:
        http = TestClient(service, raise_server_exceptions=False)
        client = openai.OpenAI(api_key=secret_of(tenant, role), base_url="http://testserver/v1", http_client=http)
        monkeypatch.setattr(client, "_calculate_retry_timeout", lambda *_: 0)
        return client

    return make


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody else has."""
    return new_id("t").lower().replace("_", "-")


@pytest.fixture
def client(client_for: MakeClient, tenant: str) -> openai.OpenAI:
    """The client of a member of the tenant."""
    return client_for(tenant)


def seed_chat(service: FastAPI, folder: Path, tenant: str) -> str:
    """A file of conversations whose data set is ready; the check that real ones go through takes a while."""
    file_id, dataset = seed_file(service, folder, tenant), seed_dataset(service, folder, tenant)
    with service.state.database.session() as session:
        rows = {"task": "causal_lm", "columns": {"text": "messages"}, "labels": [], "label_counts": {}}
        session.execute(update(Dataset).where(Dataset.id == dataset).values(rows))
        session.execute(update(File).where(File.id == file_id).values(purpose="fine-tune", task="causal_lm"))
        session.add(FileDataset(dataset_id=dataset, file_id=file_id, tenant=tenant, task="causal_lm"))
    return file_id


@pytest.fixture
def chat(service: FastAPI, tenant: str, tmp_path: Path) -> str:
    """The id of a file of conversations that is ready."""
    return seed_chat(service, tmp_path, tenant)


@pytest.fixture(autouse=True)
def _nobody_else_waits(service: FastAPI) -> Iterator[None]:
    """Leaves no job behind for the worker of another test."""
    yield
    with service.state.database.session() as session:
        session.execute(update(Job).where(Job.state.in_(OPEN)).values(state=State.CANCELLED))


@pytest.fixture
def worker(service: FastAPI) -> Worker:
    """A worker on the service's database."""
    return worker_for(service.state.settings, service.state.database)
