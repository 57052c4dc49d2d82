"""Which queued job a worker claims, and whose turn it is: that of the tenant whose last claim lies longest ago.

Claims are numbered, as clocks are too coarse: several may fall into one tick. Knows nothing of events or of workers.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Float, Integer, Subquery, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from app.database import database_now
from app.jobs.models import Job, JobTurn
from app.jobs.states import CLAIM, LEASED, State

CANDIDATES = 100
"""One of so many is claimed, the first that no other transaction holds: Postgres sorts all whom it might have to lock.

Where others hold every one of them at that moment, nothing is claimed, and the next bell tries anew.
"""


def end_turn(session: Session, tenant: str) -> None:
    """Let the tenant's turn come again after everybody else's, since a job of its was just claimed.

    Of two claims at one moment on Postgres both may get one number: then age decides once between their tenants.
    """
    connection = session.connection()
    connection.execute(_TURNS[connection.dialect.name], {"of_tenant": tenant})


def _turn(insert: Callable[[type[JobTurn]], postgresql.Insert] | Callable[[type[JobTurn]], sqlite.Insert]) -> Any:
    newest = select(func.coalesce(func.max(JobTurn.claim), 0) + 1).scalar_subquery()
    row = insert(JobTurn).values(tenant=bindparam("of_tenant"), claim=newest)
    return row.on_conflict_do_update(index_elements=[JobTurn.tenant], set_={"claim": row.excluded.claim})


def _fairest_first() -> Subquery:
    """The first queued jobs in order, which the index of states has all of: thousands may wait."""
    running = (
        select(Job.tenant, func.count().label("jobs")).where(Job.state.in_(LEASED)).group_by(Job.tenant).subquery()
    )
    waiting = aliased(Job)
    fewest_running, last_claim = func.coalesce(running.c.jobs, 0), func.coalesce(JobTurn.claim, 0)
    return (
        select(waiting.id, fewest_running.label("running"), last_claim.label("last_claim"))
        .outerjoin(running, running.c.tenant == waiting.tenant)
        .outerjoin(JobTurn, JobTurn.tenant == waiting.tenant)
        .where(waiting.state == State.QUEUED)
        .order_by(fewest_running, waiting.priority.desc(), last_claim, waiting.id)
        .limit(CANDIDATES)
        .subquery()
    )


def _statement() -> Any:
    first, queued = _fairest_first(), aliased(Job)
    fairest = (
        select(queued.id)
        .join(first, first.c.id == queued.id)
        .where(queued.state == State.QUEUED)
        .order_by(first.c.running, queued.priority.desc(), first.c.last_claim, queued.id)
        .limit(1)
        .with_for_update(of=queued, skip_locked=True)
    )
    return (
        update(Job)
        .where(Job.id == fairest.scalar_subquery(), Job.state.in_(CLAIM.sources))
        .values(
            state=CLAIM.target,
            attempt=Job.attempt + 1,
            batches=0,
            revision=Job.revision + 1,
            events=Job.events + 1,
            lease_owner=bindparam("owner"),
            lease_expires=database_now(bindparam("lease_seconds", type_=Float)),
            started_at=func.coalesce(Job.started_at, database_now()),
            threads=func.coalesce(Job.threads, bindparam("first_threads", type_=Integer)),
        )
        .returning(Job)
    )


# Built once: building statements of this size costs more than running them.
FAIREST = _statement()
_TURNS = {"postgresql": _turn(postgresql.insert), "sqlite": _turn(sqlite.insert)}
