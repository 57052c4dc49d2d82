"""What runs a job of each kind. Knows no server: a job file's spec in, events and files out."""

from collections.abc import Callable, Mapping
from pathlib import Path

from engine.aggregate import aggregate_updates
from engine.compress import compress_model
from engine.detect import detect_inputs
from engine.errors import Fault, InvalidPlan
from engine.evaluate_model import evaluate_model
from engine.events import Sink
from engine.interrupt import Interrupt
from engine.job import run_job
from engine.kinds import AnySpec

# Each takes the class of `engine.kinds.SPECS` under the same kind, which a mapping's type cannot say.
RUNNERS: Mapping[str, Callable[..., None]] = {
    "train": run_job,
    "evaluate": evaluate_model,
    "compress": compress_model,
    "detect": detect_inputs,
    "aggregate": aggregate_updates,
}
"""By kind, as (spec, folder, sink, *, job, interrupt)."""


def run_any(spec: AnySpec, folder: Path, sink: Sink, *, job: str | None, interrupt: Interrupt) -> None:
    """Run a spec of any kind; outputs land in `folder`.

    Raises:
        EngineError: with every fault found.
        StopRequested: the same call goes on from a snapshot, or begins anew where the kind takes none.
    """
    runner = RUNNERS.get(spec.kind)
    if runner is None:
        detail = f"jobs of kind {spec.kind} cannot be run here"
        raise InvalidPlan([Fault("/kind", "kind_not_available", detail, f"send one of: {', '.join(RUNNERS)}")])
    runner(spec, folder, sink, job=job, interrupt=interrupt)
