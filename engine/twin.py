"""The untreated twin: the same job without compression, to be compared with. Knows two bands and no instruction."""

from pathlib import Path

from engine.checkpoint import Snapshots
from engine.inference import eager_answers
from engine.interrupt import Interrupt
from engine.ports import Answers
from engine.run import Run, inner_run
from engine.train import train

COMPRESSING = frozenset({"compression", "quantization_aware_training"})


def untreated_answers(run: Run, folder: Path, fingerprint: str, interrupt: Interrupt) -> Answers:
    """Train with the same seed and nothing that compresses; the answers on the test rows, (n, k)."""
    compressing = [one.number for one in run.plan.instructions if one.band in COMPRESSING]
    twin = inner_run(run, plan=run.plan.without(compressing))
    train(twin, Snapshots(folder / "twin", twin.sink, fingerprint), interrupt)
    return eager_answers(twin.task, twin.model, twin.data.examples["test"])
