"""The rules of updates: one a client, in time, of the drawn clients alone. Knows no request.

What a client is told depends on its own update and on nobody else's, but for the tensors where the first named them.
"""

import hmac
import math
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.erasure import keep_all
from app.errors import Conflict
from app.federation import repository
from app.federation.incoming import Received, refuse_other
from app.federation.rounds import find_round
from app.identity import Identity
from app.rounds.models import OPEN, FederationRound, RoundUpdate
from app.storage import Stored
from engine.tensorfile import Layout


def drawn(one: FederationRound, client: str) -> bool:
    """Whether a client belongs to the round's cohort: each by itself with the round's probability, by a secret.

    Raises:
        Conflict: the round is closed, so nobody can tell any more.
    """
    if one.secret is None:
        raise Conflict("the round is closed", code="round_closed", remedy="ask about a round that is open")
    digest = hmac.digest(bytes.fromhex(one.secret), client.encode(), "sha256")
    return one.sampling_rate >= 1 or int.from_bytes(digest[:8], "big") < math.floor(one.sampling_rate * 2.0**64)


def refuse_late(one: FederationRound, client: str) -> None:
    """Refuse an update to a round that is closed, or of a client that was not drawn; raises Conflict."""
    if one.state != OPEN:
        raise Conflict("the round is closed", code="round_closed", remedy="wait for the next round")
    if not drawn(one, client):
        raise Conflict("this client was not drawn for this round", code="not_drawn", remedy="wait for the next round")


def add_update(
    session: Session,
    identity: Identity,
    round_id: str,
    client: str,
    owner: str,
    received: Received,
    stored: Stored,
    layout: Layout,
) -> bool:
    """Take a client's update; False where this very one was taken before.

    Raises:
        Conflict: the round has closed, or the client has sent another update.
        Invalid: another client's tensors came first, and these are not the same.
    """
    one = find_round(session, identity.tenant, round_id, hold=True)
    refuse_late(one, client)
    if not is_new(session, one, client, received.sha256):
        return False
    if one.tensors is None:
        one.tensors = layout.shapes()
    else:
        refuse_other(layout, one.tensors)
    keep_all(session, owner, [stored.key])
    update = RoundUpdate(
        round_id=one.id,
        client=client,
        sha256=received.sha256,
        size_bytes=received.size_bytes,
        storage_key=stored.key,
        created_at=datetime.now(UTC),
    )
    session.add(update)
    session.flush()
    return True


def is_new(session: Session, one: FederationRound, client: str, sha256: str) -> bool:
    """Whether a client has sent nothing yet; False where it has sent this very update; raises Conflict for another."""
    sent = repository.update_of(session, one.id, client)
    if sent is not None and sent.sha256 != sha256:
        raise Conflict(
            "this client has sent another update for this round",
            code="second_update",
            remedy="one update a client counts; wait for the next round",
        )
    return sent is None
