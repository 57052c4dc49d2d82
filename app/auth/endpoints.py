"""The routes of keys and of the audit log."""

from typing import Annotated

from fastapi import Path
from sqlalchemy import event
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, match
from app.auth import repository, service
from app.auth.keyring import KeyRing
from app.auth.schemas import AuditShown, KeyCreate, KeyShown, audit_json, key_json
from app.dependencies import Admin, Read, Router, Write
from app.idempotency import Idempotent
from app.paging import Page, paged
from app.schemas import ListOf

router = Router(prefix="/v1", tags=["keys"])
KeyId = Annotated[str, Path(max_length=64, description="Id of a key.")]


@router.post("/keys", status_code=201, response_model=KeyShown, summary="Make a key")
def create(request: Request, identity: Admin, once: Idempotent, session: Write, body: KeyCreate) -> Response:
    """The secret stands in this answer only; a replay under the same Idempotency-Key has null in its place."""
    if first := once.begin(session, identity.tenant):
        return first
    key, secret = service.create(session, identity, body)
    headers = {"Location": f"/v1/keys/{key.id}"}
    made = answer(request, {**key_json(key), "secret": secret}, 201, headers)
    replay = answer(request, {**key_json(key), "secret": None}, 201, headers)
    return once.finish(session, identity.tenant, made, replay=bytes(replay.body))


@router.get("/keys", response_model=ListOf[KeyShown], summary="List keys")
def page(request: Request, identity: Admin, session: Read, asked: Page) -> Response:
    """An admin of the first tenant sees every tenant's keys."""
    return answer(request, paged(repository.page(session, service.reach(identity), asked), asked, key_json))


@router.get("/keys/{key_id}", response_model=KeyShown, summary="Look at a key")
def find(request: Request, identity: Admin, session: Read, key_id: KeyId) -> Response:
    """One key, without its secret."""
    return answer(request, key_json(service.find(session, identity, key_id)))


@router.delete("/keys/{key_id}", status_code=204, response_class=Response, summary="Revoke a key")
def revoke(request: Request, identity: Admin, session: Write, key_id: KeyId) -> Response:
    """The key stops at once."""
    match(request, lambda: key_json(service.find(session, identity, key_id)))
    service.revoke(session, identity, key_id)
    keys: KeyRing = request.app.state.keys
    event.listen(session, "after_commit", lambda _: keys.forget(), once=True)
    return Response(status_code=204)


@router.get("/audit", response_model=ListOf[AuditShown], tags=["audit"], summary="Read the audit log")
def audit_log(request: Request, identity: Admin, session: Read, asked: Page) -> Response:
    """Every write of the caller's tenant."""
    return answer(request, paged(repository.audit_page(session, identity.tenant, asked), asked, audit_json))
