"""What a worker does when the bell rings: claim, fetch, supervise, store, finish, until nothing is queued.

Ties the lease, the engine's process and the recorder together; each of them knows nothing of the others.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from app.database import Database
from app.jobs import lifecycle
from app.jobs.lifecycle import Batch, Ending, Run
from app.jobs.states import TERMINAL, State
from app.logs import about_job
from app.settings import Settings
from app.storage import Storage
from client.signature import ensure_key
from worker.diagnosis import DATA_GONE, DISK_FULL, diagnose
from worker.draws import Draws
from worker.folder import InputGone, RunFolder
from worker.lease import DATABASE_AWAY, Lease, LeaseLapsed
from worker.recorder import Recorder
from worker.snapshots import Snapshots, erase
from worker.supervise import STOPPED, Engine, Exit, Wish, supervise
from worker.tracking import Telling, tracker_of

log = logging.getLogger(__name__)

# What the engine's process may see of the worker's environment: where programs, libraries and devices are. Keys, and
# where the database, the broker and the store are, it has no business to know.
PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV")
PASSED_PREFIXES = (
    "LC_",
    "PYTHON",
    "LD_",
    "CUDA_",
    "CUBLAS_",
    "CUDNN_",
    "NVIDIA_",
    "OMP_",
    "MKL_",
    "KMP_",
    "GOMP_",
    "OPENBLAS_",
    "MALLOC_",
    "TORCH_",
    "PYTORCH_",
    "XDG_",
    "SSL_",
    "HF_HUB_",
    "HF_HOME",
)


class Rings(Protocol):
    """A bell."""

    def ring(self) -> None:
        """Wake another worker."""


class Worker:
    """One worker: runs one job at a time."""

    def __init__(self, settings: Settings, database: Database, storage: Storage, bell: Rings, owner: str) -> None:
        self.settings = settings
        self.database = database
        self.storage = storage
        self.bell = bell
        self.owner = owner
        self.stopping = threading.Event()
        """Set when the worker is asked to leave: the running job is handed back."""
        self.busy = threading.Event()
        self._tracker = tracker_of(settings)

    def run_next(self) -> None:
        """Run queued jobs, the fairest first, until none is left or the worker has to leave."""
        self.busy.set()
        try:
            while not self.stopping.is_set():
                settings = self.settings
                run = lifecycle.claim(self.database, self.owner, settings.lease_seconds, settings.threads)
                if run is None:
                    return
                self._wake_another()
                self.execute(run)
        finally:
            self.busy.clear()

    def _wake_another(self) -> None:
        # What is claimed has to run in any case; the rounds ring for what waits once the database is back.
        with suppress(*DATABASE_AWAY):
            if lifecycle.any_queued(self.database):
                self.bell.ring()

    def execute(self, run: Run) -> State | None:
        """Run one claimed job to its end, or until it is handed back; its state then, or None if it was fenced off."""
        with about_job(run.job_id):
            return self._execute(run)

    def _execute(self, run: Run) -> State | None:
        log.info("job %s, attempt %d", run.job_id, run.attempt)
        with (
            lifecycle.storing(self.database, self.storage, run.owner) as store,
            self._lease(run) as lease,
        ):
            folder = RunFolder(self.settings.data_dir, self.storage, run, store)
            telling, state = Telling(self._tracker, run, lambda: lease.state is None), None
            try:
                state = self._conclude(run, lease, folder, self._run_engine(run, lease, folder, telling))
            except LeaseLapsed:
                log.warning("the database was away for longer than the lease of %s", run.job_id)
                return None
            except Exception as error:
                # Whatever it was, the job must not hang until its lease lapses, and the worker has others to serve.
                log.exception("job %s could not be run", run.job_id)
                state = self._excuse(run, lease, error)
            finally:
                telling.end(state)
        if state in TERMINAL:
            folder.clear()
            if self._remote:
                erase(self._erase_snapshots(run), 0)
        log.info("job %s is %s", run.job_id, state or "no longer ours")
        return state

    def _lease(self, run: Run) -> Lease:
        settings = self.settings
        return Lease(self.database, run, settings.lease_seconds, settings.heartbeat_seconds, self.stopping.is_set)

    def _run_engine(self, run: Run, lease: Lease, folder: RunFolder, telling: Telling) -> Exit:
        folder.prepare()
        settings = self.settings
        arguments = [str(folder.spec_path), "--out", str(folder.path), "--job", run.job_id]
        arguments += ["--threads", str(run.threads)]
        snapshots = Snapshots(folder.save_snapshot, self._erase_snapshots(run))

        def write(batch: Batch) -> State | None:
            state = lifecycle.record(self.database, run, batch)
            lease.observe(state)
            telling.take(batch.points if state is not None else ())
            if batch.snapshots:
                snapshots.recorded()
            return state

        recorder = Recorder(write, run.latest)
        draws = Draws(folder.path, run.privacy["recorded"]) if run.privacy is not None else None

        def take(event: Mapping[str, Any]) -> None:
            recorder.take(event)
            if self._remote and event["event"] == "checkpoint_written":
                snapshots.store(event)

        def wish() -> Wish:
            snapshots.collect(recorder.note)
            recorder.flush_if_due()
            return self._wish(lease)

        engine = Engine(
            settings.engine_arguments + arguments, folder.path, self._environment(run), settings.job_memory_bytes
        )
        with snapshots:
            ending = supervise(engine, take, wish, settings.stop_grace_seconds)
            snapshots.collect_all(recorder.note)
            if draws is not None:
                # Whatever ended the engine, it may have had no time to tell of its last draw.
                recorder.note_draws(draws.so_far())
            lease.insist(recorder.flush_or_raise)
        return ending

    @property
    def _remote(self) -> bool:
        return self.settings.storage_url is not None

    def _erase_snapshots(self, run: Run) -> Callable[[int], None]:
        return partial(lifecycle.drop_snapshots, self.database, self.storage, run.job_id)

    def _wish(self, lease: Lease) -> Wish:
        if lease.state is None or lease.state is State.CANCELLING:
            return Wish.DIE
        return Wish.STOP if lease.state is State.PAUSING or self.stopping.is_set() else Wish.GO_ON

    def _conclude(self, run: Run, lease: Lease, folder: RunFolder, ending: Exit) -> State | None:
        if lease.state is None:
            return None
        last = ending.last or {}
        if (ending.code, last.get("event")) in ((0, "finished"), (1, "failed")):
            return self._finish(run, lease, folder, ending, last)
        if ending.stopped:
            return lease.insist(partial(lifecycle.settle, self.database, run))
        error = diagnose(ending.code, folder.log_tail())
        if error is not None:
            return self._end(run, lease, Ending(error=error), folder)
        reason = "stopped by somebody else" if ending.code == STOPPED else f"the engine ended with {ending.code}"
        return self._lose(run, lease, reason)

    def _finish(self, run: Run, lease: Lease, folder: RunFolder, ending: Exit, last: Mapping[str, Any]) -> State | None:
        outputs = [lease.insist(partial(folder.save, told)) for told in ending.outputs]
        whole = Ending(error=last.get("error"), result=last.get("result"), outputs=outputs)
        return self._end(run, lease, whole, folder)

    def _end(self, run: Run, lease: Lease, ending: Ending, folder: RunFolder) -> State | None:
        if self._remote:
            ending = Ending(ending.error, ending.result, ending.outputs, lease.insist(folder.save_log))
        return lease.insist(partial(lifecycle.finish, self.database, run, ending))

    def _lose(self, run: Run, lease: Lease, reason: str, *, counted: bool = True) -> State | None:
        log.warning("job %s was lost: %s", run.job_id, reason)
        lose = partial(lifecycle.lose, self.database, run, self.settings.max_lapses, reason, counted=counted)
        return lease.insist(lose)

    def _excuse(self, run: Run, lease: Lease, error: Exception) -> State | None:
        """End or hand back a job that failed on the worker's own side."""
        try:
            if isinstance(error, InputGone):
                return lease.insist(partial(lifecycle.finish, self.database, run, Ending(error=DATA_GONE)))
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return lease.insist(
                    partial(lifecycle.finish, self.database, run, Ending(error=DISK_FULL, counted=False))
                )
            return self._lose(run, lease, f"{type(error).__name__} in the worker", counted=False)
        except LeaseLapsed:
            return None

    def _environment(self, run: Run) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith(PASSED_PREFIXES)}
        if self.settings.models_dir is not None:
            kept["FIFTYTWO_MODELS_DIR"] = str(self.settings.models_dir)
        kept["FIFTYTWO_CACHE_DIR"] = str(self.settings.cache)
        kept["FIFTYTWO_RECEIPT_KEY_FILE"] = str(ensure_key(self.settings.receipt_key))
        # A run shares the machine with everything else here: its threads sleep while they wait for each other.
        # Spinning, as OpenMP does by default, costs a busy machine a multiple of the work.
        sharing = {"OMP_WAIT_POLICY": "PASSIVE", **kept}
        # What a run prints becomes a log, where a bar that is drawn anew a hundred times is a hundred lines.
        sharing |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return sharing | {"OMP_NUM_THREADS": str(run.threads), "PYTHONUNBUFFERED": "1"}
