"""Fine-tuning jobs through the real client: the same jobs as at our own door, and every refusal told at once."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from app.jobs.models import Job, MetricPoint
from app.jobs.states import State
from app.openai_tables.models import File
from tests.app.openai.conftest import CHAT, GOOD, MakeClient, jsonl, seed_chat
from tests.app.openai.test_retries import losing
from tests.service import claimed, job_of
from worker.tasks import Worker

Json = dict[str, Any]
BASE = "smollm2-135m"
TEXTS = jsonl(*({"text": f"text {i}", "label": ["ham", "spam"][i % 2]} for i in range(4)))


def ours(client: openai.OpenAI, path: str) -> Json:
    """What our own routes say."""
    return client.get(path, cast_to=dict[str, Any])


def faults(call: Any, **fields: Any) -> dict[str, str]:
    """Code by pointer of a refusal."""
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        call(**fields)
    told = caught.value.response.json()["errors"]
    assert all(one["remedy"] for one in told)
    assert caught.value.message
    return {one["pointer"]: one["code"] for one in told}


def test_the_whole_way_of_a_model(client: openai.OpenAI, chat: str, tenant: str, worker: Worker) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=chat,
        suffix="spam filter",
        seed=11,
        metadata={"team": "mail"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}},
        extra_body={"instructions": [12], "training": {"max_length": 64}, "limits": {"max_metric_loss": 0.5}},
    )
    assert (job.object, job.status, job.fine_tuned_model, job.result_files) == ("fine_tuning.job", "queued", None, [])
    assert job.trained_tokens is None
    assert (job.training_file, job.validation_file, job.seed, job.organization_id) == (chat, None, 11, tenant)
    assert job.hyperparameters.model_dump() == {"n_epochs": 2, "batch_size": 32, "learning_rate_multiplier": "auto"}
    assert [one["name"] for one in job.instructions] == ["sequence_packing"]  # type: ignore[attr-defined]
    same = ours(client, f"/jobs/{job.id}")
    assert (same["task"], same["name"], same["metadata"]) == ("causal_lm", "spam filter", {"team": "mail"})
    assert same["training"].items() >= {"epochs": 2, "seed": 11, "max_length": 64, "learning_rate": 1e-4}.items()

    worker.run_next()
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert (job.status, job.fine_tuned_model) == ("succeeded", f"ft:{BASE}:{tenant}:spam-filter:{job.id[4:]}")
    assert job.trained_tokens == 1200
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    model = client.models.retrieve(job.fine_tuned_model)
    assert (model.object, model.owned_by) == ("model", tenant)
    receipt = next(one for one in job.artifacts if one["kind"] == "receipt")  # type: ignore[attr-defined]
    assert receipt["id"] in job.result_files
    assert "chain" in json.loads(client.files.content(receipt["id"]).content)
    results = client.files.list(purpose="fine-tune-results", order="asc")
    assert [file.id for file in results] == job.result_files
    assert client.files.retrieve(receipt["id"]).filename == "receipt.json"


def test_events_and_checkpoints_come_newest_first_in_pages(client: openai.OpenAI, chat: str, worker: Worker) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=chat)
    worker.run_next()
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    messages = [event.message for event in events]
    assert len({event.id for event in events}) == len(events) == len(ours(client, f"/jobs/{job.id}/events")["data"])
    assert (messages[0], messages[-1]) == ("The job is succeeded.", "The job is queued.")
    assert {event.type for event in events} == {"message", "metrics"}
    figures = next(event for event in events if event.type == "metrics")
    assert figures.message == "Step 12/12: train_loss 0.08333"
    assert figures.data == {"step": 12, "total_steps": 12, "train_loss": pytest.approx(1 / 12), "learning_rate": 1e-3}

    found = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=3))
    assert [one.step_number for one in found] == [12, 9, 6, 3]
    assert [one.metrics.train_loss for one in found] == pytest.approx([1 / 12, 1 / 9, 1 / 6, 1 / 3])
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert [one.fine_tuned_model_checkpoint for one in found] == [name, None, None, None]
    assert [one.kept for one in found] == [True, False, False, False]  # type: ignore[attr-defined]
    assert found[0].metrics.valid_loss is None
    for call in (client.fine_tuning.jobs.list_events, client.fine_tuning.jobs.checkpoints.list):
        with pytest.raises(openai.UnprocessableEntityError, match="no id of this list"):
            call(job.id, after="file_1")


def test_an_epochs_end_is_a_checkpoint_with_its_validation(client: openai.OpenAI, chat: str, service: FastAPI) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=chat)
    made = job_of(service.state.database, job.id).created_at
    with service.state.database.session() as session:
        told = {"valid_loss": 1.5, "valid_score": 0.7, "train_loss": 2.5, "valid_token_accuracy": 0.6}
        for name, value in told.items():
            session.add(MetricPoint(job_id=job.id, name=name, step=4, value=value, at=made))
    (found,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert (found.step_number, found.fine_tuning_job_id) == (4, job.id)
    assert not found.kept  # type: ignore[attr-defined]
    figures = found.metrics
    assert (figures.train_loss, figures.valid_loss, figures.full_valid_loss) == (2.5, 1.5, 1.5)
    assert (figures.valid_mean_token_accuracy, figures.full_valid_mean_token_accuracy) == (0.6, 0.6)
    assert figures.train_mean_token_accuracy is None


def test_the_checkpoint_with_the_models_weights_names_it(
    client: openai.OpenAI, chat: str, worker: Worker, service: FastAPI
) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=chat, extra_body={"training": {"keep": "best"}})
    worker.run_next()
    made = job_of(service.state.database, job.id).created_at
    with service.state.database.session() as session:
        for step, bits in ((3, 0.9), (6, 0.7), (9, 0.7), (12, 0.8)):  # less is better
            session.add(MetricPoint(job_id=job.id, name="valid_score", step=step, value=bits, at=made))
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model

    def named() -> dict[int, str | None]:
        return {
            one.step_number: one.fine_tuned_model_checkpoint for one in client.fine_tuning.jobs.checkpoints.list(job.id)
        }

    assert name is not None
    assert named() == {3: None, 6: name, 9: None, 12: None}
    client.models.delete(name)
    assert set(named().values()) == {None}


def test_hyperparameters_are_numbers_or_auto(client: openai.OpenAI, chat: str) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=chat,
        hyperparameters={"n_epochs": 5, "batch_size": 4, "learning_rate_multiplier": 0.5},
        integrations=[],
        metadata=None,
        extra_body={"instructions": [19], "training": None},
    )
    assert job.hyperparameters.model_dump() == {"n_epochs": 5, "batch_size": 4, "learning_rate_multiplier": 0.5}
    training = ours(client, f"/jobs/{job.id}")["training"]
    # Ten times the rate of a whole model: few weights learn.
    assert (training["epochs"], training["batch_size"], training["learning_rate"]) == (5, 4, pytest.approx(5e-4))
    assert job.metadata == {}
    wrong = {"n_epochs": 0, "batch_size": "often", "learning_rate_multiplier": 1e9}
    above = "/method/supervised/hyperparameters"
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": wrong}}
    told = faults(client.fine_tuning.jobs.create, model=BASE, training_file=chat, method=method)
    assert told == {
        f"{above}/n_epochs": "wrong_number",
        f"{above}/batch_size": "wrong_number",
        f"{above}/learning_rate_multiplier": "less_than_equal",
    }
    wrong = {"n_epochs": 5000, "learning_rate_multiplier": 1e9}
    method = {"type": "supervised", "supervised": {"hyperparameters": wrong}}
    told = faults(client.fine_tuning.jobs.create, model=BASE, training_file=chat, method=method)
    assert told == dict.fromkeys((f"{above}/n_epochs", f"{above}/learning_rate_multiplier"), "less_than_equal")
    for factor, code in ((1e9, "less_than_equal"), (1e-320, "greater_than"), (10**400, "wrong_number")):
        method = {"type": "supervised", "supervised": {"hyperparameters": {"learning_rate_multiplier": factor}}}
        told = faults(client.fine_tuning.jobs.create, model=BASE, training_file=chat, method=method)
        assert told == {f"{above}/learning_rate_multiplier": code}


@pytest.mark.parametrize("kind", ["dpo", "reinforcement"])
def test_methods_that_are_not_served_are_refused_clearly(client: openai.OpenAI, chat: str, kind: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=f"does not serve the method {kind}") as caught:
        client.fine_tuning.jobs.create(model=BASE, training_file=chat, method={"type": kind})
    assert (caught.value.code, caught.value.param) == ("invalid", "method.type")


def test_everything_that_is_wrong_is_told_at_once(
    client: openai.OpenAI, client_for: MakeClient, chat: str, service: FastAPI
) -> None:
    create = client.fine_tuning.jobs.create
    notes = client.files.create(file=("a.txt", b"note"), purpose="user_data").id
    told = faults(
        create,
        model="gpt-4o-mini",
        training_file=notes,
        validation_file="file_0",
        suffix="x" * 65,
        seed=3,
        integrations=[{"type": "wandb", "wandb": {"project": "p"}}],
        extra_body={"instructions": ["no_such"], "training": {"seed": 4, "epoch": 1}, "limits": {"min_speedup": -1}},
    )
    assert told == {
        "/suffix": "string_too_long",
        "/integrations": "too_long",
        "/model": "unknown_model",
        "/training_file": "wrong_purpose",
        "/validation_file": "unknown_file",
        "/training/seed": "decided_twice",
        "/training/epoch": "unknown_field",
        "/instructions/0": "unknown_instruction",
        "/limits/min_speedup": "greater_than",
    }
    assert faults(create, model=f"ft:{BASE}:t::1", training_file=chat) == {"/model": "already_trained"}
    assert faults(create, model=BASE, training_file="ds_0") == {"/training_file": "unknown_dataset"}
    assert faults(client_for("stranger").fine_tuning.jobs.create, model=BASE, training_file=chat) == {
        "/training_file": "unknown_file"
    }
    assert faults(create, model=BASE, training_file=chat, extra_body={"colour": 1}) == {"/colour": "unknown_field"}
    assert list(client.fine_tuning.jobs.list()) == []


def test_the_validation_file_is_what_scores(
    client: openai.OpenAI, chat: str, service: FastAPI, tenant: str, tmp_path: Path
) -> None:
    other = seed_chat(service, tmp_path, tenant)
    job = client.fine_tuning.jobs.create(model=BASE, training_file=chat, validation_file=other)
    train, test = (client.files.retrieve(one).datasets["causal_lm"] for one in (chat, other))  # type: ignore[attr-defined]
    assert ours(client, f"/jobs/{job.id}")["dataset"] == {"train": train, "valid": None, "test": test}
    assert (job.training_file, job.validation_file) == (chat, other)


def test_a_file_whose_lines_do_not_fit_names_them_through_the_clients_exception(client: openai.OpenAI) -> None:
    wrong = jsonl({"messages": CHAT}, {"messages": CHAT[:1]}, {"messages": [{"role": "robot", "content": "x"}]})
    bad = client.files.create(file=("bad.jsonl", wrong), purpose="fine-tune")
    with pytest.raises(openai.UnprocessableEntityError, match=r"line 2: .*; line 3: ") as caught:
        client.fine_tuning.jobs.create(model=BASE, training_file=bad.id)
    assert caught.value.param == "training_file"
    assert [one["code"] for one in caught.value.response.json()["errors"]] == ["no_target", "wrong_role"]


def test_a_file_is_read_anew_for_another_task(client: openai.OpenAI, service: FastAPI) -> None:
    texts = client.files.create(file=("texts.jsonl", TEXTS), purpose="fine-tune")
    create, dataset = client.fine_tuning.jobs.create, texts.datasets["text_classification"]  # type: ignore[attr-defined]
    told = faults(create, model="minilm-l6", training_file=texts.id, validation_file=texts.id)
    assert told == {"/validation_file": "same_rows"}
    first = create(model="minilm-l6", training_file=texts.id, validation_file=None)
    same = ours(client, f"/jobs/{first.id}")
    assert (same["task"], same["dataset"]) == ("text_classification", dataset)
    again = client.fine_tuning.jobs.create(model=BASE, training_file=texts.id)
    datasets = client.files.retrieve(texts.id).datasets  # type: ignore[attr-defined]
    assert set(datasets) == {"text_classification", "causal_lm"}
    assert ours(client, f"/jobs/{again.id}")["dataset"] == datasets["causal_lm"]
    chat = client.files.create(file=GOOD, purpose="fine-tune").id
    with pytest.raises(openai.UnprocessableEntityError, match="there is no column 'label'") as caught:
        client.fine_tuning.jobs.create(model="minilm-l6", training_file=chat)
    assert caught.value.param == "training_file"
    with pytest.raises(openai.ConflictError, match="need this data set"):
        client.files.delete(texts.id)
    with service.state.database.reading() as session:
        assert session.get(File, texts.id) is not None


def test_a_job_is_paused_resumed_and_cancelled(
    client: openai.OpenAI, chat: str, service: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, moves = service.state.database, client.fine_tuning.jobs
    job = moves.create(model=BASE, training_file=chat).id
    with pytest.raises(openai.ConflictError, match="pause is allowed from running"):
        moves.pause(job)
    claimed(database)
    assert moves.retrieve(job).status == "running"
    assert moves.pause(job).status == "running"
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job).values(state=State.PAUSED))
    assert str(moves.retrieve(job).status) == "paused"
    assert moves.resume(job).status == "queued"
    claimed(database)
    losing(client, monkeypatch, 1)
    # Its run still ends; there is no way back.
    assert moves.cancel(job).status == "cancelled"
    assert job_of(database, job).state is State.CANCELLING


def test_jobs_of_both_doors_are_listed_newest_first_by_metadata(
    client: openai.OpenAI, chat: str, client_for: MakeClient
) -> None:
    jobs, made = client.fine_tuning.jobs, []
    for team in ("mail", "web", "mail"):
        made.append(jobs.create(model=BASE, training_file=chat, metadata={"team": team}).id)
    dataset = client.files.retrieve(chat).datasets["causal_lm"]  # type: ignore[attr-defined]
    body = {"task": "causal_lm", "dataset": dataset, "metadata": {"team": "mail"}}
    made.append(client.post("/jobs", body=body, cast_to=dict[str, Any])["id"])
    found = list(jobs.list(limit=2))
    assert [job.id for job in found] == made[::-1]
    assert (found[0].training_file, found[1].training_file) == (dataset, chat)
    assert [job.id for job in jobs.list(metadata={"team": "mail"})] == [made[3], made[2], made[0]]
    stranger = client_for("stranger", "admin").fine_tuning.jobs
    for reach in (stranger.retrieve, stranger.cancel, stranger.list_events, stranger.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            reach(made[0])
    assert list(stranger.list()) == []


def test_a_lost_answer_makes_no_second_job(client: openai.OpenAI, chat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = losing(client, monkeypatch, 2)
    job = client.fine_tuning.jobs.create(model=BASE, training_file=chat)
    assert seen == ["0", "1", "2"]
    assert [one.id for one in client.fine_tuning.jobs.list()] == [job.id]
