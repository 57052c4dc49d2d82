"""Stands in for `python -m engine` where the worker is measured: so much work for one thread, told of step by step."""

import hashlib
import json
import sys
from datetime import UTC, datetime
from typing import Any

STEPS = int(sys.argv[1])
"""The engine's own words come after it."""
BLOCK = bytes(1 << 23)
SERIES = ("train_loss", "learning_rate", "gradient_norm", "step_seconds", "memory_bytes", "examples_per_second")


def tell(kind: str, **values: Any) -> None:
    """One event, as the engine writes it."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"event": kind, "at": at, **values}), flush=True)


if __name__ == "__main__":
    tell("phase_started", phase="train")
    for step in range(1, STEPS + 1):
        value = hashlib.sha256(BLOCK).digest()[0] / 256
        tell("step_done", step=step, total_steps=STEPS, values=dict.fromkeys(SERIES, value))
    tell("finished", result={})
