"""Measures exported files in the tests' own process: a fresh one takes seconds to load."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import deliver, evaluate_model
from engine.measure import Request, measure
from engine.ports import Answers


@contextmanager
def in_this_process() -> Iterator[None]:
    """Within, nothing that is delivered or evaluated starts a process."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (deliver, evaluate_model):
            patch.setattr(module, "in_fresh_process", _measured)
        yield


def _measured(request: Request, folder: Path) -> tuple[Answers, Mapping[str, Any]]:
    request.save(folder / "request.json")
    measure(Request(**json.loads((folder / "request.json").read_text())), folder)
    return np.load(folder / "answers.npy"), json.loads((folder / "measured.json").read_text())
