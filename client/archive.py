"""A model package's ZIP: written in the one way it can be, unpacked without trusting it. Knows no file's meaning."""

import os
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from client.errors import BadPackage

# A package has no folders and few files; a ZIP that goes beyond this was not made by the server.
MAX_ENTRIES = 100
MAX_BYTES = 16 * 2**30
_BLOCK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGE = 2**31 - 1
_AGAIN = "download the model again; if it stays so, the file was not made by this server"


def stored_zip(files: Iterable[Path], stream: IO[bytes]) -> None:
    """Write files as a ZIP whose bytes follow from their names and contents alone.

    Nothing is deflated: what a deflater makes differs from version to version, and weights hardly shrink.
    """
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, strict_timestamps=True) as archive:
        for file in sorted(files, key=lambda path: path.name):
            about = zipfile.ZipInfo(file.name, _EPOCH)
            about.compress_type, about.external_attr, about.create_system = zipfile.ZIP_STORED, 0o644 << 16, 3
            with file.open("rb") as source, archive.open(about, "w", force_zip64=file.stat().st_size > _LARGE) as sink:
                while block := source.read(_BLOCK):
                    sink.write(block)


def unpacked(owner: object, source: Path) -> Path:
    """The folder itself, or one that a ZIP is unpacked into for as long as its owner lives.

    Raises:
        BadPackage: there is neither.
    """
    if source.is_dir():
        return source
    if not source.is_file():
        raise BadPackage(f"there is no model at {source}", remedy="fiftytwo download JOB --out FOLDER")
    folder = Path(tempfile.mkdtemp(prefix="fiftytwo-model-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    unpack(source, folder)
    return folder


def unpack(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> list[Path]:
    """Unpack every entry of `archive` straight into `folder`, counting bytes while they come.

    Each file is written beside its place and then renamed, so an interrupted unpacking leaves no half file.

    Raises:
        BadPackage: not a ZIP, an entry with a folder in its name, a link, a name twice, or more bytes than allowed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    left = max_bytes
    try:
        with zipfile.ZipFile(archive) as package:
            entries = package.infolist()
            _check_names(archive, entries)
            for entry in entries:
                target = folder / entry.filename
                part = folder / f".{entry.filename}.part"
                with package.open(entry) as source, part.open("wb") as sink:
                    while block := source.read(_BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise BadPackage(f"{archive} unpacks to more than {max_bytes:,} bytes", remedy=_AGAIN)
                        sink.write(block)
                os.replace(part, target)
                written.append(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadPackage(f"{archive} is not a whole ZIP file: {error}", remedy=_AGAIN) from error
    finally:
        for part in folder.glob(".*.part"):
            part.unlink(missing_ok=True)
    return written


def _check_names(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise BadPackage(f"{archive} holds {len(entries)} entries, a package has at most {MAX_ENTRIES}", remedy=_AGAIN)
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        # Attribute bits 28 to 31 hold the kind of file where the ZIP was made on Unix; 0o12 is a symbolic link.
        is_link = entry.external_attr >> 28 == 0o12
        plain = name and not any(sign in name for sign in "/\\:\x00") and not name.startswith(".")
        if not plain or is_link or name in seen:
            raise BadPackage(f"{archive} holds an entry that no package has: {name!r}", remedy=_AGAIN)
        seen.add(name)
