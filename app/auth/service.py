"""The rules of keys: who makes them for whom. Knows no HTTP requests."""

from sqlalchemy.orm import Session

from app.auth import repository
from app.auth.audit import audit
from app.auth.bootstrap import FIRST_TENANT, add_key, new_secret
from app.auth.models import Key
from app.auth.schemas import KeyCreate
from app.errors import Conflict, Forbidden, NotFound
from app.identity import Identity


def reach(identity: Identity) -> str | None:
    """Whose keys this admin sees: None for every tenant's."""
    return None if identity.tenant == FIRST_TENANT else identity.tenant


def create(session: Session, identity: Identity, wanted: KeyCreate) -> tuple[Key, str]:
    """Make a key and its secret, which is not kept."""
    tenant = wanted.tenant or identity.tenant
    if reach(identity) not in (None, tenant):
        raise Forbidden(
            "an admin makes keys for its own tenant", remedy=f"leave `tenant` out, or ask an admin of {FIRST_TENANT}"
        )
    secret = new_secret()
    key = add_key(session, wanted.name, wanted.role, tenant, secret, made_by=identity.key)
    audit(session, identity, "key.create", key.id, {"tenant": tenant, "role": wanted.role})
    return key, secret


def find(session: Session, identity: Identity, key_id: str) -> Key:
    """The key with this id, where this admin sees it; else NotFound."""
    key = repository.find(session, key_id, reach(identity))
    if key is None:
        raise NotFound(f"no key {key_id}", remedy="GET /v1/keys lists them")
    return key


def revoke(session: Session, identity: Identity, key_id: str) -> None:
    """Delete a key; the last admin key of the first tenant stays, or nobody could make another."""
    key = find(session, identity, key_id)
    if key.tenant == FIRST_TENANT and key.role == "admin" and repository.admins(session, FIRST_TENANT) == 1:
        raise Conflict("this is the last admin key of the first tenant", remedy="make another admin key first")
    session.delete(key)
    audit(session, identity, "key.delete", key.id, {"tenant": key.tenant})
