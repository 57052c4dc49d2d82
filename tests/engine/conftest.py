"""One thread for tiny tensors: more only wait for each other, the more so where cores are shared."""

from collections.abc import Iterator

import pytest
import torch

from tests.engine.measured import in_this_process

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def measured_here() -> Iterator[None]:
    """Files are measured in this process; a fresh one is what the tests of delivery start."""
    with in_this_process():
        yield
