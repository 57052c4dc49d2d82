"""Experiments: their list, and the page of one. Figures are those that `/v1/experiments/{id}` answers with."""

from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import Form, Path
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard import experiment_reading as reading
from app.dashboard import guard
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sessions import Visitor
from app.dashboard.visitors import Reader, Writer
from app.dependencies import Read, database
from app.errors import Conflict, NotFound
from app.experiments import ballot_endpoints as ballots_api
from app.experiments import endpoints as experiments_api
from app.experiments import repository, service
from app.experiments.ballot_endpoints import RaterCreate
from app.idempotency import UNCLAIMED
from app.paging import After, Asked
from engine.errors import Fault
from engine.faults import from_validation

router = PanelRouter()
ExperimentId = Annotated[str, Path(max_length=64)]
ROWS, MOST_RATERS = 50, 200
PARTS = {"runs": "experiment_runs.html", "arms": "experiment_arms.html"}
"""What a script of the page may ask for anew, and the template of each."""


@router.get("/experiments")
def page(
    request: Request,
    visitor: Reader,
    session: Read,
    after: After = None,
) -> Response:
    """One page of the tenant's experiments."""
    rows = list(repository.page(session, visitor.identity.tenant, Asked(ROWS, after, "desc")))
    seen = service.look_at_all(session, rows[:ROWS])
    return render(
        request,
        "experiments.html",
        experiments=[(seen[row.id], reading.whole(reading.runs(seen[row.id]))) for row in rows[:ROWS]],
        next=f"/experiments?after={rows[ROWS - 1].id}" if len(rows) > ROWS else None,
        first="/experiments" if after else None,
    )


@router.get("/experiments/{experiment_id}")
def one(request: Request, visitor: Reader, experiment_id: ExperimentId) -> Response:
    """All that is known of an experiment."""
    return render(request, "experiment.html", **shown(request, visitor, experiment_id))


@router.get("/experiments/{experiment_id}/parts/{part}")
def again(request: Request, visitor: Reader, experiment_id: ExperimentId, part: str) -> Response:
    """A part of the page, as it stands now."""
    if part not in PARTS:
        raise NotFound(f"no part {part[:40]}", remedy=f"parts are {', '.join(PARTS)}")
    values = shown(request, visitor, experiment_id)
    answer = render(request, PARTS[part], **values)
    answer.headers["X-Experiment-State"] = values["experiment"]["state"]
    return answer


@router.post("/experiments/{experiment_id}/cancel")
def cancel(request: Request, visitor: Writer, experiment_id: ExperimentId) -> Response:
    """Cancel all of its jobs that have not ended."""
    experiments_api.cancel(request, visitor.identity, experiment_id)
    return to(f"/experiments/{experiment_id}")


@router.get("/experiments/{experiment_id}/raters")
def people(experiment_id: ExperimentId) -> Response:
    """Whoever loads the address of the form is led to the page."""
    return to(f"/experiments/{quote(experiment_id)}#people")


@router.post("/experiments/{experiment_id}/raters")
def invite(
    request: Request, visitor: Writer, experiment_id: ExperimentId, name: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """Make a rater's link. It stands in this answer and nowhere else: its key is in the fragment, which is not sent."""
    refused: Fault | None = None
    made, status = None, 201
    try:
        wanted = RaterCreate.model_validate({"name": name.strip()})
        with database(request).session() as session:
            answer = ballots_api.add_rater(request, visitor.identity, session, UNCLAIMED, experiment_id, wanted)
        link = f"{guard.origin(request)}/rate/{experiment_id}#{orjson.loads(answer.body)['secret']}"
        made = {"name": wanted.name, "link": link}
    except ValidationError as error:
        status, refused = 422, from_validation(error, RaterCreate)[0]
    except Conflict as error:
        status, refused = error.status, Fault("", error.code, error.detail, error.remedy)
    values = shown(request, visitor, experiment_id) | {
        "made": made,
        "refused": refused,
        "typed": name if refused else "",
    }
    return render(request, "experiment.html", status=status, **values)


def shown(request: Request, visitor: Visitor, experiment_id: str) -> dict[str, Any]:
    """What the templates of an experiment read."""
    answer = experiments_api.find(request, visitor.identity, experiment_id)
    experiment: dict[str, Any] = orjson.loads(answer.body)
    with database(request).reading() as session:
        seen = service.look(session, visitor.identity.tenant, experiment_id)
        raters = _raters(request, visitor, session, experiment_id) if experiment["human"] else None
    arms, human = reading.runs(seen), experiment["human"]
    strengths = human["strengths"] if human else {}
    return {
        "experiment": experiment,
        "runs": arms,
        "whole": reading.whole(arms),
        "asked": seen.experiment.human_items,
        "raters": raters,
        "made": None,
        "typed": "",
        "refused": None,
        "strengths": strengths,
        "agreement": reading.agreement(human["alpha"]) if human else "",
        "score_scale": reading.scale_of((arm["score"] for arm in experiment["arms"]), key="mean"),
        "strength_scale": reading.scale_of(strengths.values(), key="value", zero=True),
        "difference_scale": reading.scale_of(experiment["comparisons"], key="difference", zero=True),
        "measured": any(arm["score"] for arm in experiment["arms"]),
        "charts": reading.charts(experiment),
        "height": reading.HEIGHT,
        "texts": [reading.indented(one) for one in (experiment["baseline"], *experiment["treatments"])],
    }


def _raters(request: Request, visitor: Visitor, session: Session, experiment_id: str) -> list[dict[str, Any]]:
    answer = ballots_api.page(request, visitor.identity, session, experiment_id, Asked(MOST_RATERS, None, "asc"))
    found: list[dict[str, Any]] = orjson.loads(answer.body)["data"]
    return found
