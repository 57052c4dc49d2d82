"""What a round is opened with, and everything that is wrong with it, told at once. Knows no request.

What the database and the store have to say comes first (`look`); the noise is found afterwards (`ready`), since that
may take seconds, for which no transaction should wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.artifacts.models import Artifact
from app.errors import NotFound
from app.federation import repository
from app.federation.populations import delta_fault
from app.federation.schemas import RoundCreate, relation_faults
from app.incoming import at_hand
from app.privacy import repository as ledger
from app.rounds.models import Population
from app.storage import Storage
from app.unfit import Unfit, refusal
from engine.accounting import noise_multiplier
from engine.aggregate import weights_in
from engine.errors import Fault
from engine.tensorfile import Layout, Unreadable, layout_of, read_layout


@dataclass(frozen=True)
class Base:
    """What a round starts from: an artifact and its tensors; or tensors alone, or nothing that is known yet."""

    artifact: Artifact | None
    tensors: dict[str, Any] | None


@dataclass(frozen=True)
class Ready:
    """A round that may be opened, as far as anybody can tell before its transaction."""

    wanted: RoundCreate
    base: Base
    sigma: float
    delta: float


@dataclass
class Looked:
    """What a look told: parts of the round, each None where it has a fault."""

    body: RoundCreate | Unfit[RoundCreate]
    wanted: RoundCreate | None
    population: Population | None = None
    base: Base | None = None
    delta: float | None = None
    faults: list[Fault] = field(default_factory=list)


def look(
    session: Session, tenant: str, body: RoundCreate | Unfit[RoundCreate], storage: Storage, max_bytes: int
) -> Looked:
    """Look at what a round names; an update of its tensors has at least one value and at most `max_bytes`."""
    seen = Looked(body, body.sound if isinstance(body, Unfit) else body)
    wanted = seen.wanted
    if wanted is None:
        return seen
    seen.population = repository.population(session, tenant, wanted.population)
    if seen.population is None:
        detail = f"no population {wanted.population}"
        seen.faults.append(Fault("/population", NotFound.code, detail, "GET /v1/populations lists yours"))
    else:
        seen.delta = _delta(session, seen.population, wanted, seen.faults)
    seen.base = _base(session, tenant, wanted, storage, max_bytes, seen.faults)
    return seen


def ready(seen: Looked) -> Ready:
    """The round with its noise, which may take seconds to find.

    Raises:
        NotFound: the population is not there, and nothing else is wrong.
        Invalid: with every fault.
    """
    sigma = None
    if seen.wanted is not None and seen.delta is not None:
        sigma = _noise(seen.wanted, seen.delta, seen.faults)
    body = seen.body
    if isinstance(body, Unfit):
        sent = body.body if isinstance(body.body, Mapping) else None
        faults = [*body.faults, *(relation_faults(sent) if sent is not None else ()), *body.told(seen.faults)]
    else:
        faults = [*relation_faults(body.model_dump()), *seen.faults]
    if [fault.code for fault in faults] == [NotFound.code]:
        raise NotFound(faults[0].detail, faults=faults)
    if faults or seen.wanted is None or seen.base is None or seen.delta is None or sigma is None:
        raise refusal(faults)
    return Ready(seen.wanted, seen.base, sigma, seen.delta)


def _delta(session: Session, population: Population, wanted: RoundCreate, faults: list[Fault]) -> float | None:
    """The delta that a round is told at: its own, else that of its population's budget."""
    if wanted.delta is None:
        account = ledger.account(session, population.tenant, population.id)
        assert account is not None
        return account.delta
    if (fault := delta_fault(wanted.delta, population.clients, "/delta")) is not None:
        faults.append(fault)
        return None
    return wanted.delta


def _noise(wanted: RoundCreate, delta: float, faults: list[Fault]) -> float | None:
    """The noise multiplier of a round: as given, or what its epsilon needs."""
    if wanted.noise_multiplier is not None or wanted.epsilon is None:
        return wanted.noise_multiplier
    rate = wanted.sampling_rate
    try:
        return noise_multiplier(wanted.epsilon, delta, rate, 1, "poisson" if rate < 1 else "none")
    except ValueError as error:
        faults.append(Fault("/epsilon", "no_noise", str(error), "send a larger epsilon"))
        return None


def _base(
    session: Session, tenant: str, wanted: RoundCreate, storage: Storage, max_bytes: int, faults: list[Fault]
) -> Base | None:
    """What a round starts from."""
    if wanted.base is None:
        if wanted.tensors is None:
            return Base(None, None)
        layout = layout_of({name: one.model_dump(mode="json") for name, one in wanted.tensors.items()})
        return Base(None, layout.shapes()) if _sendable(layout, max_bytes, "/tensors", faults) else None
    artifact = artifacts.find(session, tenant, wanted.base)
    if artifact is None:
        detail = f"there is no artifact {wanted.base[:80]!r}"
        faults.append(Fault("/base", "unknown_artifact", detail, "GET /v1/jobs/{id}/artifacts lists yours"))
        return None
    try:
        with at_hand(storage, artifact.storage_key, artifact.filename) as path:
            layout = read_layout(path, *weights_in(path))
    except (Unreadable, FileNotFoundError) as error:
        detail = f"{artifact.filename} holds no tensors that a round could start from: {error}"
        remedy = "name a checkpoint, or the aggregate of another round"
        faults.append(Fault("/base", "wrong_artifact", detail, remedy))
        return None
    return Base(artifact, layout.shapes()) if _sendable(layout, max_bytes, "/base", faults) else None


def _sendable(layout: Layout, max_bytes: int, pointer: str, faults: list[Fault]) -> bool:
    """Whether an update of these tensors can be sent."""
    if 1 <= layout.size <= max_bytes:
        return True
    detail = f"an update of these tensors would have {layout.size} bytes; it may have 1 to {max_bytes}"
    faults.append(Fault(pointer, "wrong_size", detail, "name tensors within these bounds"))
    return False
