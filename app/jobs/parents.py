"""Trained models as later jobs name them: by the job that made them, or by one of its files. Changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.artifacts.models import Artifact
from app.jobs import repository
from app.jobs.names import PREFIX, job_id_of, model_name
from engine.errors import Fault

NEEDED = ("model", "checkpoint")
TRAINED = ("job_", "art_", PREFIX)
"""How ids begin that name a trained model."""


@dataclass(frozen=True)
class TrainedModel:
    """What an id stands for: its job, that job's files, and the spec of the training that the weights came from."""

    job: str
    spec: Mapping[str, Any]
    package: Artifact
    checkpoint: Artifact
    kinds: frozenset[str] = frozenset()
    """The kinds of all files that the job has left."""

    @property
    def shown(self) -> dict[str, Any]:
        """As it stands in the spec of the job that begins with it."""
        files = {"package": self.package.id, "checkpoint": self.checkpoint.id}
        return {"job": self.job, **files, "spec": dict(self.spec)}

    @property
    def inputs(self) -> dict[str, str]:
        """Storage key by id of its files."""
        return {one.id: one.storage_key for one in (self.package, self.checkpoint)}


# From a tenant and an id to the tenant's model, or what is wrong with it.
FindModel: TypeAlias = Callable[[str, str], TrainedModel | Fault]


def find(session: Session, tenant: str, model: str, *, hold: bool = False) -> TrainedModel | Fault:
    """The tenant's model; with `hold` its job is not erased before the transaction ends."""
    named = artifacts.find(session, tenant, model) if model.startswith("art_") else None
    job = repository.get(session, tenant, named.job_id if named is not None else job_id_of(model) or model, hold=hold)
    if job is None or (model.startswith(PREFIX) and model != model_name(job)):
        return _fault("unknown_model", f"there is no trained model {model[:80]!r}", "GET /v1/models lists yours")
    if named is not None and named.kind not in NEEDED:
        remedy = f"name the job, or its artifact of kind {' or '.join(NEEDED)}"
        return _fault("wrong_artifact", f"{model} is of kind {named.kind}, and no model", remedy)
    files = {one.kind: one for one in artifacts.of_job(session, tenant, job.id)}
    if not files.keys() >= set(NEEDED):
        remedy = "wait until it has succeeded" if job.finished_at is None else "name a job that trained a model"
        return _fault("no_model", f"{job.id} is {job.state} and has left no model", remedy)
    spec = job.spec if job.kind == "train" else job.spec.get("parent", {}).get("spec")
    if spec is None:
        return _fault("no_model", f"{job.id} has trained no model", "name a job that trained a model")
    return TrainedModel(job.id, spec, files["model"], files["checkpoint"], frozenset(files))


def _fault(code: str, detail: str, remedy: str) -> Fault:
    return Fault("/model", code, detail, remedy)
