"""The routes of people: who judges an experiment, what each is asked next, and what they say."""

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, timestamp
from app.dependencies import Anyone, Judge, Member, Read, Router, Viewer, Write, database, storage
from app.experiments import ballots, raters, repository, service
from app.experiments.ballots import Choice
from app.experiments.endpoints import ExperimentId
from app.experiments.models import ExperimentRater
from app.experiments.settling import settled
from app.idempotency import Idempotent
from app.paging import Page, paged
from app.schemas import ListOf, ShortName

router = Router(prefix="/v1/experiments/{experiment_id}", tags=["experiments"])
NONE_LEFT: dict[int | str, dict[str, Any]] = {204: {"description": "Nothing is left for this rater."}}


class BallotShown(BaseModel):
    """A question to a rater: which of two answers to an item is better. Nothing tells the arms."""

    object: Literal["ballot"]
    ballot: str
    item: dict[str, Any]
    left: dict[str, Any]
    right: dict[str, Any]
    remaining: int


class BallotCast(BaseModel):
    """What a rater says."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"ballot": "bal_AAB3bm90IGEgcmVhbCBvbmVBbm4", "choice": "left"}]},
    )

    ballot: str = Field(min_length=1, max_length=400)
    choice: Choice


class BallotTaken(BaseModel):
    """A ballot that was cast; `remaining` of the rater's."""

    object: Literal["ballot"]
    ballot: str
    choice: Choice
    remaining: int


class RaterCreate(BaseModel):
    """Somebody who is to judge."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"name": "Ann"}]})

    name: ShortName


class RaterShown(BaseModel):
    """Somebody who judges; `id` is that of the key, whose secret stands in the answer that made it, only."""

    id: str
    object: Literal["rater"]
    experiment: str
    name: str
    ballots: int
    created_at: str
    secret: str | None = None


@router.get("/ballots/next", response_model=BallotShown, responses=NONE_LEFT, summary="Ask for the next ballot")
def following(
    request: Request,
    identity: Anyone,
    experiment_id: ExperimentId,
    rater: Annotated[
        ShortName | None, Query(description="Who judges; with a rater's own key it may be left out.")
    ] = None,
) -> Response:
    """In an order and with sides of the rater's own. 409 before all jobs have ended, 204 when nothing is left."""
    with database(request).reading() as session:
        own = raters.refuse_others(session, identity, experiment_id)
        service.look(session, identity.tenant, experiment_id)
        name = raters.rater_asked_for(own, rater)
    seen = settled(database(request), storage(request), identity.tenant, experiment_id)
    with database(request).reading() as session:
        shown = ballots.next_ballot(session, seen, name)
    return Response(status_code=204) if shown is None else answer(request, shown)


@router.post("/ballots", status_code=201, response_model=BallotTaken, summary="Cast a ballot")
def cast(
    request: Request, identity: Judge, session: Write, once: Idempotent, experiment_id: ExperimentId, body: BallotCast
) -> Response:
    """409 the second time: one rater judges one item and two arms once."""
    own = raters.refuse_others(session, identity, experiment_id)
    seen = service.look(session, identity.tenant, experiment_id)
    if first := once.begin(session, identity.tenant):
        return first
    name = own.name if own is not None else None
    ballot = ballots.cast(session, identity, seen, body.ballot, body.choice, name)
    told = {"object": "ballot", **body.model_dump(), "remaining": ballots.remaining(session, seen, ballot.rater)}
    return once.finish(session, identity.tenant, answer(request, told, 201))


@router.post("/raters", status_code=201, response_model=RaterShown, summary="Let somebody judge")
def add_rater(
    request: Request, identity: Member, session: Write, once: Idempotent, experiment_id: ExperimentId, body: RaterCreate
) -> Response:
    """A key that fetches and casts this experiment's ballots by this name, and does nothing else.

    The secret stands in this answer only; a replay under the same Idempotency-Key has null in its place.
    """
    ballots.refuse_unjudged(service.look(session, identity.tenant, experiment_id, hold=True))
    if first := once.begin(session, identity.tenant):
        return first
    rater, secret = raters.add(session, identity, experiment_id, body.name)
    cast_before = raters.cast_counts(session, [rater])
    made = answer(request, {**_shown(rater, cast_before), "secret": secret}, 201)
    replay = answer(request, {**_shown(rater, cast_before), "secret": None}, 201)
    return once.finish(session, identity.tenant, made, replay=bytes(replay.body))


@router.get("/raters", response_model=ListOf[RaterShown], summary="List who judges")
def page(request: Request, identity: Viewer, session: Read, experiment_id: ExperimentId, asked: Page) -> Response:
    """Those with a key of their own, and how many ballots were cast by their names."""
    service.look(session, identity.tenant, experiment_id)
    rows = repository.raters(session, experiment_id, asked)
    cast_before = raters.cast_counts(session, rows)
    return answer(request, paged(rows, asked, lambda row: _shown(row, cast_before)))


def _shown(rater: ExperimentRater, cast_before: dict[str, int]) -> dict[str, Any]:
    return {
        "id": rater.key_id,
        "object": "rater",
        "experiment": rater.experiment_id,
        "name": rater.name,
        "ballots": cast_before.get(rater.name, 0),
        "created_at": timestamp(rater.created_at),
    }
