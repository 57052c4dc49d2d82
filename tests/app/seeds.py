"""What one tenant has, put straight into the database and the store: a data set, a job in each state, its artifacts."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from mimetypes import guess_type
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import FastAPI

from app.artifacts.models import Artifact
from app.auth.bootstrap import add_key, new_secret
from app.datasets.models import Dataset
from app.experiments.models import Experiment, ExperimentJob
from app.ids import new_id
from app.jobs import repository
from app.jobs.models import Job
from app.jobs.states import State
from app.openai_tables.models import File, Upload
from app.privacy.models import PrivacyAccount
from app.rounds.models import OPEN, FederationRound, Population
from app.webhooks.models import DELIVERED, WebhookDelivery, WebhookEndpoint
from engine.spec import Spec


@dataclass(frozen=True)
class Seeds:
    """The ids of what the tenant has, one or more a kind."""

    webhook: tuple[str, ...]
    delivery: tuple[str, ...]
    dataset: tuple[str, ...]
    job: tuple[str, ...]
    artifact: tuple[str, ...]
    key: tuple[str, ...]
    population: tuple[str, ...]
    round: tuple[str, ...]
    experiment: tuple[str, ...]
    file: tuple[str, ...]
    upload: tuple[str, ...]


def seed(service: FastAPI, folder: Path, tenant: str = "default") -> Seeds:
    """Give the tenant one of everything."""
    dataset = seed_dataset(service, folder, tenant)
    jobs = {state: seed_job(service, dataset, tenant, state) for state in State}
    artifacts = [
        seed_artifact(service, folder, tenant, jobs[State.SUCCEEDED], kind, name)
        for kind, name in (("model", "model.zip"), ("receipt", "receipt.json"))
    ]
    population = seed_population(service, tenant)
    webhook, delivery = seed_webhook(service, jobs[State.SUCCEEDED], tenant)
    rounds = (seed_round(service, population, tenant),)
    return Seeds(
        (webhook,),
        (delivery,),
        (dataset,),
        tuple(jobs.values()),
        tuple(artifacts),
        (seed_key(service, tenant),),
        (population,),
        rounds,
        (seed_experiment(service, dataset, tenant),),
        (seed_file(service, folder, tenant),),
        (seed_upload(service, tenant),),
    )


def seed_dataset(service: FastAPI, folder: Path, tenant: str = "default") -> str:
    """A ready data set of four texts."""
    file = folder / f"{new_id('rows')}.parquet"
    rows = {"id": [f"{i:016x}" for i in range(4)], "text": list("abcd"), "label": pa.array([0, 1, 0, 1], pa.int32())}
    pq.write_table(pa.table(rows), file)
    stored = service.state.storage.save(file)
    dataset = Dataset(
        id=new_id("ds"),
        tenant=tenant,
        name=f"texts of {tenant}",
        task="text_classification",
        status="ready",
        rows=4,
        nominal_rows=None,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        splits={},
        columns={"text": "string", "label": "int32"},
        labels=["ham", "spam"],
        label_counts={"ham": 2, "spam": 2},
        problems=[],
        storage_key=stored.key,
        created_at=datetime.now(UTC),
    )
    with service.state.database.session() as session:
        session.add(dataset)
    return dataset.id


def seed_job(service: FastAPI, dataset: str, tenant: str = "default", state: State = State.QUEUED) -> str:
    """A job on the data set, in this state."""
    spec = Spec.model_validate({"task": "text_classification", "dataset": dataset})
    job = Job(
        id=new_id("job"),
        tenant=tenant,
        kind=spec.kind,
        task=spec.task,
        name=f"job of {tenant}",
        metadata_={"team": tenant},
        spec=spec.resolved(pretrained=True),
        plan=[],
        inputs={},
        state=state,
        created_at=datetime.now(UTC),
    )
    with service.state.database.session() as session:
        repository.add(session, job)
    return job.id


def seed_webhook(service: FastAPI, job: str, tenant: str = "default") -> tuple[str, str]:
    """A webhook of the tenant, and what was sent to it of the job."""
    now = datetime.now(UTC)
    endpoint = WebhookEndpoint(
        id=new_id("wh"),
        tenant=tenant,
        url="https://example.org/",
        secret="whsec_AAAAAAAAAAAAAAAAAAAAAAAA",
        events=[],
        created_at=now,
    )
    sent = {"attempt": 1, "at": "2026-01-01T00:00:00.000Z", "status_code": 204, "error": None, "seconds": 0.1}
    delivery = WebhookDelivery(
        id=new_id("msg"),
        tenant=tenant,
        endpoint_id=endpoint.id,
        job_id=job,
        type="job.succeeded",
        body="{}",
        state=DELIVERED,
        attempt=1,
        tries=1,
        next_try=now,
        log=[sent],
        created_at=now,
    )
    with service.state.database.session() as session:
        session.add(endpoint)
        session.flush()
        session.add(delivery)
    return endpoint.id, delivery.id


def seed_artifact(
    service: FastAPI, folder: Path, tenant: str, job: str, kind: str, filename: str, content: bytes | None = None
) -> str:
    """A stored artifact of the job; without `content` it holds what it is."""
    file = folder / new_id("file")
    file.write_bytes(json.dumps({"of": tenant, "kind": kind}).encode() if content is None else content)
    stored = service.state.storage.save(file)
    artifact = Artifact(
        id=new_id("art"),
        tenant=tenant,
        job_id=job,
        attempt=1,
        kind=kind,
        filename=filename,
        media_type=guess_type(filename)[0] or "application/octet-stream",
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        storage_key=stored.key,
        created_at=datetime.now(UTC),
    )
    with service.state.database.session() as session:
        session.add(artifact)
    return artifact.id


def seed_key(service: FastAPI, tenant: str = "default") -> str:
    """A viewer's key."""
    with service.state.database.session() as session:
        return add_key(session, "seed", "viewer", tenant, new_secret(), made_by=None).id


