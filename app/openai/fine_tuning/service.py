"""From a fine-tuning job as OpenAI's clients ask for it to an ordinary training job. Knows no request.

Every fault is found at once, and told with the name that the field has on this surface.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.errors import Invalid, NotFound
from app.identity import Identity
from app.jobs import parents, repository
from app.jobs.checked import Lookups, invalid
from app.jobs.checks import BaseLook, look_at_base, refusal
from app.jobs.models import Job
from app.jobs.names import PREFIX
from app.jobs.requests import JobCreate
from app.openai.files.service import Place
from app.openai.fine_tuning.requests import FineTuningCreate
from app.openai.fine_tuning.rows import datasets_of
from app.openai_tables.models import FineTuning
from app.unfit import Unfit
from engine import models
from engine.errors import Fault
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


def find(session: Session, tenant: str, job_id: str, *, hold: bool = False) -> Job:
    """The tenant's training job, or NotFound; with `hold` nobody else writes it until the transaction ends."""
    job = repository.get(session, tenant, job_id, hold=hold)
    if job is None or job.kind != "train":
        raise NotFound(f"no fine-tuning job {job_id}", remedy="GET /v1/fine_tuning/jobs lists yours")
    return job


def prepare(place: Place, identity: Identity, asked: FineTuningCreate | Unfit[FineTuningCreate]) -> Prepared:
    """The training job that is asked for; its files become data sets where they are none yet.

    Raises:
        Invalid: with every fault found.
    """
    read = asked if isinstance(asked, Unfit) else Unfit(asked.model_dump(exclude_unset=True), (), FineTuningCreate)
    body = read.sound
    if body is None:
        raise invalid(read.faults)
    # Without a base or a task nobody knows how a file is to be read, nor what else is right.
    task = body.task or (None if "model" in read.stood_in else _task_of(place, body.model))
    found, unusable = datasets_of(place, identity, body, task)
    further = [*_model_faults(body.model), *unusable, *_twice(body)]
    fields = _fields(body, task, found)
    if "model" in read.stood_in or any(fault.pointer == "/model" for fault in further):
        del fields["model"]
    unrated = Unfit(fields, (), JobCreate)
    job, base = unrated.sound, None
    if job is not None:
        base = look_at_base(job, place.settings.models_dir)
        job, wrong_rate = _with_rate(job, base, *body.asked("learning_rate_multiplier"))
        further += wrong_rate
    faults = [*read.faults, *read.told(further)]
    names = _names(body)
    if faults or unrated.faults or job is None or base is None:
        told = renamed(_refused(place, identity, unrated), names).faults
        # What stands in for a file that is not there, or was not read, is none to be told.
        files = {fault.pointer for fault in unusable} | {at for at, one in found.items() if not one.startswith("ds_")}
        raise invalid([*faults, *(fault for fault in read.told(told) if fault.pointer not in files)])
    _, multiplier = body.asked("learning_rate_multiplier")
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


def _fields(body: FineTuningCreate, task: str | None, found: Mapping[str, str]) -> dict[str, Any]:
    """The request as that of a training job."""
    training = dict(body.training or {})
    given = {"epochs": body.asked("n_epochs")[1], "batch_size": body.asked("batch_size")[1], "seed": body.seed}
    training |= {name: value for name, value in given.items() if value not in (None, "auto")}
    train, valid = found.get("/training_file", "ds_0"), found.get("/validation_file")
    return ({"task": task} if task is not None else {}) | {
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


def _names(body: FineTuningCreate) -> dict[str, str]:
    names = {
        "/dataset/train": "/training_file",
        "/dataset/test": "/validation_file",
        "/dataset": "/training_file",
        "/name": "/suffix",
    }
    given = {"seed": "/seed", "epochs": body.asked("n_epochs")[0], "batch_size": body.asked("batch_size")[0]}
    return names | {f"/training/{ours}": theirs for ours, theirs in given.items() if ours not in (body.training or {})}


def _twice(body: FineTuningCreate) -> list[Fault]:
    """Numbers that the request gives twice: in both places of OpenAI's, or as OpenAI's field and as ours."""
    ours = {"n_epochs": "epochs", "batch_size": "batch_size", "learning_rate_multiplier": "learning_rate"}
    both = {body.asked(name)[0]: (body.asked(name)[1], our) for name, our in ours.items()} | {
        "/seed": (body.seed, "seed")
    }
    faults = [
        Fault(f"/training/{our}", "decided_twice", f"{theirs} and /training/{our} say the same", "leave one out")
        for theirs, (value, our) in both.items()
        if value not in (None, "auto") and (body.training or {}).get(our) is not None
    ]
    places = body.hyperparameter_places
    for name in ours:
        given = {at: getattr(one, name) for at, one in places.items() if getattr(one, name) != "auto"}
        if len(set(given.values())) > 1:
            detail = f"{name} is " + " and ".join(f"{value} in {at}" for at, value in given.items())
            faults.append(Fault(f"/hyperparameters/{name}", "decided_twice", detail, "leave it out of one of the two"))
    return faults


def _with_rate(
    job: JobCreate, base: BaseLook, pointer: str, multiplier: float | Literal["auto"]
) -> tuple[JobCreate, list[Fault]]:
    """The job with the multiple of its default rate that is asked for."""
    if multiplier == "auto":
        return job, []
    factor = rate_factor(fact for one in job.instructions for fact in one.provides)
    rate = float(multiplier) * job.training.rate(base.pretrained, factor)
    if not 0 < rate <= HIGHEST_RATE:
        bound, remedy = ("less_than_equal", "smaller") if rate > 0 else ("greater_than", "greater")
        return job, [Fault(pointer, bound, f"the learning rate would be {rate:g}", f"send a {remedy} number")]
    return job.model_copy(update={"training": job.training.model_copy(update={"learning_rate": rate})}), []


def _refused(place: Place, identity: Identity, job: Unfit[JobCreate]) -> Invalid:
    """Everything that is wrong with a training job that is made of what is sound."""
    with place.database.reading() as session:
        lookups = Lookups(partial(datasets.find, session), partial(parents.find, session))
        return refusal(lookups, identity.tenant, job, place.settings.models_dir)
