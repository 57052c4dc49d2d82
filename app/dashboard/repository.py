"""Every query on the panel's sessions, and one that its pages alone make: trained models beside their jobs.

Knows no HTTP.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Row, delete, select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.auth.models import Key
from app.dashboard.models import PanelSession
from app.jobs.models import Job
from app.paging import Asked


def holder(session: Session, token_sha256: str, now: datetime) -> Key | None:
    """The key that the session of this cookie was opened with, while it lasts."""
    query = select(Key).join(PanelSession, PanelSession.key_id == Key.id)
    return session.scalar(query.where(PanelSession.token_sha256 == token_sha256, PanelSession.expires_at > now))


def end(session: Session, token_sha256: str) -> None:
    """End one session, if it is there."""
    session.execute(delete(PanelSession).where(PanelSession.token_sha256 == token_sha256))


def sweep(session: Session, now: datetime) -> None:
    """Drop the sessions that are over."""
    session.execute(delete(PanelSession).where(PanelSession.expires_at <= now))


def trained(session: Session, tenant: str, asked: Asked) -> Sequence[Row[Artifact, Job]]:
    """One page of the tenant's trained models and one more, each with the job that made it."""
    query = select(Artifact, Job).join(Job, Job.id == Artifact.job_id)
    query = query.where(Artifact.kind == "model", Artifact.tenant == tenant)
    return session.execute(asked.cut(query, Artifact.id)).all()