def seed_population(service: FastAPI, tenant: str = "default") -> str:
    """A federation of a thousand clients, with its account."""
    now = datetime.now(UTC)
    population = Population(
        id=new_id("pop"),
        tenant=tenant,
        name=f"wards of {tenant}",
        clients=1_000,
        unit="client",
        min_clients=10,
        expected_clients=20,
        created_at=now,
    )
    account = PrivacyAccount(
        id=new_id("pac"), tenant=tenant, subject=population.id, epsilon=8.0, delta=1e-5, order=5.0, created_at=now
    )
    with service.state.database.session() as session:
        session.add_all([population, account])
    return population.id


def seed_round(service: FastAPI, population: str, tenant: str = "default") -> str:
    """A round of the population that takes updates."""
    one = FederationRound(
        id=new_id("rnd"),
        tenant=tenant,
        population_id=population,
        format="delta",
        clip_norm=0.5,
        noise_multiplier=1.0,
        delta=1e-5,
        expected_clients=20,
        sampling_rate=1.0,
        secret="00" * 32,
        state=OPEN,
        created_at=datetime.now(UTC),
    )
    with service.state.database.session() as session:
        session.add(one)
    return one.id


def seed_experiment(service: FastAPI, dataset: str, tenant: str = "default") -> str:
    """An experiment of two arms with two seeds whose jobs wait, and whose items people are to judge."""
    one = Experiment(
        id=new_id("exp"),
        tenant=tenant,
        name=f"experiment of {tenant}",
        task="text_classification",
        metric="accuracy",
        dataset_id=dataset,
        baseline={"task": "text_classification", "dataset": dataset},
        treatments=[{"name": "edge", "changes": {"instructions": [47]}}],
        seeds=[1, 2],
        margin=0.01,
        human_items=4,
        secret="00" * 32,
        created_at=datetime.now(UTC),
    )
    places = [(arm, seed, seed_job(service, dataset, tenant)) for arm in (0, 1) for seed in (1, 2)]
    with service.state.database.session() as session:
        session.add(one)
        session.flush()
        session.add_all(
            ExperimentJob(experiment_id=one.id, arm=arm, seed=seed, job_id=job) for arm, seed, job in places
        )
    return one.id


def seed_file(service: FastAPI, folder: Path, tenant: str = "default") -> str:
    """A file of OpenAI's surface."""
    file = folder / new_id("note")
    file.write_text(f"note of {tenant}")
    stored = service.state.storage.save(file)
    row = File(
        id=new_id("file"),
        tenant=tenant,
        purpose="user_data",
        filename="note.txt",
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        storage_key=stored.key,
        task=None,
        problems=[],
        created_at=datetime.now(UTC),
        expires_at=None,
    )
    with service.state.database.session() as session:
        session.add(row)
    return row.id


def seed_upload(service: FastAPI, tenant: str = "default") -> str:
    """An upload that waits for its parts."""
    now = datetime.now(UTC)
    row = Upload(
        id=new_id("upload"),
        tenant=tenant,
        purpose="user_data",
        filename="note.txt",
        size_bytes=4,
        keep_seconds=None,
        status="pending",
        file_id=None,
        created_at=now,
        expires_at=now + timedelta(hours=1),
    )
    with service.state.database.session() as session:
        session.add(row)
    return row.id
