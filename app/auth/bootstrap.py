"""How the first admin key comes about, and what any key is made of. Knows no HTTP requests.

Apart from `app.auth.service`, so that the supervisor of `fiftytwo serve` does not load what only the API needs.
"""

import secrets
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.auth import repository
from app.auth.audit import audit
from app.auth.keyring import KeyRing
from app.auth.models import Key
from app.database import Database
from app.identity import Identity, Role
from app.ids import new_id
from app.settings import Settings

FIRST_TENANT = "default"


def bootstrap(database: Database, settings: Settings) -> str | None:
    """Make the first admin key, unless there are keys; the secret if it was made here, None if the operator gave it."""
    given = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key is not None else None
    with database.session() as session:
        if repository.count(session) > 0:
            return None
        secret = given or new_secret()
        add_admin(session, "bootstrap", secret)
    return None if given else secret


def add_admin(session: Session, name: str, secret: str) -> None:
    """Store an admin key of the first tenant that nobody's key has made."""
    key = add_key(session, name, "admin", FIRST_TENANT, secret, made_by=None)
    audit(session, Identity(FIRST_TENANT, key.id, "admin"), "key.create", key.id, {"role": "admin", "name": name})


def new_secret() -> str:
    """A secret of 256 random bits."""
    return "ftw_" + secrets.token_urlsafe(32)


def add_key(session: Session, name: str, role: Role, tenant: str, secret: str, made_by: str | None) -> Key:
    """Store a key; of its secret only the hash."""
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
