"""The audit log: one entry for each write, in the write's own transaction. Knows nothing of what was written."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.auth.models import AuditEntry
from app.identity import Identity
from app.ids import new_id

# Built once and run on the connection: building it anew, as an object of the session, costs far more than the insert.
_ENTRY = insert(AuditEntry.__table__)  # type: ignore[arg-type]  # declared as a FromClause, and a Table


def audit(
    session: Session, identity: Identity, action: str, subject_id: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Write down that `identity` did `action` (such as `dataset.create`) to `subject_id`."""
    session.connection().execute(_ENTRY, _entry(identity, action, subject_id, detail or {}))


def audit_all(session: Session, action: str, done: Iterable[tuple[Identity, str]]) -> None:
    """Write down that each identity did the same action to its subject."""
    session.connection().execute(_ENTRY, [_entry(identity, action, subject_id, {}) for identity, subject_id in done])


def _entry(identity: Identity, action: str, subject_id: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": new_id("aud"),
        "tenant": identity.tenant,
        "key": identity.key,
        "action": action,
        "subject_id": subject_id,
        "detail": dict(detail),
        "created_at": datetime.now(UTC),
    }
