"""`python -m engine job.json --out DIR`: a spec in, events as JSON lines and files out. Knows no server.

Exit codes: 0 finished, 1 failed (the last line says why), 2 the command line is wrong or names no file, 75 stopped
after a snapshot (the same command goes on). Anything else: the process was lost, and the same command goes on from the
newest snapshot.
"""

import argparse
import errno
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import IO

import torch
import transformers
from pydantic import ValidationError

from engine.allocator import keep_freed_memory
from engine.errors import DiskFull, EngineError, InvalidData, InvalidPlan, InvalidSpec, OutOfMemory
from engine.events import Failed, JsonLines, Stopped
from engine.faults import from_validation
from engine.interrupt import Interrupt, StopRequested
from engine.kinds import AnySpec, spec_class
from engine.runners import run_any
from engine.spec import Spec

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again
_REFUSED_ALLOCATION = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "_status_alloc_failed",  # of cuBLAS and cuDNN, which allocate by themselves
    "could not create a primitive",  # of oneDNN, likewise
    "could not execute a primitive",
    "can't start new thread",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one job file; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m engine", description="Run one job from its spec, without a server."
    )
    parser.add_argument("job", type=Path, help="the spec as JSON; `dataset` names prepared files")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="outputs and snapshots land here; a folder with a snapshot is gone on from",
    )
    parser.add_argument("--job", dest="id", help="the job's id, for the receipt")
    parser.add_argument("--threads", type=int, default=0, help="threads of the run; 0 leaves PyTorch's choice")
    given = parser.parse_args(arguments)
    try:
        content = given.job.read_bytes()
    except OSError as error:
        parser.error(f"cannot read {given.job}: {error.strerror}; name a file that holds the job's spec as JSON")
    sink = JsonLines(_only_events())
    interrupt = Interrupt()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        interrupt.listen()
        run_any(_spec(content), given.out, sink, job=given.id, interrupt=interrupt)
    except StopRequested:
        sink.emit(Stopped())
        return STOPPED
    except InvalidSpec as error:  # where in our code that was found is nobody's news
        sink.emit(Failed(error=error.problem()))
        return 1
    except Exception as error:  # the border: whatever it was, the listener hears of it as a problem
        traceback.print_exc()
        sink.emit(Failed(error=as_engine_error(error).problem()))
        return 1
    return 0


def _only_events() -> IO[str]:
    """Standard output for events alone: what libraries print goes to standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _spec(content: bytes) -> AnySpec:
    try:
        kind = spec_class(json.loads(content))
    except ValueError:
        kind = Spec  # which says what is wrong with the text
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        faults = from_validation(error, kind)
        detail = "; ".join(fault.detail for fault in faults)
        raise InvalidSpec(detail, remedy="mend every listed fault", faults=faults) from error


def as_engine_error(error: Exception) -> EngineError:
    """Whatever was raised as a problem with a code and a remedy."""
    if isinstance(error, InvalidPlan):  # a plan that only the rows or the model could show to be wrong
        return InvalidData(error.detail, remedy=error.remedy, faults=error.faults)
    if isinstance(error, EngineError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        text in str(error).lower() for text in _REFUSED_ALLOCATION
    ):
        return OutOfMemory(
            str(error)[:500] or "an allocation was refused",
            remedy="lower training.batch_size and choose 24, or give the worker more memory",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DiskFull(str(error), remedy="free some space and submit the job again")
    return EngineError(
        f"{type(error).__name__}: {error}"[:500], remedy="read the job's log; if the data is sound, report it"
    )


if __name__ == "__main__":
    sys.exit(main())
