"""The untreated twin: the same job without compression, to be compared with. Knows two bands and no instruction."""

from pathlib import Path

from engine.checkpoint import Snapshots
from engine.inference import eager_answers
from engine.interrupt import Interrupt
from engine.ports import Answers
from engine.run import Run, WarningsOnly
from engine.train import train

COMPRESSING = frozenset({"compression", "quantization_aware_training"})


def untreated_answers(run: Run, folder: Path, fingerprint: str, interrupt: Interrupt) -> Answers:
    """Train with the same seed and nothing that compresses; the answers on the test rows, (n, k)."""
    sink = WarningsOnly(run)
    twin = Run(run.spec, run.plan.without(one.number for one in run.plan.instructions if one.band in COMPRESSING), sink)
    twin.task, twin.data = run.task, run.data
    train(twin, Snapshots(folder / "twin", sink, fingerprint), interrupt)
    return eager_answers(twin.task, twin.model, twin.data.examples["test"])
