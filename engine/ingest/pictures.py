"""The members of a ZIP and the pictures among them. Unpacks nothing onto the disk: a member's name is never a path."""

import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from engine.ingest.findings import Findings, InvalidRow, Limits, Unusable

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")
LITTER = {"thumbs.db", "desktop.ini", ".ds_store"}
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
"""What reading a member raises where the archive is damaged or encrypted."""


@contextmanager
def opened(source: Path) -> Iterator[zipfile.ZipFile]:
    """The archive.

    Raises:
        Unusable: where it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unusable("broken_zip", f"the ZIP cannot be read: {error}", "make it again") from error
    with archive:
        yield archive


def members_of(archive: zipfile.ZipFile, findings: Findings, layout: str) -> Iterator[tuple[int, zipfile.ZipInfo]]:
    """The members that matter, each with its number; names that lead out of the archive are faults.

    `layout`: how members should be named, for the remedy.
    """
    for number, member in enumerate(archive.infolist(), 1):
        # zipfile cuts names at a NUL and turns the system's separator round: look at the name as it was written.
        name = member.orig_filename
        parts = PurePosixPath(name).parts
        if not parts and not name.endswith("/"):
            detail = f"member {name[:200]!r} names no file"
            findings.file(Unusable("unsafe_path", detail, f"name members {layout}", line=number))
        elif name.startswith("/") or ".." in parts or "\\" in name or "\x00" in name or ":" in name.split("/")[0]:
            detail = f"member {name[:200]!r} leads out of the archive"
            findings.file(Unusable("unsafe_path", detail, f"name members {layout}", line=number))
        elif not member.is_dir() and "__MACOSX" not in parts and parts[-1].lower() not in LITTER:
            yield number, member


def content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: Limits) -> bytes:
    """The bytes of a member.

    Raises:
        InvalidRow: where they are damaged, encrypted, none, or too many.
    """
    if member.flag_bits & 1:
        raise InvalidRow("encrypted", "it is encrypted", "make the ZIP without a password")
    try:
        with archive.open(member) as stream:
            # What the archive says of the size is not to be trusted, so it is counted.
            found = stream.read(limits.max_cell_bytes + 1)
            if len(found) <= limits.max_cell_bytes and stream.read(1):
                raise zipfile.BadZipFile("it is longer than it says")
    except UNREADABLE as error:
        raise InvalidRow("broken_zip", f"it cannot be unpacked: {error}", "make the ZIP again") from error
    if len(found) > limits.max_cell_bytes:
        raise InvalidRow("cell_too_large", f"it has more than {limits.max_cell_bytes} bytes", "make it smaller")
    if not found:
        raise InvalidRow("empty_file", "it is empty", "leave it out")
    return found


def picture(found: bytes, limits: Limits) -> dict[str, Any]:
    """The columns of one picture: its bytes, width, height and mode.

    Raises:
        InvalidRow: where it is none, cannot be decoded, moves, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(found), formats=FORMATS) as image:
                width, height = image.size
                if width * height > limits.max_pixels:
                    detail = f"it has {width} x {height} pixels, more than {limits.max_pixels}"
                    raise InvalidRow("image_too_large", detail, "scale it down")
                if getattr(image, "n_frames", 1) > 1:
                    raise InvalidRow("animated", "it is an animation", "take one picture of it")
                image.load()
                mode = image.mode
                if mode == "F":  # nobody says which of its numbers is white
                    raise InvalidRow("not_an_image", "its pixels are no whole numbers", "save it with 8 or 16 bits")
    except UnidentifiedImageError as error:
        raise InvalidRow("not_an_image", "it is no picture", f"send one of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        # Pillow's own cap, which it holds before the size can be asked for.
        detail = f"it says that it has far more than {limits.max_pixels} pixels"
        raise InvalidRow("image_too_large", detail, "scale it down") from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise InvalidRow("broken_image", f"the picture cannot be decoded: {error}", "save it again") from error
    return {"image": found, "width": width, "height": height, "mode": mode}
