"""Searches for small changes of a picture that a model answers wrongly. Knows no task: functions and tensors only.

A search works in the model's own units inside a `Ball`: normalised pixels, with a radius for each channel that stands
for one radius in pixels. `losses` maps pictures (batch, channels, height, width) to one value each, (batch,); the
search makes it as large as it can. All draws come from the generator that is handed in.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from engine.pictures import Pictures

Losses = Callable[[Tensor], Tensor]


@runtime_checkable
class Pictured(Protocol):
    """A task that reads pictures."""

    pictures: Pictures


@dataclass(frozen=True)
class Ball:
    """What a search may reach: `radius` around the original and no value beyond `low` and `high`; (channels, 1, 1)."""

    radius: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], epsilon: float, device: torch.device) -> "Ball":
        """`epsilon` in pixels from 0 to 1, which were normalised by `mean` and `std`, a value a channel."""
        centre, spread = (torch.tensor(one, device=device).view(-1, 1, 1) for one in (mean, std))
        return cls(epsilon / spread, -centre / spread, (1 - centre) / spread)

    def project(self, origin: Tensor, found: Tensor) -> Tensor:
        """The nearest allowed picture: into the ball first, then into the range of pixels."""
        near = torch.minimum(torch.maximum(found, origin - self.radius), origin + self.radius)
        return torch.minimum(torch.maximum(near, self.low), self.high)

    def start(self, origin: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random picture inside."""
        drawn = torch.rand(origin.shape, generator=generator, device=origin.device, dtype=origin.dtype)
        return self.project(origin, origin + (2 * drawn - 1) * self.radius)


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """The model without dropout and with its batch norm's averages left alone; every module's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def ascent(losses: Losses, at: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (batch,) and their gradient at some pictures; `.grad` of the weights stays as it is."""
    at = at.detach().requires_grad_(True)
    values = losses(at)
    (gradient,) = torch.autograd.grad(values.sum(), at)
    return values.detach(), gradient


def pixel_scale(task: object) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation, a value a channel, that a task of pictures normalises pixels from 0 to 1 with.

    Raises:
        TypeError: for a task that reads no pictures.
    """
    if not isinstance(task, Pictured):
        raise TypeError("the task reads no pictures")
    return task.pictures.mean, task.pictures.std


def pgd(
    losses: Losses,
    origin: Tensor,
    ball: Ball,
    *,
    steps: int,
    step: float,
    generator: torch.Generator | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent by sign from a random start; each picture's worst point of the way.

    Args:
        step: as a share of the radius.
        first: where to start, in place of a random point.

    Source: Madry et al. 2018, section 2.1.
    """
    found = ball.start(origin, generator) if first is None else first
    best, highest = found, torch.full((len(origin),), -torch.inf, device=origin.device)
    for _ in range(steps):
        values, gradient = ascent(losses, found)
        best, highest = _kept(best, highest, found, values)
        found = ball.project(origin, found + step * ball.radius * gradient.sign())
    with torch.no_grad():
        return _kept(best, highest, found, losses(found))[0]


def apgd(losses: Losses, origin: Tensor, ball: Ball, *, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """PGD with momentum that halves a picture's step and goes back to its worst point where progress stalls.

    Source: Croce and Hein 2020, algorithm 1; the checkpoints are at equal distance here.
    """
    shape = (-1, *[1] * (origin.dim() - 1))
    found = before = ball.start(origin, generator)
    size = torch.full((len(origin),), 2.0, device=origin.device)
    best, highest = found, torch.full((len(origin),), -torch.inf, device=origin.device)
    gains = torch.zeros(len(origin), device=origin.device)
    every = max(2, steps // 5)
    for number in range(steps):
        values, gradient = ascent(losses, found)
        gains += (values > highest).float()
        best, highest = _kept(best, highest, found, values)
        if number and number % every == 0:
            stalled = gains < 0.75 * every
            size = torch.where(stalled, size / 2, size)
            found = torch.where(stalled.view(shape), best, found)
            before = torch.where(stalled.view(shape), best, before)
            gains.zero_()
        ahead = ball.project(origin, found + size.view(shape) * ball.radius * gradient.sign())
        found, before = ball.project(origin, found + 0.75 * (ahead - found) + 0.25 * (found - before)), found
    with torch.no_grad():
        return _kept(best, highest, found, losses(found))[0]


@torch.no_grad()
def square(losses: Losses, origin: Tensor, ball: Ball, *, queries: int, generator: torch.Generator) -> Tensor:
    """A search without gradients: random squares at the ball's corners, kept where they raise the loss.

    Source: Andriushchenko et al. 2020, the L-infinity attack, with their schedule of sizes.
    """
    n, channels, height, width = origin.shape
    stripes = _signs((n, channels, 1, width), origin, generator)
    best = ball.project(origin, origin + ball.radius * stripes)
    highest = losses(best)
    for number in range(1, queries):
        side = max(1, round((_share(number / queries) * height * width) ** 0.5))
        side = min(side, height, width)
        tried = best.clone()
        signs = _signs((n, channels, 1, 1), origin, generator)
        tops = torch.randint(0, height - side + 1, (n,), generator=generator).tolist()
        lefts = torch.randint(0, width - side + 1, (n,), generator=generator).tolist()
        for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            place = (i, slice(None), slice(top, top + side), slice(left, left + side))
            tried[place] = origin[place] + ball.radius * signs[i]
        tried = ball.project(origin, tried)
        best, highest = _kept(best, highest, tried, losses(tried))
    return best


def _kept(best: Tensor, highest: Tensor, found: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture's worst so far, and its loss."""
    better = values > highest
    shape = (-1, *[1] * (found.dim() - 1))
    return torch.where(better.view(shape), found, best), torch.where(better, values, highest)


def _signs(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, tuple(shape), generator=generator)
    return (2 * drawn - 1).to(like)


def _share(progress: float) -> float:
    """The part of the picture that a square covers: halved at the paper's points of the way."""
    points = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
    return float(0.8 / 2 ** sum(progress > point for point in points))
