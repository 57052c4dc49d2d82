"""A private run draws, clips and noises as its account says: each of the four known faults is caught by a test here.

Noise halved and noise a chunk by the variance over many steps; clipping off by one record's largest influence; a
divisor from the data by steps of unequal draws.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from engine.instruction import Window
from engine.journal import Journal
from engine.run import Run
from tests.engine.private_runs import BOUND, choice, clipped_sum, holder, private_begun, private_run, trained_weights
from tests.engine.tiny_run import trained

RARE = 1e-6


# Draws.


def _windows(run: Run, count: int) -> Iterator[Window]:
    one = holder(run)
    for _ in range(count):
        yield from one.grouping(run, one.order(run, 0), 0)


def test_draws_are_independent_in_rows_and_steps(tmp_path: Path) -> None:
    run = private_begun(tmp_path, steps=100)
    rows = len(run.data.train)
    sizes = np.array([sum(map(len, window.chunks)) for window in _windows(run, 20)])
    rate = 8 / rows
    statistic = float(((sizes - rows * rate) ** 2).sum() / (rows * rate * (1 - rate)))
    assert min(stats.chi2.cdf(statistic, len(sizes)), stats.chi2.sf(statistic, len(sizes))) > RARE
    assert abs(float(np.corrcoef(sizes[:-1], sizes[1:])[0, 1])) < 5 / len(sizes) ** 0.5


def test_the_seed_says_nothing_of_the_draws(tmp_path: Path) -> None:
    run = private_begun(tmp_path, steps=50)
    first, second = ([window.chunks for window in _windows(run, 1)] for _ in range(2))
    assert first != second


def test_the_divisor_is_the_fixed_number_also_of_an_empty_draw(tmp_path: Path) -> None:
    run = private_begun(tmp_path, steps=200, expected_batch=1)
    windows = list(_windows(run, 1))
    assert {window.divisor for window in windows} == {1.0}
    assert any(not window.chunks for window in windows)
    assert len(windows) == 200, "an empty draw is a step"


def test_chunks_are_sorted_by_length_and_bounded(tmp_path: Path) -> None:
    run = private_begun(tmp_path, steps=5, expected_batch=20, physical_batch=4)
    lengths = run.data.lengths("train")
    for window in _windows(run, 1):
        taken = [row for chunk in window.chunks for row in chunk]
        assert max(map(len, window.chunks)) <= 4
        assert [int(lengths[row]) for row in taken] == sorted((int(lengths[row]) for row in taken), reverse=True)
        assert len(set(taken)) == len(taken)


def test_a_record_that_stands_twice_is_drawn_once(tmp_path: Path) -> None:
    run = private_begun(tmp_path, steps=5, expected_batch=20)
    run.data.train.ids[5], run.data.train.labels[5] = run.data.train.ids[2], run.data.train.labels[2]
    assert 5 not in set(holder(run).order(run, 0))


# One record's influence.


def test_one_record_moves_the_sum_by_no_more_than_the_bound(tmp_path: Path) -> None:
    """Clipping off, or of the mean, or without the bias, is seen here."""
    run = private_begun(tmp_path)
    run.model.eval()
    rows = list(range(9))
    whole = clipped_sum(run, rows)
    moves = [float((whole - clipped_sum(run, [r for r in rows if r != row])).norm()) for row in rows]
    assert max(moves) == pytest.approx(BOUND, rel=1e-3), "somebody reaches the bound"
    assert max(moves) <= BOUND * (1 + 1e-4)


def test_the_step_of_a_draw_is_the_clipped_sum_over_the_fixed_number(tmp_path: Path) -> None:
    """A divisor from the data is seen: draws of 3 and of 6 rows are divided alike."""
    run = private_begun(tmp_path, noise_multiplier=0.3, noise_source="torch")
    run.model.eval()
    for rows in ([0, 1, 2], [0, 1, 2, 3, 4, 5]):
        total = clipped_sum(run, rows)
        steps = []
        for _ in range(300):
            run.journal = Journal()
            clipped_sum(run, rows)
            holder(run).gradients(run)
            steps.append(torch.cat([w.grad.flatten() for w in trained_weights(run) if w.grad is not None]))
        off = torch.stack(steps).mean(0) - total / 8
        assert float(off.abs().max()) < 6 * 0.3 * BOUND / 8 / 300**0.5


# Noise.


def _noisy_steps(run: Run, steps: int) -> torch.Tensor:
    """Gradients of steps whose draw is empty: noise alone."""
    found = []
    for _ in range(steps):
        run.journal = Journal()
        run.model.zero_grad(set_to_none=True)
        holder(run).gradients(run)
        found.append(torch.cat([w.grad.flatten() for w in trained_weights(run) if w.grad is not None]))
    return torch.stack(found)


@pytest.mark.parametrize("noise", ["os", "torch"])
def test_the_noise_of_a_step_has_the_variance_of_the_account(tmp_path: Path, noise: str) -> None:
    run = private_begun(tmp_path, scope="full", noise_multiplier=1.3, noise_source=noise)
    values = _noisy_steps(run, 300).double() / (1.3 * BOUND / 8)
    statistic, n = float(values.square().sum()), values.numel()
    assert n > 300_000
    assert min(stats.chi2.cdf(statistic, n), stats.chi2.sf(statistic, n)) > RARE


def test_noise_is_added_once_however_many_chunks_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = private_run(tmp_path, [choice(physical_batch=1, expected_batch=20, steps=3)])
    calls: list[float] = []
    module = __import__("engine.releases", fromlist=["privatise"])
    real: Callable[..., None] = module.privatise

    def counted(sums: list[torch.Tensor], *args: Any) -> None:
        calls.append(float(sums[0].numel()))
        real(sums, *args)

    monkeypatch.setattr(module, "privatise", counted)
    trained(run, tmp_path / "run")
    assert len(calls) == run.clock.step == 3


def test_nothing_secret_is_in_memory_or_in_a_snapshot(tmp_path: Path) -> None:
    run = trained(private_run(tmp_path, [choice()]), tmp_path / "run")
    assert set(run.state("dp_sgd")) == {"rate", "bound", "delta", "weights"}
    assert not run.memory.get("panel")
