"""The rules of populations: a federation is made once, with its budget, and fixed for its life. Knows no request."""

import math
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.errors import NotFound
from app.federation import repository
from app.federation.schemas import MIN_CLIENTS_FLOOR, PopulationCreate
from app.identity import Identity
from app.ids import new_id
from app.privacy import repository as ledger
from app.privacy.composition import left, total
from app.privacy.models import PrivacyAccount
from app.rounds.models import Population
from engine.accounting import best_order
from engine.errors import Fault


def add_population(session: Session, identity: Identity, wanted: PopulationCreate) -> Population:
    """Make a population with its account."""
    population = Population(
        id=new_id("pop"),
        tenant=identity.tenant,
        name=wanted.name,
        clients=wanted.clients,
        unit=wanted.unit,
        min_clients=wanted.min_clients,
        expected_clients=None,
        created_at=datetime.now(UTC),
    )
    account = PrivacyAccount(
        id=new_id("pac"),
        tenant=identity.tenant,
        subject=population.id,
        epsilon=wanted.budget.epsilon,
        delta=wanted.budget.delta,
        order=best_order(wanted.budget.epsilon, wanted.budget.delta),
        created_at=population.created_at,
    )
    session.add_all([population, account])
    session.flush()
    audit(session, identity, "population.create", population.id, {"clients": wanted.clients})
    return population


def faults_of(wanted: PopulationCreate) -> list[Fault]:
    """What is wrong with numbers that are sound by themselves."""
    faults = []
    if wanted.min_clients > wanted.clients:
        detail = f"a round of {wanted.min_clients} clients cannot come from {wanted.clients}"
        remedy = f"send at most {wanted.clients}, from {MIN_CLIENTS_FLOOR} on"
        if wanted.clients < MIN_CLIENTS_FLOOR:
            remedy = f"make a population of {MIN_CLIENTS_FLOOR} clients or more"
        faults.append(Fault("/min_clients", "too_many", detail, remedy))
    fault = delta_fault(wanted.budget.delta, wanted.clients, "/budget/delta")
    return faults if fault is None else [*faults, fault]


def delta_fault(delta: float, clients: int, pointer: str) -> Fault | None:
    """What is wrong with a delta of a federation of so many clients, or None."""
    if delta < 1 / clients:
        return None
    detail = f"with delta {delta:g} and {clients} clients all of one may be let out"
    return Fault(pointer, "delta_too_large", detail, f"send less than {1 / clients:.3g}")


def find_population(session: Session, tenant: str, population_id: str, *, hold: bool = False) -> Population:
    """The tenant's population, or NotFound."""
    found = repository.population(session, tenant, population_id, hold=hold)
    if found is None:
        raise NotFound(f"no population {population_id}", remedy="GET /v1/populations lists yours")
    return found


def account_of(session: Session, population: Population) -> tuple[PrivacyAccount, float | None, float]:
    """A population's account, what its rounds have spent (None: nothing bounds it) and what is left."""
    account = ledger.account(session, population.tenant, population.id)
    assert account is not None
    spent = total(account, ledger.entries_on(session, population.tenant, population.id))
    return account, spent.quoted if spent.quoted < math.inf else None, left(account, spent)
