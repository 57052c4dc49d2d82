"""Keys and audit entries as they stand in requests and answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from app.answers import timestamp
from app.auth.models import AuditEntry, Key
from app.identity import KeyRole, Role
from app.schemas import Name

Tenant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class KeyCreate(BaseModel):
    """A key to be made; without a tenant, for the caller's own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"name": "notebook", "role": "member"}]}
    )

    name: Name
    role: KeyRole = "member"
    tenant: Tenant | None = None


class KeyShown(BaseModel):
    """A key in answers; `secret` only in the answer that made it."""

    id: str
    object: Literal["key"]
    name: str
    role: Role
    tenant: str
    created_at: str
    created_by: str | None
    secret: str | None = None


class AuditShown(BaseModel):
    """One entry of the audit log."""

    id: str
    object: Literal["audit_entry"]
    key: str
    action: str
    subject_id: str
    detail: dict[str, Any]
    created_at: str


def key_json(key: Key) -> dict[str, Any]:
    """A key without its secret."""
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "role": key.role,
        "tenant": key.tenant,
        "created_at": timestamp(key.created_at),
        "created_by": key.created_by,
    }


def audit_json(entry: AuditEntry) -> dict[str, Any]:
    """An audit entry."""
    return {
        "id": entry.id,
        "object": "audit_entry",
        "key": entry.key,
        "action": entry.action,
        "subject_id": entry.subject_id,
        "detail": entry.detail,
        "created_at": timestamp(entry.created_at),
    }
