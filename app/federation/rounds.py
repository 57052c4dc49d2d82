"""The rules of rounds: public numbers fixed when one opens, and a job when it closes. Knows no request.

What is told of a round does not depend on who took part, how many, or what they sent, but for what its rules need:
whoever may speak for a client learns whether it was drawn and whether it has sent; a close tells whether `min_clients`
have; and where nobody named the tensors, those of the first update are the round's.
"""

import math
import secrets
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.auth.audit import audit
from app.erasure import hold
from app.errors import Conflict, Invalid, NotFound
from app.federation import repository
from app.federation.opening import Ready
from app.federation.populations import find_population
from app.federation.schemas import RoundCreate, few_clients
from app.identity import Identity
from app.ids import new_id
from app.privacy import repository as ledger
from app.privacy import service as privacy
from app.privacy.composition import Spending
from app.rounds.models import OPEN, FederationRound, Population
from engine.accounting import PrivacyEvent, epsilon
from engine.errors import Fault
from engine.tensorfile import layout_of

LOUD = 10.0
"""How many times the noise may outweigh the longest update before a warning says so."""


def find_round(session: Session, tenant: str, round_id: str, *, hold: bool = False) -> FederationRound:
    """The tenant's round, or NotFound."""
    found = repository.round_of(session, tenant, round_id, hold=hold)
    if found is None:
        raise NotFound(f"no round {round_id}", remedy="POST /v1/rounds opens one")
    return found


def open_round(session: Session, identity: Identity, ready: Ready) -> FederationRound:
    """Open a round of a population.

    Raises:
        NotFound: the population is not there.
        Conflict: the divisor differs from earlier rounds', or what is left of the budget does not do.
        Invalid: the base has gone meanwhile.
    """
    wanted, base = ready.wanted, ready.base
    ledger.lock(session, [identity.tenant])
    population = find_population(session, identity.tenant, wanted.population, hold=True)
    _fix_divisor(population, wanted)
    one = FederationRound(
        id=new_id("rnd"),
        tenant=identity.tenant,
        population_id=population.id,
        base=wanted.base,
        format=wanted.format,
        clip_norm=wanted.clip_norm,
        noise_multiplier=ready.sigma,
        delta=ready.delta,
        expected_clients=wanted.expected_clients,
        sampling_rate=wanted.sampling_rate,
        secret=secrets.token_hex(32),
        tensors=base.tensors,
        state=OPEN,
        created_at=datetime.now(UTC),
    )
    privacy.check(session, identity.tenant, population.id, spending_of(one, population), "/noise_multiplier", "round")
    if base.artifact is not None and wanted.format == "weights":
        hold(session, base.artifact.storage_key)
        if artifacts.find(session, identity.tenant, base.artifact.id) is None:
            raise Invalid(
                "the base was erased just now",
                faults=[Fault("/base", "unknown_artifact", "it is gone", "name another")],
            )
        one.storage_key = base.artifact.storage_key
    session.add(one)
    session.flush()
    audit(session, identity, "round.open", one.id, {"population": population.id})
    return one


def _fix_divisor(population: Population, wanted: RoundCreate) -> None:
    if population.expected_clients is None:
        population.expected_clients = wanted.expected_clients
    elif population.expected_clients != wanted.expected_clients:
        raise Conflict(
            f"the rounds of this population are divided by {population.expected_clients}",
            code="fixed_for_life",
            remedy=f"send expected_clients {population.expected_clients}, or make another population",
        )


def spending_of(one: FederationRound, population: Population) -> Spending:
    """What a round spends: one release."""
    return Spending(population.unit, population.clients, one.delta, (event_of(one),))


def event_of(one: FederationRound) -> PrivacyEvent:
    """The release of a round."""
    return _release(one.sampling_rate, one.noise_multiplier)


def _release(rate: float, sigma: float) -> PrivacyEvent:
    return PrivacyEvent(q=rate, sigma=sigma, sampling="poisson" if rate < 1 else "none")


def warm(session: Session, identity: Identity, ready: Ready) -> None:
    """Do the accountant's sums where nobody waits for a lock; it remembers them. Raises what `open_round` raises."""
    population = find_population(session, identity.tenant, ready.wanted.population)
    events = (_release(ready.wanted.sampling_rate, ready.sigma),)
    epsilon(events, ready.delta)
    planned = Spending(population.unit, population.clients, ready.delta, events)
    privacy.check(session, identity.tenant, population.id, planned, "/noise_multiplier", "round")


def epsilon_of(one: FederationRound) -> float:
    """What a round's release spends by itself."""
    return epsilon([event_of(one)], one.delta)


def warnings_of(one: FederationRound, clients: int) -> list[str]:
    """What is known beforehand of so much noise on so few clients."""
    found = few_clients(clients)
    if one.tensors is not None:
        loud = one.noise_multiplier * math.sqrt(layout_of(one.tensors).count) / one.expected_clients
        if loud > LOUD:
            found.append(
                f"the noise of this round is {loud:.0f} times as long as the longest update it can carry:"
                " more clients, fewer values or less noise would let it say more"
            )
    return found
