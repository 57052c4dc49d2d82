"""Snapshots of a run, whole or absent. Knows nothing of what an instruction keeps in its memory.

A snapshot is written to a temporary file, synced, hashed and renamed; the last two are kept, so that a damaged one
costs some steps and never the run. It is this run's own file: weights of tenants are read as safetensors alone.
"""

import errno
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.disk import sync_folder
from engine.errors import DiskFull, InvalidData
from engine.events import CheckpointWritten, Sink
from engine.run import Clock, Run

_KEPT = 2
# Snapshots of a language model take longer than its steps: they get a twentieth of the time, if that is not too seldom.
_APART, _SELDOM = 20, 10


@dataclass(frozen=True)
class Snapshot:
    """What a run needs to go on as if it had never stopped."""

    memory: dict[str, dict[str, Any]]
    clock: Clock
    model: Mapping[str, torch.Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


class Snapshots:
    """The snapshots of one run's folder."""

    def __init__(self, folder: Path, sink: Sink, fingerprint: str = "", every_seconds: float = 30.0) -> None:
        """`fingerprint` says which job they are of: those of another are not gone on from.

        `every_seconds` apart at least; where writing one takes long, up to ten times as far.
        """
        self._folder = folder / "checkpoints"
        self._sink = sink
        self._fingerprint = fingerprint
        self._every = every_seconds
        self._last = time.monotonic()
        self._took = 0.0

    def due(self) -> bool:
        """Whether the last one is old enough for another."""
        apart = max(self._every, min(_APART * self._took, _SELDOM * self._every))
        return time.monotonic() - self._last >= apart

    def write(self, run: Run) -> None:
        """Write one and drop those before the last two.

        Raises:
            DiskFull: where it does not fit; the ones before stay as they are.
        """
        began = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step-{run.clock.step:09d}-{int(run.clock.trained)}.pt"
        temporary = path.with_suffix(".tmp")
        content = {
            "fingerprint": self._fingerprint,
            "memory": run.memory,
            "clock": asdict(run.clock),
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
        }
        try:
            torch.save(content, temporary)
            digest = _synced_hash(temporary)
            # The hash lands first: a snapshot without one counts as damaged.
            path.with_suffix(".sha256").write_text(digest)
            os.replace(temporary, path)
            sync_folder(self._folder)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            if not _no_room(error):
                raise
            raise DiskFull(
                f"a snapshot could not be written: {error}", remedy="free some space and resume the job"
            ) from error
        self._last = time.monotonic()
        self._took = self._last - began
        for old in sorted(self._folder.glob("step-*.pt"))[:-_KEPT]:
            old.unlink()
            old.with_suffix(".sha256").unlink(missing_ok=True)
        self._sink.emit(CheckpointWritten(step=run.clock.step, path=f"checkpoints/{path.name}", sha256=digest))

    def latest(self) -> Snapshot | None:
        """The newest snapshot whose bytes are those that were written; None where there is none.

        Raises:
            InvalidData: where it is of another job.
        """
        for path in sorted(self._folder.glob("step-*.pt"), reverse=True):
            recorded = path.with_suffix(".sha256")
            if recorded.is_file() and recorded.read_text() == _hash(path):
                content = torch.load(path, weights_only=True, map_location="cpu")
                if content["fingerprint"] != self._fingerprint:
                    raise InvalidData(
                        f"{self._folder.parent.name} holds snapshots of a job with another spec or other data",
                        remedy="run it into a folder of its own",
                    )
                return Snapshot(
                    content["memory"],
                    Clock(**content["clock"]),
                    content["model"],
                    content["optimizer"],
                    content["scaler"],
                )
        return None


def _no_room(error: OSError | RuntimeError) -> bool:
    """Whether a write failed for want of space: PyTorch's own writer says so by a check of its, without a number."""
    return error.errno == errno.ENOSPC if isinstance(error, OSError) else "inline_container" in str(error)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _synced_hash(path: Path) -> str:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()
