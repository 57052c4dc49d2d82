"""The route of the key that receipts are checked against. The private half stays in its file."""

from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.dependencies import Router, Viewer
from client import signature

router = Router(prefix="/v1/receipt-key", tags=["receipts"])


class ReceiptKeyShown(BaseModel):
    """What a receipt's signature is checked against: 32 bytes as base64."""

    object: Literal["receipt_key"]
    algorithm: Literal["ed25519"]
    public_key: str


@router.get("", response_model=ReceiptKeyShown, summary="Read the key that signs receipts")
async def read(request: Request, _: Viewer) -> Response:
    """Pin it when you log in: `fiftytwo verify` then knows a receipt of this server from any other."""
    key = request.app.state.receipt_key
    return answer(request, {"object": "receipt_key", "algorithm": signature.ALGORITHM, "public_key": key})
