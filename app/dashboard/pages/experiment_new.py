"""The form that makes an experiment: a baseline, treatments as changes to it, checked as it is typed."""

import hashlib
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import Depends, Form, Query
from pydantic import TypeAdapter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.dashboard.experiment_form import (
    FIRST_CHANGES,
    SLOTS,
    Treated,
    Written,
    baseline_of,
    beside,
    body_of,
    without_echoes,
)
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sending import fault_json
from app.dashboard.visitors import Writer
from app.datasets import repository as datasets
from app.dependencies import Read, database, settings
from app.errors import Invalid, ServiceError
from app.experiments import endpoints as experiments_api
from app.experiments.arms import arms_of
from app.experiments.schemas import ExperimentCreate, Submission
from app.idempotency import once as claim
from app.identity import Identity
from app.jobs import parents, repository, service
from app.jobs.checked import Lookups
from app.unfit import Unfit
from engine.catalogue import describe
from engine.errors import Fault

router = PanelRouter()
MOST_JOBS = 50
Line = Annotated[str, Form(max_length=1_000)]
Text = Annotated[str, Form(max_length=100_000)]
Several = Annotated[list[str], Form(max_length=SLOTS)]
_ANY: TypeAdapter[ExperimentCreate | Unfit[ExperimentCreate]] = TypeAdapter(Submission)


async def _written(
    name: Line = "",
    baseline: Text = "",
    treatment_name: Several = [],  # noqa: B006  # FastAPI copies it
    treatment_changes: Several = [],  # noqa: B006
    seeds: Line = "",
    judged: Line = "",
    items: Line = "",
    margin: Line = "",
) -> Written:
    # Browsers send lines with CR and LF.
    texts = [one.replace("\r\n", "\n") for one in treatment_changes]
    treatments = tuple(Treated(*pair) for pair in zip(treatment_name, texts, strict=False))
    return Written(name, baseline.replace("\r\n", "\n"), treatments, seeds, bool(judged), items, margin)


Posted = Annotated[Written, Depends(_written)]


@router.get("/experiments/new")
def form(request: Request, visitor: Writer, session: Read, job: Annotated[str, Query(max_length=64)] = "") -> Response:
    """The form; with `job` its baseline is that job's spec."""
    spec = service.find(session, visitor.identity.tenant, job).spec if job else None
    return _form(request, session, visitor.identity, Written(baseline=baseline_of(spec) if spec else ""), chosen=job)


@router.post("/experiments/check")
def check(request: Request, visitor: Writer, session: Read, written: Posted) -> Response:
    """What is wrong with the form as it stands, by field; nothing is stored."""
    body, unread = body_of(written)
    faults = without_echoes(unread, _faults(request, session, visitor.identity, body))
    placed = {field: list(map(fault_json, found)) for field, found in beside(written, faults).items()}
    return JSONResponse({"faults": placed, "jobs": (1 + len(body["treatments"])) * len(body["seeds"])})


@router.post("/experiments")
def create(request: Request, visitor: Writer, written: Posted, once: Line = "") -> Response:
    """Run it. The same form sent twice makes one experiment."""
    body, unread = body_of(written)
    content = orjson.dumps(body)
    key = f"panel-{once}-{hashlib.sha256(content).hexdigest()[:16]}" if once else None
    try:
        if unread:
            with database(request).reading() as session:
                faults = without_echoes(unread, _faults(request, session, visitor.identity, body))
            raise Invalid(faults[0].detail, faults=faults)
        wanted: Any = _ANY.validate_python(body)
        made = experiments_api.create(request, visitor.identity, claim(request, key, content), wanted)
    except ServiceError as error:
        faults = list(error.faults) or [Fault("", error.code, error.detail, error.remedy)]
        with database(request).reading() as session:
            return _form(request, session, visitor.identity, written, faults, error.status, once)
    return to(f"/experiments/{orjson.loads(made.body)['id']}")


def _faults(request: Request, session: Session, identity: Identity, body: dict[str, Any]) -> Sequence[Fault]:
    lookups, ours = Lookups(partial(datasets.find, session), partial(parents.find, session)), settings(request)
    read = _ANY.validate_python(body)
    try:
        arms_of(session, lookups, identity.tenant, read, ours.models_dir, ours.max_open_jobs)
    except Invalid as error:
        return error.faults
    return []


def _form(
    request: Request,
    session: Session,
    identity: Identity,
    written: Written,
    faults: Sequence[Fault] = (),
    status: int = 200,
    once: str = "",
    chosen: str = "",
) -> Response:
    jobs = repository.listed(
        session, identity.tenant, filters={"kind": "train"}, metadata={}, limit=MOST_JOBS, after=None, descending=True
    )
    return render(
        request,
        "experiment_new.html",
        status=status,
        written=written,
        faults=beside(written, faults),
        jobs=jobs,
        chosen=chosen,
        instructions=[(one["number"], one["name"], one["title"]) for one in describe()],
        slots=SLOTS,
        first_changes=FIRST_CHANGES,
        once=once or secrets.token_hex(8),
    )
