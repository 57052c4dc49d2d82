"""The folder of a run: what the engine finds in it, and what is kept of it afterwards. Knows no database."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.jobs.lifecycle import Output, Run, Snapshot
from app.storage import Storage, Stored
from worker.supervise import LOG_NAME

log = logging.getLogger(__name__)


# How the engine knows files: by the kind of their ids.
_SUFFIXES = {"ds": ".parquet", "art": ".zip"}
_AS_SENT = frozenset({"instructions", "texts", "model"})


class InputGone(Exception):
    """A file that the run reads is not stored any more."""


def runs_of(data_dir: Path) -> Path:
    """Where the folders of runs are."""
    return data_dir / "runs"


def clear(folder: Path) -> None:
    """Erase all of a run's folder but the log."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name == LOG_NAME:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


class RunFolder:
    """`runs/JOB_ID`, which outlives the attempts of a job on this machine; `store` keeps a file of it for good."""

    def __init__(self, data_dir: Path, storage: Storage, run: Run, store: Callable[[Path], Stored]) -> None:
        self.path = runs_of(data_dir) / run.job_id
        self.spec_path = self.path / "job.json"
        self.log_path = self.path / LOG_NAME
        self._storage = storage
        self._store = store
        self._run = run

    def prepare(self) -> None:
        """Lay out the spec, what it reads under the ids, and the snapshots that this machine lacks.

        Raises:
            InputGone: a file that it reads is gone.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("a", encoding="utf-8") as text:
            text.write(f"--- {self._run.job_id}, attempt {self._run.attempt} ---\n")
        self._fetch_snapshots()
        paths = {one: self._input(one, key) for one, key in self._run.inputs.items()}
        for name, key in self._run.files.items():
            self._lay_out(self.path / name, key, name)
        spec = _with_paths(dict(self._run.spec), paths)
        if self._run.privacy is not None:
            spec["privacy_budget"] = self._budget(self._run.privacy)
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
        stored = self._store(path)
        if stored.sha256 != told["sha256"]:
            raise ValueError(f"{told['path']} is not the file that the engine wrote")
        return Output(told["kind"], told["filename"], told["media_type"], stored)

    def save_snapshot(self, told: Mapping[str, Any]) -> Snapshot:
        """Store a snapshot, so that another machine can go on from it."""
        stored = self._store(self.path / told["path"])
        return Snapshot(told["step"], told["path"], told["sha256"], stored.key)

    def save_log(self) -> str:
        """Store the log; its key."""
        return self._store(self.log_path).key

    def clear(self) -> None:
        """Erase all but the log; the job has ended and its outputs are stored."""
        clear(self.path)

    def log_tail(self, size_bytes: int = 8_192) -> str:
        """The end of the log."""
        with self.log_path.open("rb") as text:
            text.seek(max(0, self.log_path.stat().st_size - size_bytes))
            return text.read().decode("utf-8", "replace")

    def _input(self, input_id: str, key: str) -> str:
        suffix = _SUFFIXES.get(input_id.partition("_")[0], "")
        path = self.path / "inputs" / f"{input_id}{suffix}"
        self._lay_out(path, key, input_id)
        return str(path)

    def _lay_out(self, path: Path, key: str, name: str) -> None:
        """Let a stored file lie at `path`: a link where it is on this machine, else a copy."""
        path.parent.mkdir(parents=True, exist_ok=True)
        local = self._storage.local_path(key)
        if local is not None:
            if not local.exists():
                raise InputGone(name)
            path.unlink(missing_ok=True)
            path.symlink_to(local)
        elif not path.exists():
            try:
                self._storage.fetch(key, path)
            except FileNotFoundError as error:
                raise InputGone(name) from error

    def _budget(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What the engine reads of the job's account.

        The journal of a lost worker lies in this very folder where one machine, or a shared disk, serves all; elsewhere
        nobody knows what was drawn, so all that was planned is taken for drawn.
        """
        budget = dict(told)
        lost = budget.pop("lost")
        keys = [*self._run.inputs.values(), *self._run.files.values()]
        if lost is not None and any(self._storage.local_path(key) is None for key in keys):
            budget["recorded"] = lost
        return budget

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


def _with_paths(value: Any, paths: Mapping[str, str]) -> Any:
    """A spec with a path in the place of each id of something that the run reads, whichever field names it.

    Parameters and inline texts are the owner's own words, and what `model` names is laid out under `parent`.
    """
    if isinstance(value, str):
        return paths.get(value, value)
    if isinstance(value, list):
        return [_with_paths(one, paths) for one in value]
    if isinstance(value, dict):
        return {name: one if name in _AS_SENT else _with_paths(one, paths) for name, one in value.items()}
    return value
