"""Takes a client's update from the wire to disk, within its cap, and checks it before anything else sees it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from app.draining import drain
from app.errors import Invalid, TooLarge, Unparsable, UnsupportedMedia
from engine.errors import Fault
from engine.tensorfile import MOST_HEADER_BYTES, Layout, Unreadable, all_finite, differences, layout_of, read_layout

MEDIA_TYPE = "application/octet-stream"
WRITE_BYTES = 1 << 20


@dataclass(frozen=True)
class Received:
    """A body that lies on disk whole."""

    sha256: str
    size_bytes: int


async def receive(request: Request, to: Path, max_bytes: int) -> Received:
    """Write the body to `to`.

    Raises:
        UnsupportedMedia: it comes as something else than bytes.
        TooLarge: it has more than `max_bytes`.
        Stalled: the rest of it does not come.
        Unparsable: the client left before its end.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise UnsupportedMedia("an update is a safetensors file", remedy=f"send it as `Content-Type: {MEDIA_TYPE}`")
    digest, size = hashlib.sha256(), 0
    pending = bytearray()
    stream = request.stream()
    with to.open("wb") as target:
        try:
            async for chunk in stream:
                size += len(chunk)
                if size > max_bytes:
                    await drain(stream)
                    raise TooLarge(
                        f"the update has more than {max_bytes} bytes", remedy="send the round's tensors and no more"
                    )
                digest.update(chunk)
                pending += chunk
                if len(pending) >= WRITE_BYTES:
                    await run_in_threadpool(target.write, bytes(pending))
                    pending.clear()
        except ClientDisconnect as error:
            raise Unparsable("the client left before the end of the update", remedy="send all of it") from error
        await run_in_threadpool(target.write, bytes(pending))
    return Received(digest.hexdigest(), size)


def most_bytes(tensors: Mapping[str, Any] | None, cap: int) -> int:
    """How many bytes an update of these tensors may have; `cap` where nobody knows them yet, or they are more."""
    if tensors is None:
        return cap
    return min(cap, layout_of(tensors).size + 8 + MOST_HEADER_BYTES)


def checked(path: Path, tensors: Mapping[str, Any] | None) -> Layout:
    """The layout of a sound update.

    Raises:
        Invalid: it is no safetensors file, has other tensors than `tensors`, or a value that is no finite number.
    """
    try:
        layout = read_layout(path)
    except Unreadable as error:
        fault = Fault("", "not_safetensors", str(error), "send a whole safetensors file of floating-point tensors")
        raise Invalid(fault.detail, faults=[fault]) from error
    if not layout.count:
        fault = Fault("", "no_values", "the update holds no value", "send the round's tensors")
        raise Invalid(fault.detail, faults=[fault])
    if tensors is not None:
        refuse_other(layout, tensors)
    if not all_finite(path, layout):
        detail = "the update holds a value that is no finite number"
        raise Invalid(detail, faults=[Fault("", "not_finite", detail, "train again with a lower learning rate")])
    return layout


def refuse_other(layout: Layout, tensors: Mapping[str, Any]) -> None:
    """Refuse an update whose tensors are not those of the round; raises Invalid."""
    if faults := differences(layout.shapes(), tensors):
        detail = "; ".join(fault.detail for fault in faults)
        raise Invalid(detail, code="wrong_tensors", remedy="send the tensors of the round", faults=faults)
