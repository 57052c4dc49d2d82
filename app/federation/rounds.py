"""The rules of rounds: public numbers fixed when one opens, and a job when it closes. Knows no request.

What is told of a round does not depend on who took part, how many, or what they sent, but for what its rules need:
whoever may speak for a client learns whether it was drawn and whether it has sent; a close tells whether `min_clients`
have; and where nobody named the tensors, those of the first update are the round's.
"""

import math
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.artifacts.models import Artifact
from app.auth.audit import audit
from app.erasure import hold
from app.errors import Conflict, Invalid, NotFound
from app.federation import repository
from app.federation.populations import delta_fault, find_population
from app.federation.schemas import RoundCreate, few_clients
from app.identity import Identity
from app.ids import new_id
from app.privacy import repository as ledger
from app.privacy import service as privacy
from app.privacy.composition import Spending
from app.rounds.models import OPEN, FederationRound, Population
from app.storage import Storage, at_hand
from engine.accounting import PrivacyEvent, epsilon, noise_multiplier
from engine.aggregate import weights_in
from engine.errors import Fault
from engine.tensorfile import Layout, Unreadable, layout_of, read_layout

LOUD = 10.0
"""How many times the noise may outweigh the longest update before a warning says so."""


@dataclass(frozen=True)
class Base:
    """What a round starts from: an artifact and its tensors; or tensors alone, or nothing that is known yet."""

    artifact: Artifact | None
    tensors: dict[str, Any] | None


def find_round(session: Session, tenant: str, round_id: str, *, hold: bool = False) -> FederationRound:
    """The tenant's round, or NotFound."""
    found = repository.round_of(session, tenant, round_id, hold=hold)
    if found is None:
        raise NotFound(f"no round {round_id}", remedy="POST /v1/rounds opens one")
    return found


def noise_of(wanted: RoundCreate, delta: float) -> float:
    """The noise multiplier of a round: as given, or what its epsilon needs. It may take seconds to find.

    Raises:
        Invalid: where no noise keeps within the epsilon.
    """
    if wanted.noise_multiplier is not None:
        return wanted.noise_multiplier
    assert wanted.epsilon is not None
    rate = wanted.sampling_rate
    try:
        return noise_multiplier(wanted.epsilon, delta, rate, 1, "poisson" if rate < 1 else "none")
    except ValueError as error:
        raise Invalid(
            str(error), faults=[Fault("/epsilon", "no_noise", str(error), "send a larger epsilon")]
        ) from error


def base_of(session: Session, tenant: str, wanted: RoundCreate, storage: Storage, max_bytes: int) -> Base:
    """What a round starts from; an update of its tensors has at least one value and at most `max_bytes`.

    Raises:
        Invalid: the base is none of the tenant's files with tensors, or nobody could send an update of the tensors.
    """
    if wanted.base is None:
        if wanted.tensors is None:
            return Base(None, None)
        layout = layout_of({name: one.model_dump(mode="json") for name, one in wanted.tensors.items()})
        return Base(None, _sendable(layout, max_bytes, "/tensors"))
    artifact = artifacts.find(session, tenant, wanted.base)
    if artifact is None:
        detail = f"there is no artifact {wanted.base[:80]!r}"
        raise Invalid(
            detail, faults=[Fault("/base", "unknown_artifact", detail, "GET /v1/jobs/{id}/artifacts lists yours")]
        )
    try:
        with at_hand(storage, artifact.storage_key, artifact.filename) as path:
            layout = read_layout(path, *weights_in(path))
    except (Unreadable, FileNotFoundError) as error:
        detail = f"{artifact.filename} holds no tensors that a round could start from: {error}"
        remedy = "name a checkpoint, or the aggregate of another round"
        raise Invalid(detail, faults=[Fault("/base", "wrong_artifact", detail, remedy)]) from error
    return Base(artifact, _sendable(layout, max_bytes, "/base"))


def _sendable(layout: Layout, max_bytes: int, pointer: str) -> dict[str, Any]:
    """Names, shapes and dtypes, if an update of them can be sent; raises Invalid."""
    if not 1 <= layout.size <= max_bytes:
        detail = f"an update of these tensors would have {layout.size} bytes; it may have 1 to {max_bytes}"
        raise Invalid(detail, faults=[Fault(pointer, "wrong_size", detail, "name tensors within these bounds")])
    return layout.shapes()


def open_round(
    session: Session, identity: Identity, wanted: RoundCreate, base: Base, sigma: float, delta: float
) -> FederationRound:
    """Open a round of a population.

    Raises:
        NotFound: the population is not there.
        Conflict: the divisor differs from earlier rounds', or what is left of the budget does not do.
        Invalid: the base has gone meanwhile.
    """
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
        noise_multiplier=sigma,
        delta=delta,
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


def delta_of(session: Session, tenant: str, wanted: RoundCreate) -> float:
    """The delta that a round is told at: its own, else that of its population's budget.

    Raises:
        NotFound: the population is not there.
        Invalid: it would let all of a client out.
    """
    population = find_population(session, tenant, wanted.population)
    if wanted.delta is not None:
        if (fault := delta_fault(wanted.delta, population.clients, "/delta")) is not None:
            raise Invalid(fault.detail, faults=[fault])
        return wanted.delta
    account = ledger.account(session, population.tenant, population.id)
    assert account is not None
    assert account.delta is not None
    return account.delta


def spending_of(one: FederationRound, population: Population) -> Spending:
    """What a round spends: one release."""
    return Spending(population.unit, population.clients, one.delta, (event_of(one),))


def event_of(one: FederationRound) -> PrivacyEvent:
    """The release of a round."""
    return _release(one.sampling_rate, one.noise_multiplier)


def _release(rate: float, sigma: float) -> PrivacyEvent:
    return PrivacyEvent(q=rate, sigma=sigma, sampling="poisson" if rate < 1 else "none")


def warm(session: Session, identity: Identity, wanted: RoundCreate, sigma: float, delta: float) -> None:
    """Do the accountant's sums where nobody waits for a lock; it remembers them. Raises what `open_round` raises."""
    population = find_population(session, identity.tenant, wanted.population)
    events = (_release(wanted.sampling_rate, sigma),)
    epsilon(events, delta)
    planned = Spending(population.unit, population.clients, delta, events)
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
