"""The last step of a job: card, receipt and signature into the package, everything zipped, landed and announced.

Knows no instruction. The receipt is finished here, since it lists the files beside it and the signature covers it all.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client import canonical_json, signature
from engine.archive import entry, land, zip_folder
from engine.card import card
from engine.events import FileWritten, Sink

KEY_VARIABLE = "FIFTYTWO_RECEIPT_KEY_FILE"


@dataclass(frozen=True)
class Output:
    """A file of the job: what it is, and where it lies in the outputs."""

    kind: str
    media_type: str
    path: Path


def finished(receipt: Mapping[str, Any], package: Path | None, task: str, export_format: str) -> dict[str, Any]:
    """The receipt with its files and its signature, written into the package beside its card.

    The key comes from the file that FIFTYTWO_RECEIPT_KEY_FILE names; without one the signature stays null.
    """
    whole = dict(receipt)
    if package is not None:
        (package / "MODEL_CARD.md").write_text(card(receipt, task, export_format), encoding="utf-8")
        files = [entry(path) for path in sorted(package.iterdir())]
        whole["files"] = [asdict(one) for one in files]
        whole["size"] = {**receipt["size"], "package_bytes": sum(one.size_bytes for one in files)}
    key = os.environ.get(KEY_VARIABLE)
    whole[signature.FIELD] = signature.sign(whole, Path(key)) if key else None
    if package is not None:
        (package / "receipt.json").write_bytes(canonical_json.encode(whole))
    return whole


def hand_over(
    sink: Sink, outputs: Path, receipt: Mapping[str, Any], folders: Mapping[str, Path], others: Mapping[Output, bytes]
) -> None:
    """Land everything and announce each.

    Args:
        sink: who hears of the files.
        outputs: where they land.
        receipt: the finished receipt.
        folders: what becomes a ZIP, by kind: `model`, `checkpoint`.
        others: further files and their contents.
    """
    found = [
        Output(kind, "application/zip", zip_folder(folder, outputs / f"{kind}.zip")) for kind, folder in folders.items()
    ]
    content = canonical_json.encode(receipt)
    found.append(Output("receipt", "application/json", land(content, outputs / "receipt.json")))
    for other, content in others.items():
        land(content, outputs / other.path)
        found.append(Output(other.kind, other.media_type, outputs / other.path))
    for one in found:
        about = entry(one.path)
        sink.emit(
            FileWritten(
                kind=one.kind,
                filename=one.path.name,
                path=f"outputs/{one.path.name}",
                sha256=about.sha256,
                size_bytes=about.size_bytes,
                media_type=one.media_type,
            )
        )
