"""The metrics of a step on their way to the listener. Knows no instruction and no listener.

Values stay tensors until a batch of steps is told, so that an accelerator is not waited for at every step.
"""

import math
import resource
import sys
import time

import torch

from engine.errors import Diverged
from engine.ports import device_of
from engine.run import Run

_TOLD_EVERY_SECONDS = 0.5
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux


class Panel:
    """Collects the metrics of taken steps and tells them in batches."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: list[tuple[int, dict[str, float | torch.Tensor]]] = []
        self._told = self._stepped = time.perf_counter()

    def add(self, values: dict[str, float | torch.Tensor], examples: int) -> None:
        """Take the metrics of the step that was just made."""
        now = time.perf_counter()
        seconds, self._stepped = max(now - self._stepped, 1e-9), now
        timed = {
            "step_seconds": seconds,
            "examples_per_second": examples / seconds,
        }
        self._waiting.append((self._run.clock.step, {**values, **timed, **self._run.memory.pop("panel", {})}))
        if now - self._told >= _TOLD_EVERY_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Emit what waits.

        Raises:
            Diverged: at the first loss that is not finite, after telling of the steps before it.
        """
        self._told = time.perf_counter()
        waiting, self._waiting = self._waiting, []
        # Asked once for all: an accelerator's allocator takes longer for its figures than for a tensor.
        memory = _memory_bytes(self._run) if waiting else 0.0
        for step, values in waiting:
            plain = {name: float(value) for name, value in values.items()} | {"memory_bytes": memory}
            if not math.isfinite(plain.get("train_loss", 0.0)):
                raise Diverged(
                    f"the loss is {plain['train_loss']} at step {step}",
                    remedy="lower training.learning_rate, or choose 20 or 22",
                )
            finite = {name: value for name, value in plain.items() if math.isfinite(value)}
            self._run.tell(step, finite)


def _memory_bytes(run: Run) -> float:
    """The peak so far: of the allocator on an accelerator, of the process elsewhere."""
    if device_of(run.model).type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT)
