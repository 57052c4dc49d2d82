"""Every query on the panel's sessions. Knows no HTTP."""

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.auth.models import Key
from app.dashboard.models import PanelSession


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
