"""What people have said so far of the arms of an experiment. Knows no request."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy.orm import Session

from app.experiments import repository
from app.experiments.judgement import Vote, agreement, strengths_by_arm
from app.experiments.service import Seen
from engine.evaluate import rounded


def opinions(session: Session, seen: Sequence[Seen]) -> dict[str, dict[str, Any] | None]:
    """By experiment: items, ballots, raters, strengths of the arms and alpha; None where people are not asked."""
    asked = [one for one in seen if one.experiment.human_items is not None]
    ids = [one.experiment.id for one in asked]
    items, cast = repository.count_items(session, ids), repository.votes(session, ids)
    found: dict[str, dict[str, Any] | None] = {one.experiment.id: None for one in seen}
    for one in asked:
        ballots = cast.get(one.experiment.id, [])
        found[one.experiment.id] = {
            "items": items.get(one.experiment.id, 0),
            "ballots": len(ballots),
            "raters": len({rater for rater, _ in ballots}),
            **_figures(tuple(vote for _, vote in ballots), tuple(one.names)),
        }
    return found


@lru_cache(maxsize=256)
def _figures(votes: tuple[Vote, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """Worked out anew with each further ballot, and not with each look."""
    if not votes:
        return {"strengths": {}, "alpha": None}
    alpha = agreement(votes)
    return {
        "strengths": {
            names[arm]: {"value": rounded(one.value), "ci95": [rounded(one.low), rounded(one.high)]}
            for arm, one in strengths_by_arm(votes).items()
        },
        "alpha": None if alpha is None else rounded(alpha),
    }
