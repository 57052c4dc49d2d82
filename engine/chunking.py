"""How the rows of one step are cut into passes, where their sum does not depend on the cut. Knows no run."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

# What a pass costs beside its tokens, in tokens: calls on a processor, and an accelerator that waits for work.
PASS_COSTS = {"cpu": 128, "cuda": 8192}


def cut_by_length(lengths: npt.NDArray[np.int64], most: int, pass_cost: int) -> Iterator[slice]:
    """The cheapest passes over rows that are sorted by falling length, each padded to its first row.

    Args:
        lengths: tokens of each row, (n,), falling.
        most: rows a pass may have.
        pass_cost: tokens that a further pass costs.
    """
    rows = len(lengths)
    least, begins = np.zeros(rows + 1), np.zeros(rows + 1, dtype=np.int64)
    for end in range(1, rows + 1):
        first = max(0, end - most)
        costs = least[first:end] + lengths[first:end] * np.arange(end - first, 0, -1) + pass_cost
        begins[end] = first + int(costs.argmin())
        least[end] = costs.min()
    cuts = [rows]
    while cuts[-1]:
        cuts.append(int(begins[cuts[-1]]))
    cuts.reverse()
    yield from (slice(begin, end) for begin, end in pairwise(cuts))
