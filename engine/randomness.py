"""Seeds by counter instead of by history: what is drawn at a step depends on that step alone.

Saving generator states is not enough to resume bit-exactly (a worker thread or a skipped step moves them), so every
stream is seeded anew from (seed, stream, counters).
"""

import hashlib
import os

import numpy as np
import torch


def derive(seed: int, *stream: int | str) -> int:
    """A 63-bit seed from a job's seed and the name of a stream, such as ("order", epoch)."""
    text = "/".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *stream: int | str) -> np.random.Generator:
    """A NumPy generator of its own for one stream."""
    return np.random.Generator(np.random.Philox(derive(seed, *stream)))


def reseed(seed: int, *stream: int | str) -> None:
    """Set PyTorch's global generators, which dropout and initialisation read, to one stream."""
    torch.manual_seed(derive(seed, *stream))


def settle_sums() -> None:
    """Let this process add in one order each time, so that equal jobs give equal bytes."""
    # cuBLAS reads this when it is first used, and without it has no order of its own for its sums.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard for debugging that costs a pass over each new buffer; its module hides the setting from type checkers.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
