"""The searches for pictures, against the closed form of a linear classifier and the bounds that none may leave."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from engine import attacks
from engine.attacks import Ball, apgd, ascent, pgd, square, still

EPSILON = 0.1
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def ball(epsilon: float = EPSILON) -> Ball:
    return Ball.of(MEAN, STD, epsilon, torch.device("cpu"))


def pictures(n: int = 6, seed: int = 0) -> Tensor:
    """Normalised pictures whose pixels stay clear of 0 and 1, so that the ball alone binds."""
    pixels = 0.3 + 0.4 * torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (MEAN, STD))
    return (pixels - mean) / std


def linear(n: int = 6) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Losses of a linear model of two classes, its weights (2, features), and the labels."""
    drawn = torch.Generator().manual_seed(1)
    weights = torch.randn(2, 48, generator=drawn)
    labels = torch.arange(n) % 2

    def losses(found: Tensor) -> Tensor:
        return nn.functional.cross_entropy(found.flatten(1) @ weights.T, labels, reduction="none")

    return losses, weights, labels


def closed_form(origin: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """The worst picture of a linear model: each pixel moves by the radius along the sign of the weights' difference."""
    direction = (weights[1 - labels] - weights[labels]).sign().view_as(origin)
    return origin + ball().radius * direction


SEARCHES: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor, Ball], Tensor]] = {
    "pgd": lambda losses, origin, where: pgd(losses, origin, where, steps=20, step=0.25, generator=drawn()),
    "apgd": lambda losses, origin, where: apgd(losses, origin, where, steps=30, generator=drawn()),
    "square": lambda losses, origin, where: square(losses, origin, where, queries=50, generator=drawn()),
}


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_the_search_reaches_the_worst_picture_of_a_linear_model(name: str) -> None:
    losses, weights, labels = linear()
    origin = pictures()
    worst = losses(closed_form(origin, weights, labels))
    found = losses(SEARCHES[name](losses, origin, ball()))
    assert torch.allclose(found, worst, atol=1e-5)


def test_square_comes_part_of_the_way_and_never_past_the_worst() -> None:
    losses, weights, labels = linear()
    origin = pictures()
    found, worst = losses(SEARCHES["square"](losses, origin, ball())), losses(closed_form(origin, weights, labels))
    assert (found <= worst + 1e-5).all()
    assert (found > losses(origin)).all()


@pytest.mark.parametrize("name", list(SEARCHES))
def test_no_search_leaves_the_ball_or_the_range_of_pixels(name: str) -> None:
    losses, _, _ = linear()
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (MEAN, STD))
    origin = (torch.rand(6, 3, 4, 4, generator=drawn()) - mean) / std
    change = (SEARCHES[name](losses, origin, ball()) - origin) * std
    assert change.abs().max() <= EPSILON + 1e-6
    moved = (origin * std + mean) + change
    assert moved.min() >= -1e-6
    assert moved.max() <= 1 + 1e-6
    assert change.abs().max() > 0.9 * EPSILON


def test_without_the_projection_the_bound_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, _, _ = linear()
    monkeypatch.setattr(Ball, "project", lambda self, origin, found: found)
    origin = pictures()
    change = (SEARCHES["pgd"](losses, origin, ball()) - origin) * torch.tensor(STD).view(-1, 1, 1)
    assert change.abs().max() > 2 * EPSILON


def test_no_room_is_no_change() -> None:
    losses, _, _ = linear()
    for search in SEARCHES.values():
        assert torch.allclose(search(losses, pictures(), ball(0.0)), pictures(), atol=1e-6)


def test_more_steps_never_find_less() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 3))
    labels = torch.arange(6) % 3

    def losses(found: Tensor) -> Tensor:
        return nn.functional.cross_entropy(net(found), labels, reduction="none")

    found = [
        losses(pgd(losses, pictures(), ball(), steps=steps, step=0.1, generator=drawn())) for steps in (0, 1, 5, 20)
    ]
    assert all((later >= earlier - 1e-6).all() for earlier, later in pairwise(found))


def test_the_search_leaves_gradients_and_modes_of_the_model_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2))
    net[2].eval()
    net(pictures()).sum().backward()
    before = [one.grad.clone() for one in net.parameters() if one.grad is not None]
    averages = net[1].running_mean.clone()  # type: ignore[operator]
    with still(net):
        pgd(lambda found: net(found)[:, 0], pictures(), ball(), steps=3, step=0.5, generator=drawn())
    after = [one.grad for one in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True) if b is not None)
    assert torch.equal(averages, net[1].running_mean)  # type: ignore[arg-type]
    assert [one.training for one in net] == [True, True, False, True, True]


def test_ascent_gives_the_gradient_of_the_summed_losses() -> None:
    losses, _, _ = linear()
    origin = pictures()
    values, gradient = ascent(losses, origin)
    assert torch.allclose(values, losses(origin))
    moved = origin.clone()
    moved[0, 0, 0, 0] += 1e-2
    slope = (losses(moved)[0] - values[0]) / 1e-2
    assert gradient[0, 0, 0, 0] == pytest.approx(float(slope), abs=1e-2)


def test_squares_shrink_on_the_way() -> None:
    shares = [attacks._share(progress) for progress in (0.0, 0.01, 0.3, 0.9)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 0.8
