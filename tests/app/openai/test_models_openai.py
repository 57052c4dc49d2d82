"""Models through the real client: one route serves both doors, names may hold a slash, a delete erases files."""

import openai
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from app.jobs.models import Job
from tests.app.openai.conftest import MakeClient
from tests.service import job_of
from worker.tasks import Worker

BASE = "smollm2-135m"


@pytest.fixture
def trained(client: openai.OpenAI, chat: str, worker: Worker) -> str:
    """The name of a trained model."""
    job = client.fine_tuning.jobs.create(model=BASE, training_file=chat)
    worker.run_next()
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert name is not None
    return name


def job_id(name: str) -> str:
    return f"job_{name.rpartition(':')[2]}"


def test_a_trained_model_goes_by_its_name_and_by_its_artifact(
    client: openai.OpenAI, trained: str, tenant: str, client_for: MakeClient
) -> None:
    assert trained == f"ft:{BASE}:{tenant}::{job_id(trained)[4:]}"
    shown = client.models.retrieve(trained)
    assert client.models.retrieve(shown.artifact) == shown  # type: ignore[attr-defined]
    names = [model.id for model in client.models.list()]
    assert (names[0], names[-1]) == ("minilm-l6", trained)
    after = client.get("/models", cast_to=dict[str, object], options={"params": {"after": trained}})
    assert (after["data"], after["has_more"]) == ([], False)
    for wrong in (trained.replace(BASE, "other"), trained[:-1], f"{trained}:ckpt-step-3"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(wrong)
    with pytest.raises(openai.NotFoundError):
        client_for("stranger").models.retrieve(trained)
    body = {"kind": "evaluate", "model": trained}
    further = client.post("/jobs", cast_to=dict[str, dict[str, str]], body=body)
    assert further["parent"]["job"] == job_id(trained)
    with pytest.raises(openai.UnprocessableEntityError, match="no trained model"):
        client.post("/jobs", cast_to=object, body={"kind": "evaluate", "model": trained.replace(BASE, "other")})


def test_a_name_with_a_slash_is_found(client: openai.OpenAI, trained: str, service: FastAPI) -> None:
    database = service.state.database
    spec = job_of(database, job_id(trained)).spec
    with database.session() as session:
        statement = update(Job).where(Job.id == job_id(trained)).values(spec={**spec, "model": "Qwen/Qwen3"})
        session.execute(statement)
    slashed = trained.replace(BASE, "Qwen/Qwen3")
    assert client.models.retrieve(slashed).id == slashed
    with pytest.raises(openai.NotFoundError, match="no model 'Qwen/Qwen3'"):
        client.models.retrieve("Qwen/Qwen3")
    assert client.models.delete(slashed).deleted


def test_a_delete_erases_the_files_and_keeps_the_job(
    client: openai.OpenAI, trained: str, client_for: MakeClient
) -> None:
    results = client.fine_tuning.jobs.retrieve(job_id(trained)).result_files
    assert len(results) == 3
    waiting = client.post("/jobs", cast_to=dict[str, str], body={"kind": "evaluate", "model": trained})
    with pytest.raises(openai.ConflictError, match="need its files"):
        client.models.delete(trained)
    client.post(f"/jobs/{waiting['id']}/cancel", cast_to=object)
    with pytest.raises(openai.NotFoundError):
        client_for("stranger", "admin").models.delete(trained)
    gone = client.models.delete(trained)
    assert (gone.id, gone.object, gone.deleted) == (trained, "model", True)
    for file in results:
        with pytest.raises(openai.NotFoundError):
            client.files.content(file)
    job = client.fine_tuning.jobs.retrieve(job_id(trained))
    assert (job.status, job.fine_tuned_model, job.result_files) == ("succeeded", None, [])
    with pytest.raises(openai.PermissionDeniedError, match="base model"):
        client.models.delete(BASE)
