"""The rater's page: a link whose fragment is a key of its own opens one experiment's ballots, and nothing else.

The key comes by POST, never in an address, and a session that is bound to this page's path takes its place. What is
shown is what `/v1/experiments/{id}/ballots/next` answers with, which tells nothing of the arms.
"""

from typing import Annotated, Any, get_args

import orjson
from fastapi import Form, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard import guard, sessions
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dependencies import database, settings
from app.errors import Conflict, Invalid, RateLimited
from app.experiments import ballot_endpoints as ballots_api
from app.experiments import repository
from app.experiments.ballots import Choice
from app.experiments.models import ExperimentRater
from app.idempotency import UNCLAIMED
from app.identity import Identity, Keys, Rate
from engine.errors import Fault

router = PanelRouter()
ExperimentId = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_]+$")]
TWICE = "twice"
_QUESTIONS = {
    ("text", "label"): "Which label fits this text better?",
    ("picture", "label"): "Which label fits this picture better?",
    ("picture", "text"): "Which text fits this picture better?",
    ("text", "text"): "Which answer is better?",
}


@router.get("/rate/{experiment_id}")
def page(request: Request, experiment_id: ExperimentId, told: Annotated[str, Query(max_length=10)] = "") -> Response:
    """The next ballot of whoever has opened the link; the same one however often it is asked for."""
    found = _rater(request, experiment_id)
    if found is None:
        return _page(request, experiment_id, title="Your ballots")
    identity, rater = found
    try:
        answer = ballots_api.following(request, identity, experiment_id, None)
    except Conflict:
        return _page(request, experiment_id, rater=rater.name, waiting=True)
    if answer.status_code == 204:
        with database(request).reading() as session:
            judged = len(repository.cast_by(session, experiment_id, rater.name))
        return _page(request, experiment_id, rater=rater.name, judged=judged, told=told == TWICE)
    ballot: dict[str, Any] = orjson.loads(answer.body)
    question = _QUESTIONS.get((ballot["item"]["kind"], ballot["left"]["kind"]), "Which answer is better?")
    return _page(request, experiment_id, title=question, ballot=ballot, rater=rater.name, told=told == TWICE)


@router.get("/rate/{experiment_id}/session")
@router.get("/rate/{experiment_id}/ballots")
def back(experiment_id: ExperimentId) -> Response:
    """Whoever loads the address of a form is led to the page."""
    return to(f"/rate/{experiment_id}")


@router.post("/rate/{experiment_id}/session")
def arrive(request: Request, experiment_id: ExperimentId, key: Annotated[str, Form(max_length=500)] = "") -> Response:
    """Open a session for the holder of a rater's key of this experiment; any other key opens nothing here."""
    _within_rate(request, f"rater of {request.client.host if request.client else 'nobody'}")
    keys: Keys = request.app.state.keys
    identity = keys.look_up(keys.digest(key.strip()))
    if identity is None or _rater_of(request, identity, experiment_id) is None:
        return _page(request, experiment_id, title="Your ballots", refused=True, status=401)
    hours = settings(request).session_hours
    with database(request).session() as session:
        token = sessions.begin(session, identity, hours)
    response = to(f"/rate/{experiment_id}")
    guard.give_cookie(request, response, token, hours, guard.rater_cookie(request), f"/rate/{experiment_id}")
    return response


@router.post("/rate/{experiment_id}/ballots")
def cast(
    request: Request,
    experiment_id: ExperimentId,
    ballot: Annotated[str, Form(max_length=400)] = "",
    choice: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """Cast a ballot and go on to the next; a second time changes nothing, and is told kindly."""
    found = _rater(request, experiment_id)
    if found is None:
        return to(f"/rate/{experiment_id}")
    if not ballot or choice not in get_args(Choice):
        fault = Fault("/choice", "choice", "the form does not say what was chosen", "go back, and choose anew")
        raise Invalid(fault.detail, faults=[fault])
    said = ballots_api.BallotCast.model_validate({"ballot": ballot, "choice": choice})
    try:
        with database(request).session() as session:
            ballots_api.cast(request, found[0], session, UNCLAIMED, experiment_id, said)
    except Conflict:
        return to(f"/rate/{experiment_id}?told={TWICE}")
    return to(f"/rate/{experiment_id}")


def _rater(request: Request, experiment_id: str) -> tuple[Identity, ExperimentRater] | None:
    """Who judges, by the session of this page."""
    token = request.cookies.get(guard.rater_cookie(request))
    visitor = sessions.visitor(database(request), token) if token else None
    if visitor is None:
        return None
    _within_rate(request, visitor.identity.key)
    rater = _rater_of(request, visitor.identity, experiment_id)
    return None if rater is None else (visitor.identity, rater)


def _rater_of(request: Request, identity: Identity, experiment_id: str) -> ExperimentRater | None:
    """Whom the key stands for, if it is a rater's of this experiment."""
    with database(request).reading() as session:
        rater = repository.rater_by_key(session, identity.key)
    return rater if rater is not None and rater.experiment_id == experiment_id else None


def _within_rate(request: Request, who: str) -> None:
    rate: Rate = request.app.state.rate
    if rate.take(who) > 0:
        raise RateLimited("that was too fast", remedy="wait a second, then load the page again")


def _page(request: Request, experiment_id: str, *, status: int = 200, **values: Any) -> Response:
    plain = {"ballot": None, "rater": None, "told": False, "waiting": False, "refused": False, "judged": 0}
    known = plain | {"title": "Thank you", "experiment_id": experiment_id} | values
    return render(request, "rate.html", status=status, **known)
