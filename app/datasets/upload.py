"""Takes a multipart form from the wire: the file straight to disk, the fields to memory, each within its cap.

Knows no field by name but that of the file. Starlette's own parser spools whole files first: a cap would come too late.
"""

import hashlib
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from app.draining import drain
from app.errors import TooLarge, Unparsable, UnsupportedMedia
from engine.errors import Fault

WRITE_BYTES = 1 << 20
MAX_FIELD_BYTES = 1 << 16
MAX_PARTS = 50


@dataclass
class Form:
    """What came: the file's name and sha256 (None: no file came), and the fields by name."""

    filename: str | None = None
    sha256: str | None = None
    size_bytes: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


async def receive(request: Request, to: Path, max_bytes: int, part: str = "file") -> Form:
    """Read the form; its file, which is the part of the name `part`, lands at `to`.

    Raises:
        UnsupportedMedia: it is no multipart form.
        Unparsable: it is broken or cut short.
        Stalled: the rest of it does not come.
        TooLarge: the file has more than `max_bytes`, or a field is far too long.
    """
    kind = Message()
    kind["content-type"] = request.headers.get("content-type", "")
    boundary = _parameter(kind, "content-type", "boundary")
    if kind.get_content_type() != "multipart/form-data" or not boundary:
        raise UnsupportedMedia("an upload is a form", remedy=f"send `multipart/form-data` with the part `{part}`")
    with to.open("wb") as target:
        parts = _Parts(target, max_bytes, part)
        stream = request.stream()
        try:
            parser = MultipartParser(boundary.encode("latin-1", "replace"), parts.callbacks())  # type: ignore[arg-type]
            async for chunk in stream:
                parser.write(chunk)
                if parts.pending_bytes >= WRITE_BYTES:
                    await run_in_threadpool(parts.flush)
            await run_in_threadpool(parts.flush)
        except TooLarge:
            await drain(stream)
            raise
        except (FormParserError, UnicodeError) as error:
            await drain(stream)
            raise Unparsable(f"the form cannot be read: {error}", remedy="see RFC 7578") from error
        except ClientDisconnect as error:
            raise Unparsable("the client left before the end of the form", remedy="send all of it") from error
    if not parts.ended:
        raise Unparsable("the form ends before its last boundary", remedy="see RFC 7578")
    return parts.form


def _parameter(message: Message, header: str, name: str, *, extended: bool = False) -> str:
    """A parameter of a header; "" where there is none, or none that can be read.

    Args:
        extended: whether it may name its character set, as `filename*` does.
    """
    try:
        found = message.get_param(name, "", header)
        if extended:
            found = collapse_rfc2231_value(found)
    except (ValueError, TypeError):
        # A part number of thousands of digits, numbered parts beside one without, a character set that is none.
        return ""
    # Some character sets decode to lone surrogates, which no command line takes.
    return found.encode("utf-8", "replace").decode() if isinstance(found, str) else ""


class _Parts:
    """Hears the parser: collects the headers of a part, then its data, to disk or to memory."""

    def __init__(self, target: IO[bytes], max_bytes: int, part: str) -> None:
        self.form = Form()
        self._part = part
        self.ended = False
        self.pending_bytes = 0
        self._target = target
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._pending: list[memoryview] = []
        self._header, self._value = b"", b""
        self._disposition = ""
        self._name, self._data = "", bytearray()
        self._number = 0

    def callbacks(self) -> dict[str, object]:
        """The parser's callbacks."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def flush(self) -> None:
        """Write what has come of the file."""
        for chunk in self._pending:
            self._digest.update(chunk)
            self._target.write(chunk)
        self._pending.clear()
        self.pending_bytes = 0
        if self.form.filename is not None:
            self.form.sha256 = self._digest.hexdigest()

    def _begin(self) -> None:
        self._number += 1
        if self._number > MAX_PARTS:
            raise TooLarge(f"the form has more than {MAX_PARTS} parts", remedy="send one file and its fields")
        self._disposition, self._data = "", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("utf-8", "replace")
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        message = Message()
        message["content-disposition"] = self._disposition
        self._name = _parameter(message, "content-disposition", "name")
        if self._name in self.form.fields or (self._name == self._part and self.form.filename is not None):
            self._fault("repeated_field", f"the form has more than one part {self._name[:80]!r}", "send it once")
        if self._name == self._part and self.form.filename is None:
            # Only a hint at the format: nothing is ever stored under a caller's name.
            filename = _parameter(message, "content-disposition", "filename", extended=True)
            self.form.filename = (filename or "file").replace("\x00", "")[-200:]

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._part:
            self.form.size_bytes += end - start
            if self.form.size_bytes > self._max_bytes:
                raise TooLarge(
                    f"the file has more than {self._max_bytes} bytes",
                    remedy="compress it with zstd, upload it in parts, or ask the operator for a higher cap",
                )
            # A view: to copy each part of the file once more costs as much as a third of hashing it.
            self._pending.append(memoryview(data)[start:end])
            self.pending_bytes += end - start
        else:
            self._data += data[start:end]
            if len(self._data) > MAX_FIELD_BYTES:
                raise TooLarge(
                    f"the field {self._name[:80]!r} has more than {MAX_FIELD_BYTES} bytes",
                    remedy=f"shorten it; rows belong into the part `{self._part}`",
                )

    def _end(self) -> None:
        if self._name == self._part:
            return
        try:
            value = self._data.decode("utf-8")
        except UnicodeDecodeError:
            self._fault("not_utf8", "the field is not UTF-8", "send it as UTF-8")
            return
        if "\x00" in value or "\x00" in self._name:
            self._fault("nul_character", "the field holds the character NUL", "leave it out")
            return
        self.form.fields[self._name] = value

    def _all(self) -> None:
        self.ended = True

    def _fault(self, code: str, detail: str, remedy: str) -> None:
        self.form.faults.append(Fault(f"/{self._name[:80]}", code, detail, remedy))
