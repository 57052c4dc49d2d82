"""What tests/engine holds of a processor, held of a GPU. Without one every test here is left out.

With GPU_TESTS_ON_CPU=1 they run on the processor instead, to see that the tests themselves are right.
"""

import os
from collections.abc import Iterator

import pytest
import torch

from engine.prepare import device
from engine.randomness import settle_sums
from tests.engine.measured import in_this_process

torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out where there is nothing to run it on."""
    if not torch.cuda.is_available() and "GPU_TESTS_ON_CPU" not in os.environ:
        pytest.skip("needs a CUDA device: it holds of a GPU what tests/engine holds of a processor")


@pytest.fixture(scope="module", autouse=True)
def _measured_here() -> Iterator[None]:
    with in_this_process():
        yield


@pytest.fixture(autouse=True)
def _settled() -> None:
    """As every job begins: the first time is before cuBLAS is used."""
    settle_sums()


@pytest.fixture
def here() -> torch.device:
    """Where runs train."""
    return device()


@pytest.fixture
def cuda() -> torch.device:
    """The GPU; what needs its allocator or its arithmetic has no meaning elsewhere."""
    if not torch.cuda.is_available():
        pytest.skip("asks PyTorch's CUDA side itself")
    return torch.device("cuda")
