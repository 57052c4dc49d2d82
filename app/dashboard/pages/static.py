"""Sends the panel's scripts and styles, to be kept for ever under an address that changes with them."""

from starlette.requests import Request
from starlette.responses import Response

from app.dashboard import assets
from app.dashboard.routing import PanelRouter

router = PanelRouter()
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


@router.get("/static/{digest}/{name}")
def file(request: Request, digest: str, name: str) -> Response:
    """One file; needs no session, since it is the same for everybody."""
    asset = assets.find(digest, name)
    if "gzip" in request.headers.get("accept-encoding", "") and len(asset.content) > assets.SMALL_BYTES:
        return Response(asset.packed, headers={**FOR_EVER, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.content, headers=FOR_EVER, media_type=asset.media_type)
