"""Takes off the outer gzip or zstd layer, counting every byte, and tells what lies beneath. Knows no rows."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

import zstandard

from engine.ingest.findings import Unusable

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
MAX_WINDOW_BYTES = 1 << 27


class _Decoder(Protocol):
    """A decompressor of one frame, as zlib and zstandard both have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


# Bytes of a piece, and the decoder: gzip unpacks to at most 1,032 times, zstd to 32,768 times the size.
_DECODERS: dict[str, tuple[int, Callable[[], _Decoder]]] = {
    "gzip": (1 << 14, lambda: zlib.decompressobj(wbits=31)),
    "zstd": (1 << 11, lambda: zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()),
}


def unpacked(source: Path, scratch: Path, max_bytes: int) -> Path:
    """The file itself, or `scratch` with what its gzip or zstd layer held.

    Raises:
        Unusable: the layer is broken or cut short, or it unpacks to more than `max_bytes`.
    """
    with source.open("rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        if magic[:2] != GZIP and magic != ZSTD:
            return source
        kind = "gzip" if magic[:2] == GZIP else "zstd"
        size = 0
        try:
            with scratch.open("wb") as target:
                for chunk in _frames(stream, *_DECODERS[kind]):
                    size += len(chunk)
                    if size > max_bytes:
                        raise too_large(max_bytes)
                    target.write(chunk)
        except (zlib.error, zstandard.ZstdError, EOFError) as error:
            detail = f"the {kind} layer is broken: {error}"
            raise Unusable("broken_compression", detail, f"compress the file again with {kind}") from error
    return scratch


def too_large(max_bytes: int) -> Unusable:
    """The fault of a file that unpacks to more than it may."""
    detail = f"unpacked, the file has more than {max_bytes} bytes"
    return Unusable(
        "decompressed_too_large", detail, "upload it in smaller parts, or ask the operator for a higher cap"
    )


def kind_of(path: Path, filename: str) -> str:
    """What the file is, by its first bytes and, for text, its name: parquet, zip, csv, jsonl, or else text."""
    with path.open("rb") as stream:
        head = stream.read(4096)
    if not head:
        raise Unusable("no_rows", "the file is empty", "upload a file with rows")
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Unusable("not_utf8", "the file starts like UTF-16", "save it as UTF-8", line=1)
    text = _beginning(head)
    suffixes = filename.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")
    if suffixes[2] == "txt":
        return "text"
    if suffixes[2] in ("csv", "tsv"):
        return "csv"
    if suffixes[2] in ("jsonl", "ndjson", "json") or text[:1] in (b"{", b"["):
        return "jsonl"
    # Text has few control characters; a picture, an archive or a program has many, and NULs early on.
    if sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head) > len(head) // 50:
        detail = "the file is neither text nor Parquet nor ZIP"
        raise Unusable("unknown_format", detail, "upload JSONL, CSV, Parquet or a ZIP of images")
    return "text"


def table_of(kind: str, path: Path) -> str:
    """The kind of a file that holds a table, whatever its name says: a text is JSONL or CSV."""
    if kind != "text":
        return kind
    with path.open("rb") as stream:
        return "jsonl" if _beginning(stream.read(4096))[:1] in (b"{", b"[") else "csv"


def _beginning(head: bytes) -> bytes:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()


def _frames(stream: IO[bytes], piece_bytes: int, new: Callable[[], _Decoder]) -> Iterator[bytes]:
    """What the frames of a stream hold. Input goes in by small pieces, for one of them can come to thousands of times
    its size."""
    decoder, started, waiting = new(), False, b""
    while data := waiting or stream.read(piece_bytes):
        if decoder.eof:
            decoder, started = new(), False
        chunk = decoder.decompress(data)
        started, waiting = True, decoder.unused_data
        if chunk:
            yield chunk
    if started and not decoder.eof:
        raise EOFError("it ends too early")
