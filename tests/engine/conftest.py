"""One thread for tiny tensors: more only wait for each other, the more so where cores are shared."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import deliver, evaluate_model
from engine.measure import Request, measure
from engine.ports import Answers

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def measured_here() -> Iterator[None]:
    """Files are measured in this process: a fresh one takes seconds to load, and is what tests of delivery start."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (deliver, evaluate_model):
            patch.setattr(module, "in_fresh_process", _in_this_process)
        yield


def _in_this_process(request: Request, folder: Path) -> tuple[Answers, Mapping[str, Any]]:
    request.save(folder / "request.json")
    measure(Request(**json.loads((folder / "request.json").read_text())), folder)
    return np.load(folder / "answers.npy"), json.loads((folder / "measured.json").read_text())
