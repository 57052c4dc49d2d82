"""From a fine-tuning job as OpenAI's clients ask for it to an ordinary training job. Knows no request.

Every fault is found at once, and told with the name that the field has on this surface.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.errors import Invalid, NotFound
from app.identity import Identity
from app.jobs import parents, repository
from app.jobs.checked import Lookups, invalid
from app.jobs.checks import BaseLook, look_at_base, refusal
from app.jobs.models import Job
from app.jobs.names import PREFIX
from app.jobs.requests import JobCreate, Unfit
from app.openai.files.service import Place
from app.openai.fine_tuning.requests import FineTuningCreate, Hyperparameters
from app.openai.fine_tuning.rows import datasets_of
from app.openai_tables.models import FineTuning
from engine import models
from engine.errors import Fault
from engine.faults import from_validation
from engine.optimizer import rate_factor

ELSEWHERE = ("gpt-", "chatgpt-", "o1", "o3", "o4", "babbage-", "davinci-", "ada-", "curie-")
"""How models begin that only OpenAI has."""
HIGHEST_RATE = 10.0


@dataclass(frozen=True)
class Prepared:
    """A training job that may be submitted, and what is written down beside it."""

    job: JobCreate
    base: BaseLook
    asked: FineTuning
    names: Mapping[str, str]
    """From pointers into the training job to those into the request."""


def find(session: Session, tenant: str, job_id: str) -> Job:
    """The tenant's training job, or NotFound."""
    job = repository.get(session, tenant, job_id)
    if job is None or job.kind != "train":
        raise NotFound(f"no fine-tuning job {job_id}", remedy="GET /v1/fine_tuning/jobs lists yours")
    return job


def prepare(place: Place, identity: Identity, asked: FineTuningCreate | Unfit) -> Prepared:
    """The training job that is asked for; its files become data sets where they are none yet.

    Raises:
        Invalid: with every fault found.
    """
    faults = list(asked.faults) if isinstance(asked, Unfit) else []
    body = _sound(asked) if isinstance(asked, Unfit) else asked
    if body is None:
        raise invalid(faults)
    stood_in = _stood_in(asked)
    models_dir = place.settings.models_dir
    task = body.task or _task_of(place, body.model)
    pointer, hyperparameters = body.asked
    names = _names(pointer, body)
    further = _model_faults(body.model)
    found, unusable = datasets_of(place, identity, body, task)
    further += unusable
    fields = _fields(body, task, hyperparameters, found)
    further += _twice(body, pointer, hyperparameters)
    job, base = None, None
    try:
        job = JobCreate.model_validate(fields)
    except ValidationError as error:
        further += from_validation(error, JobCreate)
    if job is not None and not further:
        base = look_at_base(job, models_dir)
        job, wrong_rate = _with_rate(job, base, hyperparameters, pointer)
        further += wrong_rate
    faults += [fault for fault in further if fault.pointer not in stood_in]
    if faults or job is None or base is None:
        raise renamed(_refused(place, identity, fields, faults, further, stood_in), names)
    multiplier = hyperparameters.learning_rate_multiplier
    beside = FineTuning(
        tenant=identity.tenant,
        training_file=body.training_file,
        validation_file=body.validation_file,
        learning_rate_multiplier=None if multiplier == "auto" else float(multiplier),
    )
    return Prepared(job, base, beside, names)


def renamed(error: Invalid, names: Mapping[str, str]) -> Invalid:
    """The refusal of a training job with its faults' pointers as the request has them."""
    faults = [replace(fault, pointer=_renamed(fault.pointer, names)) for fault in error.faults]
    return Invalid(error.detail, code=error.code, remedy=error.remedy, faults=faults)


def _renamed(pointer: str, names: Mapping[str, str]) -> str:
    return next((new for old, new in names.items() if pointer == old or pointer.startswith(f"{old}/")), pointer)


def _sound(unfit: Unfit) -> FineTuningCreate | None:
    """The body's sound fields as if it held no others; None: it is no object."""
    if not isinstance(unfit.body, Mapping):
        return None
    faulty = {fault.pointer.split("/")[1] for fault in unfit.faults if fault.pointer}
    sound = {name: value for name, value in unfit.body.items() if name not in faulty}
    try:
        return FineTuningCreate.model_validate({**FineTuningCreate.stand_ins, **sound})
    except ValidationError:
        return None


def _stood_in(asked: FineTuningCreate | Unfit) -> set[str]:
    if not isinstance(asked, Unfit):
        return set()
    faulty = {fault.pointer.split("/")[1] for fault in asked.faults if fault.pointer}
    given = set(asked.body) - faulty
    return {f"/{name}" for name in FineTuningCreate.stand_ins if name not in given}


