"""Image classification: from a ZIP of CLASS/FILE or SPLIT/CLASS/FILE to rows with the file's bytes. Unpacks nothing
onto the disk, so a member's name is a label and never a path."""

import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from engine.ingest.canonical import Canonical
from engine.ingest.findings import SPLITS, Choices, Findings, InvalidRow, Limits, Unusable
from engine.ingest.tables import too_many_rows
from engine.ingest.unpack import too_large

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")
LITTER = {"thumbs.db", "desktop.ini", ".ds_store"}
SCHEMA = [
    ("id", pa.string()),
    ("image", pa.binary()),
    ("label", pa.int32()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("mode", pa.string()),
]


def ingest(kind: str, source: Path, out: Path, choices: Choices, limits: Limits, findings: Findings) -> Canonical:
    """Read every picture and note every fault; gives the rows that hold, not yet finished."""
    if kind != "zip":
        raise Unusable("unknown_format", f"image classification takes a ZIP, not {kind}", "upload a ZIP of CLASS/FILE")
    for role in choices.columns:
        detail = "a ZIP of images has folders, no columns"
        findings.file(Unusable("not_applicable", detail, "leave it out", pointer=f"/{role}_column"))
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unusable("broken_zip", f"the ZIP cannot be read: {error}", "make it again") from error
    with archive:
        members = list(_members(archive, findings))
        if len(members) > limits.max_rows:
            raise too_many_rows(limits)
        places = _layout([PurePosixPath(member.filename).parts for _, member in members])
        schema = SCHEMA if not any(split for split, _ in places) else [*SCHEMA, ("split", pa.string())]
        rows = Canonical(out, pa.schema(schema), {"image": "the file", "label": "its folder"})
        try:
            _collect(rows, archive, members, places, limits, findings)
        except Unusable as fault:
            findings.file(fault)
    return rows


def _members(archive: zipfile.ZipFile, findings: Findings) -> Iterator[tuple[int, zipfile.ZipInfo]]:
    """The members that should be pictures, each with its number; names that lead out of the archive are faults."""
    for number, member in enumerate(archive.infolist(), 1):
        # zipfile cuts names at a NUL and turns the system's separator round: look at the name as it was written.
        name = member.orig_filename
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or "\x00" in name or ":" in name.split("/")[0]:
            remedy = "name members CLASS/FILE or SPLIT/CLASS/FILE"
            findings.file(
                Unusable("unsafe_path", f"member {name[:200]!r} leads out of the archive", remedy, line=number)
            )
        elif not member.is_dir() and "__MACOSX" not in parts and parts[-1].lower() not in LITTER:
            yield number, member


def _layout(paths: list[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Split ("" where there is none) and class of each member; a folder around all of them is looked through."""
    if not paths:
        raise Unusable("no_rows", "the ZIP holds no pictures", "put them in as CLASS/FILE")
    while len({path[0] for path in paths}) == 1 and all(len(path) >= 3 for path in paths) and paths[0][0] not in SPLITS:
        paths = [path[1:] for path in paths]
    depths = {len(path) for path in paths}
    if depths == {2}:
        return [("", path[0]) for path in paths]
    if depths == {3}:
        if unknown := sorted({path[0] for path in paths if path[0].lower() not in SPLITS}):
            detail = f"{', '.join(map(repr, unknown[:10]))} are no splits"
            raise Unusable("unknown_split", detail, "name the outer folders train, valid and test")
        return [(SPLITS[path[0].lower()], path[1]) for path in paths]
    odd = next("/".join(path) for path in paths if len(path) not in (2, 3) or len(path) != len(paths[0]))
    remedy = "lay the ZIP out as CLASS/FILE or as SPLIT/CLASS/FILE throughout"
    raise Unusable("bad_layout", f"member {odd[:200]!r} does not lie in the folder of a class", remedy)


def _collect(
    rows: Canonical,
    archive: zipfile.ZipFile,
    members: list[tuple[int, zipfile.ZipInfo]],
    places: list[tuple[str, str]],
    limits: Limits,
    findings: Findings,
) -> None:
    size = 0
    first: dict[PurePosixPath, int] = {}
    for (number, member), (split, label) in zip(members, places, strict=True):
        try:
            earlier = first.setdefault(PurePosixPath(member.filename), number)
            if earlier != number:
                detail = f"member {earlier} has this name already"
                raise InvalidRow("duplicate_member", detail, "give each picture a name of its own")
            content = _content(archive, member, limits)
            size += len(content)
            if size > limits.max_bytes:
                raise too_large(limits.max_bytes)
            row = _picture(content, limits)
        except InvalidRow as fault:
            name = f"member {member.filename[:200]!r}: "
            findings.row(number, InvalidRow(fault.code, name + fault.detail, fault.remedy))
            continue
        rows.add({**row, "label": label, "split": split or None}, len(content))


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: Limits) -> bytes:
    if member.flag_bits & 1:
        raise InvalidRow("encrypted", "it is encrypted", "make the ZIP without a password")
    try:
        with archive.open(member) as stream:
            # What the archive says of the size is not to be trusted, so it is counted.
            content = stream.read(limits.max_cell_bytes + 1)
            if len(content) <= limits.max_cell_bytes and stream.read(1):
                raise zipfile.BadZipFile("it is longer than it says")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InvalidRow("broken_zip", f"it cannot be unpacked: {error}", "make the ZIP again") from error
    if len(content) > limits.max_cell_bytes:
        raise InvalidRow("cell_too_large", f"it has more than {limits.max_cell_bytes} bytes", "make it smaller")
    if not content:
        raise InvalidRow("empty_file", "it is empty", "leave it out")
    return content


def _picture(content: bytes, limits: Limits) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                if width * height > limits.max_pixels:
                    detail = f"it has {width} x {height} pixels, more than {limits.max_pixels}"
                    raise InvalidRow("image_too_large", detail, "scale it down")
                if getattr(image, "n_frames", 1) > 1:
                    raise InvalidRow("animated", "it is an animation", "take one picture of it")
                image.load()
                mode = image.mode
    except UnidentifiedImageError as error:
        raise InvalidRow("not_an_image", "it is no picture", f"send one of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        # Pillow's own cap, which it holds before the size can be asked for.
        detail = f"it says that it has far more than {limits.max_pixels} pixels"
        raise InvalidRow("image_too_large", detail, "scale it down") from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise InvalidRow("broken_image", f"the picture cannot be decoded: {error}", "save it again") from error
    return {
        "id": hashlib.sha256(content).hexdigest()[:16],
        "image": content,
        "width": width,
        "height": height,
        "mode": mode,
    }
