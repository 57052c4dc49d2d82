"""The counting language model against a slow one that is written down from the formulas."""

import math
from collections import Counter

import numpy as np
import pytest

from client.ngrams import NGrams

VOCABULARY = 7
TEXTS = [np.array(one) for one in ([0, 3, 4, 5, 1], [0, 3, 4, 4, 1], [0, 6, 1], [0, 1], [0, 3, 5, 1])]


def likelihood(token: int, before: tuple[int, ...]) -> float:
    """Witten and Bell's mixture, read off the texts one by one."""
    if not before:
        singles = Counter(int(one) for text in TEXTS for one in text)
        return (singles[token] + len(singles) / VOCABULARY) / (singles.total() + len(singles))
    lower = likelihood(token, before[1:])
    size = len(before)
    followers = Counter(
        int(text[i + size])
        for text in TEXTS
        for i in range(len(text) - size)
        if tuple(int(one) for one in text[i : i + size]) == before
    )
    if not followers:
        return lower
    return (followers[token] + len(followers) * lower) / (followers.total() + len(followers))


@pytest.mark.parametrize("ids", [[0, 3, 4, 5, 1], [0, 6, 6, 2, 1], [0, 2, 2, 2, 1], [0, 1]])
def test_the_surprise_is_the_mean_negative_log_likelihood(ids: list[int]) -> None:
    expected = [likelihood(token, tuple(ids[max(0, i - 2) : i])) for i, token in enumerate(ids) if i]
    found = NGrams.fit(TEXTS, VOCABULARY).surprise(np.array(ids))
    assert found == pytest.approx(-sum(map(math.log, expected)) / len(expected), rel=1e-6)


@pytest.mark.parametrize("before", [(0, 3), (3, 4), (6, 2), (2, 2)])
def test_likelihoods_sum_to_one(before: tuple[int, int]) -> None:
    made = NGrams.fit(TEXTS, VOCABULARY)
    two = made.surprise(np.array(before))
    total = sum(math.exp(two - 2 * made.surprise(np.array([*before, token]))) for token in range(VOCABULARY))
    assert total == pytest.approx(1.0, rel=1e-6)


def test_what_was_seen_surprises_less() -> None:
    made = NGrams.fit(TEXTS, VOCABULARY)
    assert made.surprise(np.array([0, 3, 4, 1])) < made.surprise(np.array([0, 5, 3, 1]))
    assert made.surprise(np.array([0])) == 0.0


def test_it_comes_back_from_its_arrays() -> None:
    made = NGrams.fit(TEXTS, VOCABULARY)
    again = NGrams.from_arrays(made.arrays())
    for ids in ([0, 3, 4, 5, 1], [0, 6, 2, 1]):
        assert again.surprise(np.array(ids)) == made.surprise(np.array(ids))


def test_nothing_seen_gives_every_token_the_same() -> None:
    assert NGrams.fit([], VOCABULARY).surprise(np.array([1, 2, 3])) == pytest.approx(math.log(VOCABULARY))


def test_a_vocabulary_that_leaves_ids_out_is_counted_like_any_other() -> None:
    beyond = [np.array([2, 5, 9, 12, 3])] * 4
    expected = NGrams.fit(beyond, 13).surprise(beyond[0])
    assert NGrams.fit(beyond, 10).surprise(beyond[0]) == expected
