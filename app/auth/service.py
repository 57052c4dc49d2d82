"""The rules of keys: who makes them for whom, and how the first one comes about. Knows no HTTP requests."""

import secrets
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.auth import repository
from app.auth.audit import audit
from app.auth.keyring import KeyRing
from app.auth.models import Key
from app.auth.schemas import KeyCreate
from app.database import Database
from app.errors import Conflict, Forbidden, NotFound
from app.identity import Identity, Role
from app.ids import new_id
from app.settings import Settings

FIRST_TENANT = "default"


def reach(identity: Identity) -> str | None:
    """Whose keys this admin sees: None for every tenant's."""
    return None if identity.tenant == FIRST_TENANT else identity.tenant


def bootstrap(database: Database, settings: Settings) -> str | None:
    """Make the first admin key, unless there are keys; the secret if it was made here, None if the operator gave it."""
    given = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key is not None else None
    with database.session() as session:
        if repository.count(session) > 0:
            return None
        secret = given or new_secret()
        key = _add(session, "bootstrap", "admin", FIRST_TENANT, secret, made_by=None)
        audit(session, Identity(FIRST_TENANT, key.id, "admin"), "key.create", key.id, {"role": "admin"})
    return None if given else secret


def create(session: Session, identity: Identity, wanted: KeyCreate) -> tuple[Key, str]:
    """Make a key and its secret, which is not kept."""
    tenant = wanted.tenant or identity.tenant
    if reach(identity) not in (None, tenant):
        raise Forbidden(
            "an admin makes keys for its own tenant", remedy=f"leave `tenant` out, or ask an admin of {FIRST_TENANT}"
        )
    secret = new_secret()
    key = _add(session, wanted.name, wanted.role, tenant, secret, made_by=identity.key)
    audit(session, identity, "key.create", key.id, {"tenant": tenant, "role": wanted.role})
    return key, secret


def revoke(session: Session, identity: Identity, key_id: str) -> None:
    """Delete a key; the last admin key of the first tenant stays, or nobody could make another."""
    key = repository.find(session, key_id, reach(identity))
    if key is None:
        raise NotFound(f"no key {key_id}", remedy="GET /v1/keys lists them")
    if key.tenant == FIRST_TENANT and key.role == "admin" and repository.admins(session, FIRST_TENANT) == 1:
        raise Conflict("this is the last admin key of the first tenant", remedy="make another admin key first")
    session.delete(key)
    audit(session, identity, "key.delete", key.id, {"tenant": key.tenant})


def new_secret() -> str:
    """A secret of 256 random bits."""
    return "ftw_" + secrets.token_urlsafe(32)


def _add(session: Session, name: str, role: Role, tenant: str, secret: str, made_by: str | None) -> Key:
    key = Key(
        id=new_id("key"),
        tenant=tenant,
        name=name,
        role=role,
        secret_sha256=KeyRing.digest(secret),
        created_at=datetime.now(UTC),
        created_by=made_by,
    )
    session.add(key)
    return key
