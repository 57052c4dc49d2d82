"""Signatures of receipts: Ed25519 over the canonical JSON of all but the signature. Knows nothing of what they say.

The server signs and `fiftytwo verify` checks by the same module, so the two cannot drift apart.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from client import canonical_json
from client.errors import BadPackage, BadUsage

ALGORITHM = "ed25519"
FIELD = "signature"


def ensure_key(path: Path) -> Path:
    """Make the private key where there is none, readable by its owner only; safe among processes that start at once.

    The file is written whole beside its place and then linked, so nobody reads half a key and the first one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return path
    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(part, path)
    except FileExistsError:
        pass  # another process was first, and its key is the key
    finally:
        part.unlink(missing_ok=True)
    return path


def public_key(path: Path) -> str:
    """The public half of a private key's file, 32 bytes as base64."""
    return _spelled(_private(path).public_key().public_bytes_raw())


def sign(document: Mapping[str, Any], path: Path) -> dict[str, str]:
    """The signature of a document, whatever its field `signature` holds."""
    key = _private(path)
    value = key.sign(_signed_bytes(document))
    return {
        "algorithm": ALGORITHM,
        "public_key": _spelled(key.public_key().public_bytes_raw()),
        "value": _spelled(value),
    }


def check(document: Mapping[str, Any], pinned: str | None) -> str:
    """Check a document's signature, by the pinned public key where one is given; the key that it was made with.

    Raises:
        BadPackage: there is none, it is not spelled as it was written, it is of another key, or it does not hold.
        BadUsage: what is pinned is no public key.
    """
    if pinned is not None and _decoded(pinned, 32) is None:
        remedy = "`fiftytwo login` keeps the server's, and GET /v1/receipt-key tells it"
        raise BadUsage("the pinned key is no receipt key: that is 32 bytes in base64", remedy=remedy)
    given = document.get(FIELD)
    if not isinstance(given, Mapping) or set(given) != {"algorithm", "public_key", "value"}:
        raise _bad("the receipt is not signed", "download it again from a server that signs its receipts")
    if given["algorithm"] != ALGORITHM:
        raise _bad(f"the receipt is signed by {given['algorithm']!r}, not by {ALGORITHM}", "do not use the model")
    public, value = (_strict(given[name], name, size) for name, size in (("public_key", 32), ("value", 64)))
    if pinned is not None and _decoded(pinned, 32) != public:
        raise _bad("the receipt is signed by another key than the pinned one", "ask the server's operator for its key")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(value, _signed_bytes(document))
    except InvalidSignature:
        raise _bad(
            "the receipt's signature does not hold: it was changed after it was signed", "do not use it"
        ) from None
    return _spelled(public)


def _signed_bytes(document: Mapping[str, Any]) -> bytes:
    return canonical_json.encode({name: value for name, value in document.items() if name != FIELD})


def _private(path: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds no Ed25519 key")
    return key


def _spelled(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _strict(text: Any, name: str, size: int) -> bytes:
    content = _decoded(text, size)
    if content is None:
        raise _bad(f"{name} is no base64 of {size} bytes", "download the receipt again")
    return content


def _decoded(text: Any, size: int) -> bytes | None:
    """Bytes from base64 of one spelling alone, where padding bits that decoders ignore must be zero; else None."""
    try:
        content = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return None
    return content if len(content) == size and _spelled(content) == text else None


def _bad(detail: str, remedy: str) -> BadPackage:
    return BadPackage(detail, remedy=remedy)
