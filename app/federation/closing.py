"""The end of a round: its updates become the files of one job, and what the job will spend is reserved.

All in one transaction. Knows no request, and of jobs only that somebody makes them.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.errors import Conflict
from app.federation import repository
from app.federation.populations import find_population
from app.federation.rounds import find_round, spending_of
from app.identity import Identity
from app.privacy import repository as ledger
from app.privacy import service as privacy
from app.rounds.models import CLOSED, OPEN, FederationRound, Population

MakeJob = Callable[[Session, Identity, Mapping[str, Any], Mapping[str, str]], str]
"""Makes the job of a round from its spec and its files by name; gives the job's id."""


def close(session: Session, identity: Identity, round_id: str, make_job: MakeJob) -> str:
    """Close a round and make its job; the job's id.

    Raises:
        Conflict: it is closed, or too few clients have sent an update, or the budget does not reach.
    """
    ledger.lock(session, [identity.tenant])
    one = find_round(session, identity.tenant, round_id, hold=True)
    population = find_population(session, identity.tenant, one.population_id)
    if one.state != OPEN:
        raise Conflict("the round is closed already", code="round_closed", remedy=f"see /v1/jobs/{one.job_id}")
    if repository.count(session, one.id) < population.min_clients:
        raise Conflict(
            f"fewer than {population.min_clients} clients have sent an update",
            code="too_few_clients",
            remedy="wait for more of them",
        )
    wanted = spending_of(one, population)
    privacy.check(session, identity.tenant, population.id, wanted, "", "round")
    keys = repository.take_updates(session, one.id)
    # By content, so that the sum has one order whoever came first.
    files = {f"updates/{key.rpartition('/')[2]}-{number:06d}": key for number, key in enumerate(sorted(keys))}
    if one.storage_key is not None:
        files["base"] = one.storage_key
    job_id = make_job(session, identity, spec_of(one, population), files)
    privacy.reserve(session, identity.tenant, population.id, job_id, wanted)
    one.state, one.job_id, one.secret, one.storage_key = CLOSED, job_id, None, None
    one.closed_at = datetime.now(UTC)
    session.flush()
    audit(session, identity, "round.close", one.id, {"job": job_id})
    return job_id


def spec_of(one: FederationRound, population: Population) -> dict[str, Any]:
    """The spec of a round's job: public numbers alone."""
    return {
        "kind": "aggregate",
        "population": population.id,
        "round": one.id,
        "base": one.base,
        "format": one.format,
        "clip_norm": one.clip_norm,
        "noise_multiplier": one.noise_multiplier,
        "delta": one.delta,
        "expected_clients": one.expected_clients,
        "min_clients": population.min_clients,
        "sampling_rate": one.sampling_rate,
        "tensors": one.tensors,
    }
