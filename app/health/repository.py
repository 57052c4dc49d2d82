"""The queries behind the figures. Knows no HTTP."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.jobs.models import Job


def jobs_by_state(session: Session, tenant: str) -> dict[str, int]:
    """How many jobs of the tenant are in each state that has any."""
    query = select(Job.state, func.count()).where(Job.tenant == tenant).group_by(Job.state)
    return {str(state): number for state, number in session.execute(query)}
