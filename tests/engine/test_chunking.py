"""Passes over sorted rows: as cheap as the best of all ways to cut them."""

from itertools import combinations

import numpy as np
import pytest

from engine.chunking import cut_by_length


def cost(lengths: list[int], ends: list[int], pass_cost: int) -> int:
    return sum(lengths[a] * (b - a) + pass_cost for a, b in zip([0, *ends], [*ends, len(lengths)], strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_no_way_to_cut_is_cheaper(seed: int) -> None:
    chance = np.random.default_rng(seed)
    lengths, most, pass_cost = np.sort(chance.integers(1, 60, 9))[::-1], int(chance.integers(1, 10)), 20
    found = list(cut_by_length(lengths, most, pass_cost))
    assert [row for cut in found for row in range(9)[cut]] == list(range(9))
    assert max(cut.stop - cut.start for cut in found) <= most
    plain = lengths.tolist()
    ways = [list(ends) for count in range(9) for ends in combinations(range(1, 9), count)]
    allowed = [ends for ends in ways if max(np.diff([0, *ends, 9])) <= most]
    assert cost(plain, [cut.stop for cut in found[:-1]], pass_cost) == min(cost(plain, e, pass_cost) for e in allowed)


def test_no_rows_make_no_pass() -> None:
    assert list(cut_by_length(np.zeros(0, np.int64), 4, 10)) == []


def test_a_dear_pass_keeps_rows_together() -> None:
    assert list(cut_by_length(np.array([90, 50, 10]), 3, 1000)) == [slice(0, 3)]
