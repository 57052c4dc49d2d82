"""The panel's own scripts and styles, and the chart library's script out of its installed package.

Each has an address with a hash of the content in it, so browsers keep it for ever and never have an old one. Modules
import each other by relative addresses, so all files of our own share one hash.
"""

import gzip
import hashlib
import importlib.util
import mimetypes
import re
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import NotFound

FOLDER = Path(__file__).with_name("static")
LIBRARY = "plotly.min.js"
SMALL_BYTES = 1_000


@dataclass
class Asset:
    """A file as it is sent; packed once, when it is first asked for packed."""

    content: bytes
    media_type: str
    _packed: bytes | None = field(default=None, repr=False)

    @property
    def packed(self) -> bytes:
        """The content as gzip has it."""
        if self._packed is None:
            self._packed = gzip.compress(self.content, 6)
        return self._packed


def _library_path() -> Path:
    """Where the installed package keeps its script; the package itself is not imported, which would take a second."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package plotly is not installed: pip install 'fiftytwo[server]'")
    return Path(spec.origin).with_name("package_data") / LIBRARY


def _asset(path: Path) -> Asset:
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = media_type.startswith("text/") or media_type.endswith(("javascript", "svg+xml"))
    return Asset(path.read_bytes(), f"{media_type}; charset=utf-8" if text else media_type)


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


def _sheets(script: bytes) -> list[str]:
    return [found.decode() for found in dict.fromkeys(re.findall(rb'getElementById\("([0-9a-f]{64})"\)', script))]


def _load() -> dict[str, tuple[str, Asset]]:
    own = {path.name: _asset(path) for path in sorted(FOLDER.iterdir()) if path.is_file()}
    shared = _digest(*(asset.content for asset in own.values()))
    library = _asset(_library_path())
    return {name: (shared, asset) for name, asset in own.items()} | {
        LIBRARY: (_digest(library.content), library),
    }


_ASSETS = _load()
SHEETS = ("plotly.js-style-global", *_sheets(_ASSETS[LIBRARY][1].content))
"""Ids of the style elements that the library makes unless they are there: the policy refuses them, so a page that draws
has elements of these ids already, the first of them a sheet of ours that its rules go into."""


def address(name: str) -> str:
    """Where a page finds this file."""
    return f"/static/{_ASSETS[name][0]}/{name}"


def find(digest: str, name: str) -> Asset:
    """The file with this name and hash; NotFound for another hash, so that nobody keeps a wrong file for ever."""
    known, asset = _ASSETS.get(name, (None, None))
    if asset is None or known != digest:
        raise NotFound(f"no file {name} of this version", remedy="load the page again")
    return asset
