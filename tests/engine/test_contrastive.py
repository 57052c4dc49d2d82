"""Contrastive terms and ranks against loops that say the same slowly."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.contrastive import (
    alignment,
    contrastive_losses,
    mean_cosine,
    nearest,
    ranks,
    right_for,
    sides,
    told_apart,
    uniformity,
)
from engine.receipt import _warnings, guessed
from engine.rows import pair_labels
from engine.tasks.retrieval import Retrieval
from tests.engine.tiny import tiny_pair_rows


def _unit(seed: int, n: int = 4, d: int = 3) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=drawn, dtype=torch.float64), dim=1)


def _are_right(alike: Sequence[Sequence[int]], i: int, j: int) -> bool:
    """Whether some row has the first number of row i and the second of row j."""
    return any(one == alike[i][0] and other == alike[j][1] for one, other in alike)


def _turned(alike: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(other, one) for one, other in alike]


def _by_loops(first: Tensor, second: Tensor, scale: float, alike: Sequence[tuple[int, int]]) -> list[float]:
    """Cross-entropy of each row of `first` over the rows of `second`, one number at a time."""
    losses = []
    for i in range(len(first)):
        scores = [scale * float(first[i] @ second[j]) for j in range(len(second))]
        total = math.log(sum(math.exp(score) for score in scores))
        right = [j for j in range(len(second)) if _are_right(alike, i, j)]
        losses.append(sum(total - scores[j] for j in right) / len(right))
    return losses


@pytest.mark.parametrize(
    "alike",
    [
        [(0, 0), (1, 1), (2, 2), (3, 3)],
        [(0, 0), (1, 1), (0, 2), (3, 3)],
        [(0, 0), (1, 1), (2, 0), (3, 0)],
        [(0, 0), (1, 0), (1, 2), (3, 2)],  # one caption of two pictures that have others too
        [(5, 5), (5, 5), (5, 5), (5, 5)],
    ],
)
def test_both_directions_are_what_a_double_loop_gives(alike: list[tuple[int, int]]) -> None:
    text, image = _unit(0), _unit(1)
    to_image, to_text = contrastive_losses(text, image, torch.tensor(7.0), torch.tensor(alike))
    assert to_image.tolist() == pytest.approx(_by_loops(text, image, 7.0, alike), abs=1e-5)
    assert to_text.tolist() == pytest.approx(_by_loops(image, text, 7.0, _turned(alike)), abs=1e-5)


def test_swapped_towers_swap_the_directions() -> None:
    text, image, alike = _unit(2), _unit(3), torch.tensor([[0, 0], [1, 0], [0, 2], [3, 3]])
    forth = contrastive_losses(text, image, torch.tensor(5.0), alike)
    back = contrastive_losses(image, text, torch.tensor(5.0), alike.flip(1))
    assert torch.allclose(forth[0], back[1])
    assert torch.allclose(forth[1], back[0])
    assert not torch.allclose(forth[0], forth[1])


def test_the_gradient_is_that_of_finite_differences() -> None:
    text, image = (_unit(seed).requires_grad_(True) for seed in (4, 5))
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    alike = torch.tensor([[0, 0], [1, 0], [0, 2], [3, 3]])

    def loss(text: Tensor, image: Tensor, scale: Tensor) -> Tensor:
        to_image, to_text = contrastive_losses(text, image, scale, alike)
        spread = uniformity(text) + uniformity(image)
        return to_image.sum() + 0.5 * to_text.sum() + alignment(text, image).sum() + spread

    assert torch.autograd.gradcheck(loss, (text, image, scale))


def test_bf16_keeps_the_scores_whole() -> None:
    text, image, alike = _unit(6, 16, 8).float(), _unit(7, 16, 8).float(), torch.arange(16)[:, None].expand(16, 2)
    plain = contrastive_losses(text, image, torch.tensor(100.0), alike)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = contrastive_losses(text, image, torch.tensor(100.0), alike)
        spread = uniformity(text)
    assert torch.equal(plain[0], cast[0])
    assert torch.equal(spread, uniformity(text))


def test_alignment_and_uniformity_are_what_loops_give() -> None:
    text, image = _unit(8), _unit(9)
    distances = [float(((text[i] - image[i]) ** 2).sum()) for i in range(4)]
    assert alignment(text, image).tolist() == pytest.approx(distances, abs=1e-5)
    pairs = [math.exp(-2 * float(((text[i] - text[j]) ** 2).sum())) for i in range(4) for j in range(i)]
    assert float(uniformity(text)) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-5)
    assert float(uniformity(text[:1].expand(5, 3))) == pytest.approx(0.0, abs=1e-5)
    assert float(uniformity(text[:1])) == 0.0


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_ranks_count_the_wrong_ones_before_or_level(n: int, seed: int) -> None:
    drawn = np.random.default_rng(seed)
    # Few different vectors, so that ties are common.
    table = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], dtype=np.float32)
    alike = told_apart(pair_labels(drawn.integers(0, 3, n), drawn.integers(0, 3, n)))
    of_candidate = {number: table[drawn.integers(0, 4)] for number in alike[:, 1].tolist()}
    queries, candidates = table[drawn.integers(0, 4, n)], np.array([of_candidate[one] for one in alike[:, 1].tolist()])
    found = ranks(queries, candidates, alike)
    for i in range(n):
        scores = {int(alike[j, 1]): float(queries[i] @ candidates[j]) for j in range(n)}
        right = {int(alike[j, 1]) for j in range(n) if _are_right(alike.tolist(), i, j)}
        best = max(scores[one] for one in right)
        assert found[i] == sum(score >= best - 1e-6 for one, score in scores.items() if one not in right)


def test_other_captions_of_a_picture_are_right_and_its_rows_count_once() -> None:
    points = np.eye(6, dtype=np.float32)
    several = np.repeat(points[:5], 3, axis=0)  # an encoder that puts each caption onto its picture
    labels = pair_labels(np.zeros(15, np.int64), np.repeat(np.arange(1, 6), 3))
    alike = told_apart(labels)
    assert not ranks(several, several, alike).any()
    assert not ranks(several, several, alike[:, ::-1]).any()
    shown = several.copy()
    shown[:3], shown[3:6] = points[1], points[0]  # two pictures that are taken for each other
    assert ranks(several, shown, alike).tolist() == [4] * 6 + [0] * 9, "a picture of three rows is one place"
    assert ranks(shown, several, alike[:, ::-1]).tolist() == [14 - 2] * 6 + [0] * 9, "each caption is a text"


def test_a_caption_of_two_pictures_finds_both_under_any_caption() -> None:
    a, b = np.eye(2, dtype=np.float32)
    alike = np.array([[1, 1], [2, 1], [2, 2]])  # the picture of the second row has another caption in the first
    assert right_for(alike[:, 0], alike).tolist() == [[True, True, False], [True, True, True], [True, True, True]]
    assert ranks(np.array([a, a, a]), np.array([a, a, b]), alike).tolist() == [0, 0, 0]


def test_a_constant_encoder_and_one_of_no_numbers_find_nothing() -> None:
    constant = np.tile(np.array([[0.6, 0.8]], np.float32), (30, 1))
    assert (ranks(constant, constant, told_apart(np.zeros(30, np.int64))) == 29).all()
    nothing = np.full((5, 2), np.nan, np.float32)
    assert (ranks(nothing, nothing, told_apart(np.zeros(5, np.int64))) == 4).all()


def test_many_queries_are_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng(0)
    queries, candidates = (drawn.normal(size=(25, 6)).astype(np.float32) for _ in range(2))
    alike = told_apart(pair_labels(drawn.integers(0, 4, 25), drawn.integers(0, 9, 25)))
    whole = ranks(queries, candidates, alike), *nearest(queries, candidates)
    monkeypatch.setattr("engine.contrastive._QUERIES", 7)
    parts = ranks(queries, candidates, alike), *nearest(queries, candidates)
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_the_nearest_and_its_lead() -> None:
    queries = np.array([[1, 0], [0, 1]], np.float32)
    best, leads = nearest(queries, np.array([[0, 1], [0.6, 0.8], [1, 0]], np.float32))
    assert best.tolist() == [2, 0]
    assert leads == pytest.approx([0.4, 0.2], abs=1e-6)
    assert nearest(queries, queries[:1])[1].tolist() == [0, 0]


def test_mean_cosine_tells_a_collapse_from_a_spread() -> None:
    points = _unit(10, 6).numpy().astype(np.float32)
    by_hand = np.mean([points[i] @ points[j] for i in range(6) for j in range(6) if i != j])
    assert mean_cosine(points) == pytest.approx(float(by_hand), abs=1e-6)
    assert mean_cosine(np.tile(points[:1], (6, 1))) == pytest.approx(1.0, abs=1e-6)
    assert mean_cosine(points[:1]) == 0.0


def test_sides_and_captions() -> None:
    text, image = sides(np.arange(12).reshape(2, 6))
    assert (text.tolist(), image.tolist()) == ([[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]])
    labels = pair_labels(np.array([0, 2, 0, 2, 1]), np.array([3, 0, 3, 0, 0]))
    assert told_apart(labels).tolist() == [[-1, 3], [2, -2], [-3, 3], [2, -4], [1, -5]]


@pytest.mark.parametrize(("metric", "texts", "told"), [("recall_at_10", 9, "1.00"), ("recall_at_10", 16, "0.62")])
def test_a_recall_that_guessing_has_too_is_warned_of(metric: str, texts: int, told: str) -> None:
    drawn = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
    assert Retrieval().figures("recall_at_10", drawn, np.zeros(9, np.int64)).mean() == 1.0  # of no model at all
    rows = replace(tiny_pair_rows(texts), labels=np.zeros(texts, np.int64))
    run: Any = SimpleNamespace(data=SimpleNamespace(test=rows))
    quality = {"metric": metric, "loss": {"value": 0.0, "ci95": [0.0, 0.0]}}
    found = _warnings(run, quality, None, compresses=False)  # type: ignore[arg-type]  # no figure is looked at
    assert [one for one in found if f"guessing has {told} of {metric}" in one]
    assert guessed(metric, np.zeros(21, np.int64)) == guessed("accuracy", rows.labels) == []
