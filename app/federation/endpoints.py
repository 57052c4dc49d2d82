"""The routes of populations and rounds. What an answer tells of those who take part, `app.federation.rounds` says."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.dependencies import Member, Read, Router, Viewer, Write, database, settings, storage
from app.erasure import storing
from app.federation import closing, opening, populations, repository, rounds, updates
from app.federation.incoming import MEDIA_TYPE, Received, checked, most_bytes, receive
from app.federation.jobs import make_job, ring_after_commit, shown
from app.federation.schemas import (
    CohortShown,
    PopulationShown,
    PopulationWanted,
    RoundShown,
    RoundWanted,
    UpdateShown,
    population_json,
    round_json,
)
from app.idempotency import Idempotent
from app.identity import Identity
from app.ids import new_id
from app.incoming import landing
from app.jobs.schemas import JobShown
from app.paging import Page, paged
from app.rounds.models import FederationRound
from app.schemas import ListOf
from app.unfit import checked as sound

router = Router(tags=["federation"])
PopulationId = Annotated[str, InPath(max_length=64, description="Id of a population.")]
RoundId = Annotated[str, InPath(max_length=64, description="Id of a round.")]
Client = Annotated[
    str,
    InPath(
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]*$",
        description="The client's name, the same in each round.",
    ),
]
BYTES: dict[str, Any] = {
    "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
AGAIN: dict[int | str, dict[str, Any]] = {
    200: {"model": UpdateShown, "description": "This very update was taken before."}
}


@router.post("/v1/populations", status_code=201, response_model=PopulationShown, summary="Make a population")
def create_population(
    request: Request, identity: Member, session: Write, once: Idempotent, body: PopulationWanted
) -> Response:
    """A federation with its budget, fixed for its life."""
    wanted = sound(body, populations.faults_of)
    if first := once.begin(session, identity.tenant):
        return first
    made = populations.add_population(session, identity, wanted)
    headers = {"Location": f"/v1/populations/{made.id}"}
    return once.finish(session, identity.tenant, answer(request, _population(session, made), 201, headers))


@router.get("/v1/populations", response_model=ListOf[PopulationShown], summary="List populations")
def page(request: Request, identity: Viewer, session: Read, asked: Page) -> Response:
    """The caller's populations, each with what is left of its budget."""
    rows = repository.populations(session, identity.tenant, asked)
    return answer(request, paged(rows, asked, partial(_population, session)))


@router.get("/v1/populations/{population_id}", response_model=PopulationShown, summary="Look at a population")
def find_population(request: Request, identity: Viewer, session: Read, population_id: PopulationId) -> Response:
    """One population."""
    return answer(request, _population(session, populations.find_population(session, identity.tenant, population_id)))


def _population(session: Any, population: Any) -> dict[str, Any]:
    account, spent, left = populations.account_of(session, population)
    return population_json(population, {"epsilon": account.epsilon, "delta": account.delta}, spent, left)


@router.post("/v1/rounds", status_code=201, response_model=RoundShown, summary="Open a round")
def create_round(request: Request, identity: Member, once: Idempotent, body: RoundWanted) -> Response:
    """Its numbers are public and fixed now; 409 where what is left of the budget does not do for its release."""
    with database(request).reading() as session:
        if first := once.replay(session, identity.tenant):
            return first
        seen = opening.look(session, identity.tenant, body, storage(request), settings(request).max_upload_bytes)
    ready = opening.ready(seen)
    with database(request).reading() as session:
        rounds.warm(session, identity, ready)
    with database(request).session() as session:
        if first := once.begin(session, identity.tenant):
            return first
        one = rounds.open_round(session, identity, ready)
        shown_now = _round(session, identity, one)
        headers = {"Location": f"/v1/rounds/{one.id}"}
        return once.finish(session, identity.tenant, answer(request, shown_now, 201, headers))


@router.get("/v1/rounds/{round_id}", response_model=RoundShown, summary="Look at a round")
def find_round(request: Request, identity: Viewer, session: Read, round_id: RoundId) -> Response:
    """One round; once it is closed, `job` names the job whose artifact `aggregate` is its result."""
    return answer(request, _round(session, identity, rounds.find_round(session, identity.tenant, round_id)))


def _round(session: Any, identity: Identity, one: FederationRound) -> dict[str, Any]:
    population = populations.find_population(session, identity.tenant, one.population_id)
    return round_json(one, rounds.epsilon_of(one), rounds.warnings_of(one, population.clients))


@router.get(
    "/v1/rounds/{round_id}/cohort/{client}", response_model=CohortShown, summary="Ask whether a client was drawn"
)
def cohort(request: Request, identity: Member, session: Read, round_id: RoundId, client: Client) -> Response:
    """Each client is drawn by itself; 409 once the round is closed.

    Any member of the tenant may ask for any client, as it may send for any. What sampling saves of epsilon holds
    against those alone who cannot ask: whoever knows the draw learns as much of a drawn client as from a round without
    sampling. So a member's key is for who is trusted with all draws; sites that are not send through such a one.
    """
    one = rounds.find_round(session, identity.tenant, round_id)
    told = {"object": "cohort", "round": one.id, "client": client, "drawn": updates.drawn(one, client)}
    return answer(request, told)


@router.put(
    "/v1/rounds/{round_id}/updates/{client}",
    status_code=201,
    response_model=UpdateShown,
    responses=AGAIN,
    summary="Send a client's update",
    openapi_extra=BYTES,
)
async def put_update(request: Request, identity: Member, round_id: RoundId, client: Client) -> Response:
    """A safetensors file: one a client. The same again is 200, another one 409, a late one 409, a wrong one 422."""
    one = await run_in_threadpool(_open_round, request, identity, round_id, client)
    with landing(settings(request).data_dir) as folder:
        file = folder / "update"
        received = await receive(request, file, most_bytes(one.tensors, settings(request).max_upload_bytes))
        return await run_in_threadpool(_take, request, identity, one, client, file, received)


def _open_round(request: Request, identity: Identity, round_id: str, client: str) -> FederationRound:
    with database(request).reading() as session:
        one = rounds.find_round(session, identity.tenant, round_id)
        updates.refuse_late(one, client)
        return one


def _take(
    request: Request, identity: Identity, one: FederationRound, client: str, file: Path, received: Received
) -> Response:
    told: dict[str, Any] = {"object": "update", "round": one.id, "client": client}
    told |= {"sha256": received.sha256, "size_bytes": received.size_bytes}
    with database(request).reading() as session:
        if not updates.is_new(session, one, client, received.sha256):
            return answer(request, told)
    layout = checked(file, one.tensors)
    owner = new_id("upd")
    with storing(database(request), storage(request), owner) as store:
        stored = store(file)
        with database(request).session() as session:
            new = updates.add_update(session, identity, one.id, client, owner, received, stored, layout)
    return answer(request, told, 201 if new else 200)


@router.post("/v1/rounds/{round_id}/close", status_code=202, response_model=JobShown, summary="Close a round")
def close(request: Request, identity: Member, session: Write, once: Idempotent, round_id: RoundId) -> Response:
    """Makes the job that aggregates the updates; 409 where too few clients sent one, or the budget does not reach.

    Whether the clients were enough is all that is told of their number, and it is told without noise.
    """
    rounds.find_round(session, identity.tenant, round_id)
    if first := once.begin(session, identity.tenant):
        return first
    job = closing.close(session, identity, round_id, partial(make_job, settings(request)))
    ring_after_commit(request, session)
    return once.finish(session, identity.tenant, shown(request, session, identity, job))
