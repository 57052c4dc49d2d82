"""The receipt of a folder as a server writes it, for whoever checks one."""

import hashlib
from pathlib import Path
from typing import Any

from client import canonical_json
from client.archive import stored_zip
from client.signature import sign


def write_receipt(folder: Path, key: Path, **changes: Any) -> None:
    """Write the receipt of a folder's files, signed with a key, and `model.zip` beside it."""
    files = [path for path in sorted(folder.iterdir()) if path.name not in ("receipt.json", "model.zip")]
    receipt: dict[str, Any] = {
        "job": "job_1",
        "quality": {"exported": {"value": 1.0, "n": 200, "ci95": [0.9, 1.0]}, "accuracy": {"exported": 1.0}},
        "files": [
            {
                "path": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size_bytes": path.stat().st_size,
            }
            for path in files
        ],
        **changes,
    }
    receipt["signature"] = sign(receipt, key)
    (folder / "receipt.json").write_bytes(canonical_json.encode(receipt))
    with (folder / "model.zip").open("w+b") as stream:
        stored_zip([*files, folder / "receipt.json"], stream)
