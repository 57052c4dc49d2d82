"""One attempt at a private run in a process of its own, which may end itself at any moment, and a spy on its noise."""

import os
import signal
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch

from engine import releases
from engine.checkpoint import Snapshots
from engine.interrupt import Interrupt
from engine.journal import FILENAME, Journal
from engine.noise import privatise
from engine.train import train
from tests.engine.tiny_run import text_run

CHOICE: dict[str, Any] = {"name": "dp_sgd", "steps": 25, "expected_batch": 8, "noise_multiplier": 1.0}
SPY = "spy"

Moment = Literal["drawn", "noted", "never"]


def attempt(folder: Path, moment: Moment, at: int) -> None:
    """Go on from what lies in `folder`; killed at draw number `at` of this attempt, after the noise or before it."""
    torch.set_num_threads(1)
    run = text_run(folder, [CHOICE], batch_size=32)
    run.journal = Journal(folder / FILENAME)
    real_append = run.journal.append
    made = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def noise(*given: Any) -> None:
        with (folder / SPY).open("ab") as stream:
            stream.write(b".")
            stream.flush()
            os.fsync(stream.fileno())
        privatise(*given)
        if moment == "drawn" and made == at:
            die()

    def append(*given: Any) -> None:
        nonlocal made
        real_append(*given)
        made += 1
        if moment == "noted" and made == at:
            die()

    with patch.object(releases, "privatise", noise), patch.object(run.journal, "append", append):
        train(run, Snapshots(folder / "run", run.sink, every_seconds=0.0), Interrupt())
