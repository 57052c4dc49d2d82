"""The rules of the panel's sessions: a key opens one, a random token stands for it, and it ends. Knows no HTTP."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.auth.keyring import KeyRing
from app.dashboard import repository
from app.dashboard.models import PanelSession
from app.database import Database
from app.dependencies import RANKS
from app.identity import Identity, Role


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page: the identity of the key, what the key is called, and what stands for the session."""

    identity: Identity
    name: str
    session: str

    @property
    def may_write(self) -> bool:
        """Whether the pages offer what only members and admins may do."""
        return RANKS[self.identity.role] >= RANKS["member"]


def begin(session: Session, identity: Identity, hours: float) -> str:
    """Open a session for the holder of a key; the token for its cookie, which is not kept."""
    token, now = secrets.token_urlsafe(32), datetime.now(UTC)
    repository.sweep(session, now)
    session.add(
        PanelSession(
            token_sha256=KeyRing.digest(token),
            key_id=identity.key,
            created_at=now,
            expires_at=now + timedelta(hours=hours),
        )
    )
    audit(session, identity, "session.create", identity.key)
    return token


def visitor(database: Database, token: str) -> Visitor | None:
    """Who holds the cookie with this token; None if nobody does any more."""
    digest = KeyRing.digest(token)
    with database.reading() as session:
        key = repository.holder(session, digest, datetime.now(UTC))
    if key is None:
        return None
    return Visitor(Identity(key.tenant, key.id, cast(Role, key.role)), key.name, digest)


def end(session: Session, leaving: Visitor) -> None:
    """End a session."""
    repository.end(session, leaving.session)
    audit(session, leaving.identity, "session.delete", leaving.identity.key)
