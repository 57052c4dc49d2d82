"""One thread for tiny tensors: more only wait for each other, the more so where cores are shared. And no GPU."""

from collections.abc import Iterator

import pytest
import torch

from tests.engine.measured import in_this_process
from tests.engine.processor import on_the_processor

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    """What a GPU does is held by tests/gpu."""
    with on_the_processor():
        yield


@pytest.fixture(scope="module")
def measured_here() -> Iterator[None]:
    """Files are measured in this process; a fresh one is what the tests of delivery start."""
    with in_this_process():
        yield
