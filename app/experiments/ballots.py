"""The rules of ballots: who is asked about what next, in which order and with what on the left, and once only.

A ballot is a rater, an item and two arms. It is not stored before it is cast: its id names rater and item and proves by
a keyed hash which two arms are meant, without telling; and the sides are drawn by another, so that nobody who has not
the experiment's secret can tell them. Knows no request.
"""

import base64
import binascii
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Literal

from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.errors import Conflict, NotFound
from app.experiments import repository
from app.experiments.items import keyed
from app.experiments.judgement import BOTH, FIRST, NEITHER, SECOND
from app.experiments.models import Experiment, ExperimentBallot
from app.experiments.service import Seen
from app.identity import Identity

Choice = Literal["left", "right", "both", "neither"]
_PREFIX = "bal_"
_MAC_BYTES, _NUMBER_BYTES = 16, 2


@dataclass(frozen=True)
class Ballot:
    """One question to one rater; `first` is the lower number of the two arms."""

    rater: str
    item: int
    first: int
    second: int

    def keyed(self, secret: str, purpose: str) -> bytes:
        """A hash of it that only the experiment knows."""
        return keyed(secret, purpose, self.rater, self.item, self.first, self.second)

    def sides(self, secret: str) -> tuple[int, int]:
        """The arms on the left and on the right."""
        swapped = self.keyed(secret, "side")[0] & 1
        return (self.second, self.first) if swapped else (self.first, self.second)

    def token(self, secret: str) -> str:
        """Its id."""
        proof = self.keyed(secret, "ballot")[:_MAC_BYTES]
        told = self.item.to_bytes(_NUMBER_BYTES, "big") + proof + self.rater.encode()
        return _PREFIX + base64.urlsafe_b64encode(told).decode().rstrip("=")


def next_ballot(session: Session, seen: Seen, rater: str) -> dict[str, Any] | None:
    """What this rater is to judge next, as the rater sees it; None: nothing is left.

    Raises:
        Conflict: nobody is asked in this experiment, or not yet.
    """
    one = refuse_unasked(seen)
    left = _left_for(session, one, rater)
    if not left:
        return None
    ballot = min(left, key=lambda each: each.keyed(one.secret, "order"))
    item = repository.item(session, one.id, ballot.item)
    assert item is not None
    left_arm, right_arm = ballot.sides(one.secret)
    return {
        "object": "ballot",
        "ballot": ballot.token(one.secret),
        "item": item.shown,
        "left": item.answers[left_arm],
        "right": item.answers[right_arm],
        "remaining": len(left),
    }


def cast(session: Session, identity: Identity, seen: Seen, token: str, choice: Choice, rater: str | None) -> Ballot:
    """Put on record what a rater says.

    Args:
        token: the id of the ballot.
        choice: what was chosen.
        rater: who the caller may cast for; None: anybody.

    Raises:
        NotFound: no such ballot was given to this rater, or its item has been erased.
        Conflict: it was cast before.
    """
    one = refuse_unasked(seen)
    ballot = _ballot_of(session, one, token)
    if ballot is None or rater not in (None, ballot.rater):
        raise NotFound("no such ballot", remedy=f"GET /v1/experiments/{one.id}/ballots/next gives one")
    left_arm, _ = ballot.sides(one.secret)
    first_is_left = left_arm == ballot.first
    preferred = {"both": BOTH, "neither": NEITHER, "left": FIRST if first_is_left else SECOND}.get(
        choice, SECOND if first_is_left else FIRST
    )
    row = ExperimentBallot(
        experiment_id=one.id,
        rater=ballot.rater,
        item=ballot.item,
        first_arm=ballot.first,
        second_arm=ballot.second,
        preferred=preferred,
        cast_at=datetime.now(UTC),
    )
    if not repository.add_ballot(session, row):
        raise Conflict(
            "this ballot was cast before",
            code="cast_before",
            remedy=f"GET /v1/experiments/{one.id}/ballots/next gives the next one",
        )
    audit(session, identity, "ballot.cast", one.id, {"rater": ballot.rater})
    return ballot


def remaining(session: Session, seen: Seen, rater: str) -> int:
    """How many ballots a rater has left."""
    return len(_left_for(session, seen.experiment, rater))


def refuse_unjudged(seen: Seen) -> Experiment:
    """The experiment, if people are to judge it; raises Conflict."""
    if seen.experiment.human_items is None:
        raise Conflict(
            "people are not asked in this experiment",
            code="not_asked",
            remedy='submit one with `"human": {"items": 40}`',
        )
    return seen.experiment


def refuse_unasked(seen: Seen) -> Experiment:
    """The experiment, if people can be asked; raises Conflict."""
    one = refuse_unjudged(seen)
    if one.figures is None:
        raise Conflict(
            f"there is nothing to judge before all jobs have ended; the experiment is {seen.state}",
            code="nothing_to_judge",
            remedy="wait for its end" if seen.state == "running" else "submit another one",
        )
    return one


def ballots_on(item: int, answers: Sequence[Mapping[str, Any] | None], rater: str) -> Iterator[Ballot]:
    """Those of one item: the pairs of arms that say something different."""
    for first, second in combinations(range(len(answers)), 2):
        if None not in (answers[first], answers[second]) and answers[first] != answers[second]:
            yield Ballot(rater, item, first, second)


def _left_for(session: Session, one: Experiment, rater: str) -> list[Ballot]:
    cast_before = repository.cast_by(session, one.id, rater)
    return [
        ballot
        for number, answers in repository.answers(session, one.id)
        for ballot in ballots_on(number, answers, rater)
        if (ballot.item, ballot.first, ballot.second) not in cast_before
    ]


def _ballot_of(session: Session, one: Experiment, token: str) -> Ballot | None:
    """The ballot that an id names, if it was made here."""
    try:
        told = base64.urlsafe_b64decode(token.removeprefix(_PREFIX) + "==")
        rater = told[_NUMBER_BYTES + _MAC_BYTES :].decode()
    except (binascii.Error, ValueError):
        return None
    number, proof = int.from_bytes(told[:_NUMBER_BYTES], "big"), told[_NUMBER_BYTES : _NUMBER_BYTES + _MAC_BYTES]
    item = repository.item(session, one.id, number)
    for ballot in ballots_on(number, item.answers, rater) if item is not None and rater else ():
        if hmac.compare_digest(ballot.keyed(one.secret, "ballot")[:_MAC_BYTES], proof):
            return ballot
    return None
