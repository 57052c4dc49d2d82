"""Runs that stay on the processor, also where there is a GPU: what the engine's tests hold, they hold of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def on_the_processor() -> Iterator[None]:
    """Within, this process finds no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
