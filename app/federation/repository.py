"""Every query on populations, rounds and updates; each one names the tenant. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.paging import Asked
from app.rounds.models import FederationRound, Population, RoundUpdate


def population(session: Session, tenant: str, population_id: str, *, hold: bool = False) -> Population | None:
    """The tenant's population; with `hold` nobody else writes it until the transaction ends."""
    query = select(Population).where(Population.id == population_id, Population.tenant == tenant)
    query = query.with_for_update().execution_options(populate_existing=True) if hold else query
    return session.scalars(query).one_or_none()


def populations(session: Session, tenant: str, asked: Asked) -> Sequence[Population]:
    """The tenant's populations of one page and one more."""
    return session.scalars(asked.cut(select(Population).where(Population.tenant == tenant), Population.id)).all()


def round_of(session: Session, tenant: str, round_id: str, *, hold: bool = False) -> FederationRound | None:
    """The tenant's round; with `hold` nobody else writes it, or adds an update, until the transaction ends."""
    query = select(FederationRound).where(FederationRound.id == round_id, FederationRound.tenant == tenant)
    query = query.with_for_update().execution_options(populate_existing=True) if hold else query
    return session.scalars(query).one_or_none()


def update_of(session: Session, round_id: str, client: str) -> RoundUpdate | None:
    """A client's update of a round."""
    return session.scalars(
        select(RoundUpdate).where(RoundUpdate.round_id == round_id, RoundUpdate.client == client)
    ).one_or_none()


def count(session: Session, round_id: str) -> int:
    """How many clients have sent an update: for the rule of the fewest, and for nobody's eyes."""
    query = select(func.count()).select_from(RoundUpdate).where(RoundUpdate.round_id == round_id)
    return session.scalar(query) or 0


def take_updates(session: Session, round_id: str) -> list[str]:
    """Take the updates off the round; the keys of their files, as often as they were sent."""
    statement = delete(RoundUpdate).where(RoundUpdate.round_id == round_id).returning(RoundUpdate.storage_key)
    return list(session.scalars(statement.execution_options(synchronize_session=False)))