def _task_of(place: Place, model: str) -> str:
    described = models.describe(place.settings.models_dir)
    return next((str(one["task"]) for one in described if one["id"] == model), "causal_lm")


def _model_faults(model: str) -> list[Fault]:
    if model.startswith(PREFIX):
        remedy = "name its base model, and give it all rows; `compress` of POST /v1/jobs goes on from a trained model"
        return [Fault("/model", "already_trained", f"{model} is trained already, and no base model", remedy)]
    if model.startswith(ELSEWHERE):
        remedy = f"choose {models.DEFAULTS['causal_lm']}, or another base that GET /v1/models lists"
        return [Fault("/model", "unknown_model", f"{model} is a model of OpenAI's own, and not here", remedy)]
    return []


def _fields(
    body: FineTuningCreate, task: str, hyperparameters: Hyperparameters, found: Mapping[str, str]
) -> dict[str, Any]:
    """The request as that of a training job."""
    training = dict(body.training or {})
    given = {"epochs": hyperparameters.n_epochs, "batch_size": hyperparameters.batch_size, "seed": body.seed}
    training |= {name: value for name, value in given.items() if value not in (None, "auto")}
    train, valid = found.get("/training_file", "ds_0"), found.get("/validation_file")
    return {
        "task": task,
        "model": body.model,
        # Nothing is chosen or calibrated by the rows that score: a tenth of the training rows validates.
        "dataset": train if valid is None else {"train": train, "test": valid},
        "instructions": body.instructions or [],
        "training": training,
        "limits": body.limits or {},
        "export": body.export or {},
        "name": body.suffix,
        "metadata": body.metadata or {},
    }


def _names(pointer: str, body: FineTuningCreate) -> dict[str, str]:
    names = {
        "/dataset/train": "/training_file",
        "/dataset/test": "/validation_file",
        "/dataset": "/training_file",
        "/name": "/suffix",
    }
    if "seed" not in (body.training or {}):
        names["/training/seed"] = "/seed"
    for ours, theirs in (("epochs", "n_epochs"), ("batch_size", "batch_size")):
        if ours not in (body.training or {}):
            names[f"/training/{ours}"] = f"{pointer}/{theirs}"
    return names


def _twice(body: FineTuningCreate, pointer: str, hyperparameters: Hyperparameters) -> list[Fault]:
    """Numbers that the request gives twice: as OpenAI's field, and as ours in `training`."""
    both = {
        f"{pointer}/n_epochs": (hyperparameters.n_epochs, "epochs"),
        f"{pointer}/batch_size": (hyperparameters.batch_size, "batch_size"),
        f"{pointer}/learning_rate_multiplier": (hyperparameters.learning_rate_multiplier, "learning_rate"),
        "/seed": (body.seed, "seed"),
    }
    return [
        Fault(f"/training/{ours}", "decided_twice", f"{theirs} and /training/{ours} say the same", "leave one out")
        for theirs, (value, ours) in both.items()
        if value not in (None, "auto") and (body.training or {}).get(ours) is not None
    ]


def _with_rate(
    job: JobCreate, base: BaseLook, hyperparameters: Hyperparameters, pointer: str
) -> tuple[JobCreate, list[Fault]]:
    """The job with the multiple of its default rate that is asked for."""
    multiplier = hyperparameters.learning_rate_multiplier
    if multiplier == "auto":
        return job, []
    factor = rate_factor(fact for one in job.instructions for fact in one.provides)
    rate = float(multiplier) * job.training.rate(base.pretrained, factor)
    if not 0 < rate <= HIGHEST_RATE:
        bound, remedy = ("less_than_equal", "smaller") if rate > 0 else ("greater_than", "greater")
        detail, where = f"the learning rate would be {rate:g}", f"{pointer}/learning_rate_multiplier"
        return job, [Fault(where, bound, detail, f"send a {remedy} number")]
    return job.model_copy(update={"training": job.training.model_copy(update={"learning_rate": rate})}), []


def _refused(
    place: Place,
    identity: Identity,
    fields: Mapping[str, Any],
    faults: list[Fault],
    further: Sequence[Fault],
    stood_in: set[str],
) -> Invalid:
    """Everything that is wrong, with what the check of the sound fields finds."""
    # What stands in for a file that has a fault of its own is none to be told.
    lost = {fault.pointer for fault in further} | stood_in
    sound = {name: value for name, value in fields.items() if f"/{name}" not in lost}
    if lost & {"/training_file", "/validation_file"}:
        sound.pop("dataset")
    with place.database.reading() as session:
        lookups = Lookups(partial(datasets.find, session), partial(parents.find, session))
        return refusal(lookups, identity.tenant, Unfit(sound, faults), place.settings.models_dir)
