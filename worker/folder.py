"""The folder of a run: what the engine finds in it, and what is kept of it afterwards. Knows no database."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.jobs.lifecycle import Output, Run, Snapshot
from app.storage import Storage
from worker.supervise import LOG_NAME

log = logging.getLogger(__name__)


class InputGone(Exception):
    """A file that the run reads is not stored any more."""


class RunFolder:
    """`runs/JOB_ID`, which outlives the attempts of a job on this machine."""

    def __init__(self, data_dir: Path, storage: Storage, run: Run) -> None:
        self.path = data_dir / "runs" / run.job_id
        self.spec_path = self.path / "job.json"
        self.log_path = self.path / LOG_NAME
        self._storage = storage
        self._run = run

    def prepare(self) -> None:
        """Lay out the spec, the data sets under their ids, and the snapshots that this machine lacks.

        Raises:
            InputGone: a data set's file is gone.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("a", encoding="utf-8") as text:
            text.write(f"--- {self._run.job_id}, attempt {self._run.attempt} ---\n")
        self._fetch_snapshots()
        paths = {dataset_id: self._input(dataset_id, key) for dataset_id, key in self._run.inputs.items()}
        spec = dict(self._run.spec)
        named = spec.get("dataset")
        if isinstance(named, str):
            spec["dataset"] = paths[named]
        elif isinstance(named, Mapping):
            spec["dataset"] = {split: paths[one] if one is not None else None for split, one in named.items()}
        partial = self.spec_path.with_suffix(".partial")
        partial.write_text(json.dumps(spec), encoding="utf-8")
        os.replace(partial, self.spec_path)

    def save(self, told: Mapping[str, Any]) -> Output:
        """Store one output that the engine told of.

        Raises:
            ValueError: the file is not what was told, or does not lie in the folder.
        """
        path = (self.path / told["path"]).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise ValueError(f"{told['path']} leads out of the run's folder")
        stored = self._storage.save(path)
        if stored.sha256 != told["sha256"]:
            raise ValueError(f"{told['path']} is not the file that the engine wrote")
        return Output(told["kind"], told["filename"], told["media_type"], stored)

    def save_again_if_erased(self, told: Mapping[str, Any], output: Output) -> None:
        """Mend the one race of content keys: an equal file, of another row, erased before this job's row named it."""
        if not self._storage.has(output.stored.key):
            self._storage.save(self.path / told["path"])

    def save_snapshot(self, told: Mapping[str, Any]) -> Snapshot:
        """Store a snapshot, so that another machine can go on from it."""
        stored = self._storage.save(self.path / told["path"])
        return Snapshot(told["step"], told["path"], told["sha256"], stored.key)

    def clear(self) -> None:
        """Erase all but the log; the job has ended and its outputs are stored."""
        for entry in self.path.iterdir():
            if entry.name == LOG_NAME:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def log_tail(self, size_bytes: int = 8_192) -> str:
        """The end of the log."""
        with self.log_path.open("rb") as text:
            text.seek(max(0, self.log_path.stat().st_size - size_bytes))
            return text.read().decode("utf-8", "replace")

    def _input(self, dataset_id: str, key: str) -> str:
        path = self.path / "inputs" / f"{dataset_id}.parquet"
        path.parent.mkdir(exist_ok=True)
        local = self._storage.local_path(key)
        if local is not None:
            if not local.exists():
                raise InputGone(dataset_id)
            path.unlink(missing_ok=True)
            path.symlink_to(local)
        elif not path.exists():
            try:
                self._storage.fetch(key, path)
            except FileNotFoundError as error:
                raise InputGone(dataset_id) from error
        return str(path)

    def _fetch_snapshots(self) -> None:
        for snapshot in self._run.snapshots:
            path = self.path / snapshot.path
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            # The engine's own mark of a snapshot that is whole: its hash beside it.
            path.with_suffix(".sha256").write_text(snapshot.sha256)
            try:
                self._storage.fetch(snapshot.key, path)
            except OSError as error:
                # The run then goes on from an older one, or from the start: slower, and the result is the same.
                log.warning("a snapshot of %s could not be fetched: %s", self._run.job_id, error)
