"""The job builder: a form for each kind, checked by a dry run as it is filled in, with the commands that do the same.

Without a script the form works as well: it is checked when it is sent, and `check` sends it without making a job.
"""

import functools
from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
from fastapi import Query
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.dashboard import builder, equivalents, offers
from app.dashboard.article import NUMBERS_OF_TIERS
from app.dashboard.builder import Built, Form
from app.dashboard.fields import Chosen
from app.dashboard.forms import Given
from app.dashboard.offers import Offers
from app.dashboard.rendering import TEMPLATES, render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sending import claim, fault_json, faults_of, new_token, status_of
from app.dashboard.sessions import Visitor
from app.dashboard.visitors import Writer
from app.dependencies import database, settings
from app.errors import Invalid, ServiceError
from app.idempotency import UNCLAIMED
from app.identity import Identity
from app.jobs import endpoints as jobs_api
from app.jobs.requests import Submission
from app.jobs.schemas import job_json
from app.jobs.service import find
from engine.errors import EngineError, Fault

router = PanelRouter()
READ: TypeAdapter[Any] = TypeAdapter(Submission)
# What an untouched form lacks is no fault yet.
NOT_CHOSEN = ("/dataset", "/task", "/model", "/inputs")
NOT_YET = "nothing_to_do"


@dataclass(frozen=True)
class Verdict:
    """What the dry run says of the form as it stands."""

    plan: list[dict[str, Any]] = field(default_factory=list)
    estimate: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Filled:
    """A form with what it holds, and what its choices may be."""

    form: Form
    given: Given
    offers: Offers
    body: dict[str, Any]

    @classmethod
    def of(cls, kind: str, given: Given, offered: Offers) -> "Filled":
        """The form of a kind, with the body that it makes."""
        form = builder.form_of(kind)
        return cls(form, given, offered, builder.body_of(form, given, offered.tasks))

    @property
    def begun(self) -> bool:
        """Whether it says what the job works on."""
        return bool(builder.picked(self.given, "dataset") or builder.picked(self.given, "model"))


@router.get("/jobs/new")
async def page(
    request: Request,
    visitor: Writer,
    kind: Chosen[Built] = None,
    origin: Annotated[str | None, Query(alias="from", max_length=64)] = None,
) -> Response:
    """The form: empty, filled from the address, or filled from a job."""
    pairs: list[tuple[str, str]] = request.query_params.multi_items()
    job = await run_in_threadpool(_job, request, visitor, origin) if origin else None
    if job is not None:
        pairs, kind = builder.filled_by(job), job["kind"]
    filled = await _filled(request, visitor, kind or "train", Given(pairs))
    verdict = await _verdict(request, visitor.identity, filled.body)
    if not filled.begun:
        left = [one for one in verdict.faults if not (one.pointer.startswith(NOT_CHOSEN) or one.code == NOT_YET)]
        verdict = Verdict(verdict.plan, verdict.estimate, left)
    return _page(request, filled, verdict, origin=job)


@router.post("/jobs/new")
async def submit(request: Request, visitor: Writer) -> Response:
    """Make the job and lead to its page, or show the form with every fault beside its field."""
    filled = await _posted(request, visitor)
    if filled.given.text("check"):
        return _page(request, filled, await _verdict(request, visitor.identity, filled.body))
    once = claim(request, filled.given.text("token"), filled.body)
    try:
        made = await jobs_api.create(request, visitor.identity, once, READ.validate_python(filled.body))
    except (ServiceError, EngineError) as error:
        return _page(request, filled, Verdict(faults=faults_of(error)), status=status_of(error))
    return to(f"/jobs/{made.headers['location'].rpartition('/')[2]}")


@router.post("/jobs/new/check")
async def check(request: Request, visitor: Writer) -> Response:
    """What the dry run says, for the page's script: the panel anew, and each fault with its control."""
    filled = await _posted(request, visitor)
    verdict = await _verdict(request, visitor.identity, filled.body)
    found = builder.beside(filled.form, filled.given, verdict.faults)
    panel = TEMPLATES.get_template("builder_panel.html").render(_values(request, filled, verdict))
    faults = {name: list(map(fault_json, faults)) for name, faults in found.items()}
    return JSONResponse({"panel": panel, "faults": faults, "task": filled.body.get("task")})


def _page(
    request: Request, filled: Filled, verdict: Verdict, *, origin: dict[str, Any] | None = None, status: int = 200
) -> Response:
    return render(
        request,
        "builder.html",
        status=status,
        kinds=builder.KINDS,
        origin=origin,
        token=new_token(),
        **_values(request, filled, verdict),
    )


def _values(request: Request, filled: Filled, verdict: Verdict) -> dict[str, Any]:
    server, body = equivalents.server_of(request), equivalents.shown(filled.body)
    return {
        "form": filled.form,
        "given": filled.given,
        "offers": filled.offers,
        "mends": functools.partial(builder.mends, filled.form, filled.given),
        "chosen": builder.chosen(filled.form, filled.given),
        "verdict": verdict,
        "beside": builder.beside(filled.form, filled.given, verdict.faults),
        "begun": bool(filled.begun or verdict.plan),
        "tiers": NUMBERS_OF_TIERS,
        "curl": equivalents.curl(server, body),
        "command": equivalents.submit(server, body),
        "body": equivalents.body_text(body),
    }


async def _posted(request: Request, visitor: Visitor) -> Filled:
    posted = await request.form()
    given = Given((name, text) for name, text in posted.multi_items() if not isinstance(text, UploadFile))
    kind = given.text("kind", "train")
    if kind not in builder.KINDS:
        raise Invalid(f"there is no form for jobs of kind {kind[:40]!r}", remedy=f"choose {', '.join(builder.KINDS)}")
    return await _filled(request, visitor, kind, given)


async def _filled(request: Request, visitor: Visitor, kind: str, given: Given) -> Filled:
    def offered() -> Offers:
        with database(request).reading() as session:
            named = builder.picked_datasets(given)
            return offers.of(session, visitor.identity.tenant, settings(request).models_dir, named)

    return Filled.of(kind, given, await run_in_threadpool(offered))


async def _verdict(request: Request, identity: Identity, body: dict[str, Any]) -> Verdict:
    try:
        told = await jobs_api.create(request, identity, UNCLAIMED, READ.validate_python(body), dry_run=True)
    except (ServiceError, EngineError) as error:
        return Verdict(faults=faults_of(error))
    shown = orjson.loads(told.body)
    return Verdict(shown["plan"], shown["estimate"])


def _job(request: Request, visitor: Visitor, job_id: str) -> dict[str, Any]:
    with database(request).reading() as session:
        job = job_json(find(session, visitor.identity.tenant, job_id), ())
    if job["kind"] not in builder.KINDS:
        raise Invalid(f"a job of kind {job['kind']} is not made by a form", remedy="close a round of its population")
    if any("\n" in text or text != text.strip() for text in (job.get("inputs") or {}).get("texts") or ()):
        remedy = "send the job again with curl or `fiftytwo submit`"
        raise Invalid(
            "its texts have breaks or spaces at their ends, which a form of one text a line loses", remedy=remedy
        )
    return job
