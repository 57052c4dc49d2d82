"""Who judges: raters by a key of their own, which fetches and casts the ballots of one experiment and nothing else.

A key of a member may ask and cast for any rater by name: whoever holds it could make such keys anyway. Knows no
request.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.auth import repository as keys
from app.auth.audit import audit
from app.auth.bootstrap import add_key, new_secret
from app.errors import Conflict, Forbidden, Invalid, NotFound
from app.experiments import repository
from app.experiments.models import ExperimentRater
from app.identity import Identity
from engine.errors import Fault


def refuse_others(session: Session, identity: Identity, experiment_id: str) -> ExperimentRater | None:
    """The rater that a key stands for; None where it is a key of the tenant.

    Raises:
        NotFound: the key judges in another experiment, of which this one knows nothing.
    """
    if identity.role != "rater":
        return None
    rater = repository.rater_by_key(session, identity.key)
    if rater is None or rater.experiment_id != experiment_id:
        raise NotFound(f"no experiment {experiment_id}", remedy="open the link that came with the key")
    return rater


def rater_asked_for(rater: ExperimentRater | None, name: str | None) -> str:
    """Whose ballots are asked for: those of the key's own rater, or of whom a key of the tenant names.

    Raises:
        Forbidden: a rater's key names somebody else.
        Invalid: nobody is named.
    """
    if rater is not None:
        if name not in (None, rater.name):
            raise Forbidden("a rater's key judges by its own name", remedy=f"send ?rater={rater.name}, or leave it out")
        return rater.name
    if name is None:
        detail = "the query does not say who judges"
        raise Invalid(detail, faults=[Fault("", "missing", detail, "send ?rater=NAME")])
    return name


def add(session: Session, identity: Identity, experiment_id: str, name: str) -> tuple[ExperimentRater, str]:
    """Make a rater's key and its secret, which is not kept.

    A name whose key was revoked gets a new one, and keeps its ballots.

    Raises:
        Conflict: the name has a key.
    """
    secret = new_secret()
    rater = repository.rater_by_name(session, experiment_id, name)
    if rater is not None and keys.find(session, rater.key_id, identity.tenant) is not None:
        raise Conflict(
            f"{name} has a key already",
            code="second_rater",
            remedy=f"choose another name, or let an admin revoke it first: DELETE /v1/keys/{rater.key_id}",
        )
    key = add_key(session, name, "rater", identity.tenant, secret, made_by=identity.key)
    now = datetime.now(UTC)
    if rater is None:
        rater = ExperimentRater(experiment_id=experiment_id, name=name, key_id=key.id, created_at=now)
        session.add(rater)
    rater.key_id, rater.created_at = key.id, now
    session.flush()
    audit(session, identity, "experiment.rater", experiment_id, {"key": key.id, "name": name})
    return rater, secret


def cast_counts(session: Session, raters: Sequence[ExperimentRater]) -> dict[str, int]:
    """How many ballots each has cast, by name; the raters are of one experiment."""
    return repository.counts_by_rater(session, raters[0].experiment_id) if raters else {}
