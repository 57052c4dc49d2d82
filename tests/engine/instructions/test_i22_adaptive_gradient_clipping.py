"""Instruction 22 against percentiles by NumPy, units one by one, and a run that is killed and resumed."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoint import Snapshots
from engine.errors import Diverged
from engine.events import Warned
from engine.instructions.gradients.i22_adaptive_gradient_clipping import AdaptiveGradientClipping
from engine.interrupt import Interrupt
from engine.run import Run
from engine.train import train
from tests.engine.tiny_run import begun, text_run, told, trained

NAME = "adaptive_gradient_clipping"


def _with_norm(run: Run, norm: float) -> torch.Tensor:
    """Give the model a gradient of a fixed direction and the norm asked for; the flat gradient."""
    drawn = torch.Generator().manual_seed(3)
    weights = list(run.model.parameters())
    raw = [torch.randn(weight.shape, generator=drawn) for weight in weights]
    length = math.sqrt(sum(float(one.double().pow(2).sum()) for one in raw))
    for weight, one in zip(weights, raw, strict=True):
        weight.grad = one * (norm / length)
    return _gradient(run)


def _gradient(run: Run) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in run.model.parameters() if weight.grad is not None]).clone()


def test_a_large_gradient_comes_out_at_the_percentile_in_its_own_direction(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    run.memory[NAME] = {"norms": [float(i) for i in range(1, 101)], "steps": 100, "clipped": 0.0}
    before = _with_norm(run, 500.0)
    AdaptiveGradientClipping(percentile=90).gradients(run)
    after = _gradient(run)
    threshold = np.percentile([*range(1, 101), 500.0], 90)
    assert float(after.double().norm()) == pytest.approx(threshold, rel=1e-6)
    assert float(torch.cosine_similarity(after, before, dim=0)) == pytest.approx(1.0, abs=1e-6)
    assert run.memory[NAME]["norms"][-1] == pytest.approx(500.0, rel=1e-5), "the norm from before the clipping"


def test_a_small_gradient_stays_as_it_is_bit_for_bit(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    run.memory[NAME] = {"norms": [float(i) for i in range(1, 101)], "steps": 100, "clipped": 0.0}
    before = _with_norm(run, 20.0)
    AdaptiveGradientClipping(percentile=90).gradients(run)
    assert torch.equal(_gradient(run), before)


def test_the_history_settles_at_one_and_forgets_the_oldest(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    clipping = AdaptiveGradientClipping(percentile=100, history=10, settle=3)
    lengths = []
    for norm in range(2, 22):
        _with_norm(run, float(norm))
        clipping.gradients(run)
        lengths.append(float(_gradient(run).norm()))
    assert lengths == pytest.approx([1.0, 1.0, 1.0, *range(5, 22)], rel=1e-5)
    assert run.memory[NAME]["norms"] == pytest.approx(list(range(12, 22)), rel=1e-5)
    assert clipping.report(run) == pytest.approx({"clipped_share": 3 / 20, "threshold": 21.0}, rel=1e-5)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_never_enters_the_history(tmp_path: Path, bad: float) -> None:
    run = begun(text_run(tmp_path))
    clipping = AdaptiveGradientClipping(settle=0)
    next(run.model.parameters()).grad = torch.full_like(next(run.model.parameters()), bad)
    with pytest.raises(Diverged, match="norm of the gradient"):
        clipping.gradients(run)
    run.scaler = torch.amp.GradScaler("cpu")  # one that is on skips such a step by itself
    clipping.gradients(run)
    assert run.state(NAME) == {}


def test_units_are_bounded_one_by_one_and_the_head_is_left_alone(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    before = dict(run.model.named_parameters())
    _with_norm(run, 1.0)
    ratios = [
        float(weight.grad[unit].norm() / weight[unit].detach().norm().clamp(min=1e-3))
        for weight in before.values()
        if weight.grad is not None and weight.ndim >= 2
        for unit in range(len(weight))
    ]
    _with_norm(run, 0.05 / float(np.median(ratios)))  # so that about half of the units lie above their bound
    given = {name: weight.grad.clone() for name, weight in before.items() if weight.grad is not None}
    AdaptiveGradientClipping(kind="unit", unit_ratio=0.05).gradients(run)
    scaled = units = 0
    for name, weight in before.items():
        assert weight.grad is not None
        if weight.ndim < 2 or name.startswith("classifier"):
            assert torch.equal(weight.grad, given[name]), name
            continue
        for unit in range(len(weight)):
            bound = 0.05 * max(float(weight[unit].detach().norm()), 1e-3)
            norm = float(given[name][unit].norm())
            expected = given[name][unit] * min(1.0, bound / norm)
            torch.testing.assert_close(weight.grad[unit], expected)
            scaled, units = scaled + (norm > bound), units + 1
    assert 50 < scaled < units - 50, "some are bounded and some are not"


def test_the_ramp_of_the_article_never_lets_a_whole_gradient_through(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path, epochs=10))
    lengths = []
    for epoch in range(11):
        run.clock.epoch = epoch
        _with_norm(run, 3.0)
        AdaptiveGradientClipping(kind="epoch_ramp").gradients(run)
        lengths.append(float(_gradient(run).norm()))
    assert lengths == pytest.approx([0.1, 0.1, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5], rel=1e-5)


def test_a_resumed_run_clips_as_one_that_never_stopped(tmp_path: Path) -> None:
    chosen = [{"name": NAME, "settle": 2, "percentile": 50}]
    whole = trained(text_run(tmp_path, chosen, epochs=2), tmp_path / "whole")
    cut = text_run(tmp_path, chosen, epochs=2)
    snapshots = Snapshots(tmp_path / "cut", cut.sink, every_seconds=0)
    kept = Snapshots.write

    class Killed(Exception):
        pass

    def dies(self: Snapshots, run: Run) -> None:
        kept(self, run)
        if run.clock.step == 7:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshots, "write", dies)
        with pytest.raises(Killed):
            train(cut, snapshots, Interrupt())
    resumed = trained(text_run(tmp_path, chosen, epochs=2), tmp_path / "cut")
    assert resumed.memory[NAME] == whole.memory[NAME]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_the_panel_shows_norm_and_share_and_much_clipping_is_a_warning(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [{"name": NAME, "kind": "fixed", "ceiling": 1e-3}]), tmp_path)
    norms, shares = told(run, "gradient_norm"), told(run, "clipped_fraction")
    assert len(norms) == len(shares) == run.clock.total
    assert all(norm > 1e-3 for norm in norms), "measured before the clipping"
    assert shares[-1] == 1.0
    assert run.plan.instructions[0].report(run) == {"clipped_share": 1.0, "threshold": 1e-3}
    warned = [event.code for event in run.sink.events if isinstance(event, Warned)]  # type: ignore[attr-defined]
    assert warned == ["mostly_clipped"]
