"""Instruction 28: tiny gradients survive, an overflow costs one step and nothing else, a hopeless run ends."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from engine.baseline import Baseline
from engine.errors import Diverged, InvalidPlan
from engine.instructions.mixed_precision.i26_autocast import Autocast
from engine.instructions.mixed_precision.i28_dynamic_loss_scaling import DynamicLossScaling
from engine.run import Run
from tests.engine.tiny_run import begun, text_run, told, trained

FP16 = {"name": "autocast", "dtype": "float16"}
SCALING = {"name": "dynamic_loss_scaling", "growth_interval": 4, "init_scale": 1024.0}


def _gradients(run: Run, factor: float = 1.0) -> torch.Tensor:
    """Gradients by the run's own scaler over a loss that is `factor` times the task's."""
    batch = run.task.collate([run.data.examples["train"][i] for i in range(8)], run.data.train.labels[:8].tolist())
    cast = next((one for one in run.plan.instructions if isinstance(one, Autocast)), None)

    def closure() -> torch.Tensor:
        if cast is None:
            return run.task.losses(run.task.forward(run.model, batch), batch) * factor
        with cast.context(run):
            return run.task.losses(run.task.forward(run.model, batch), batch) * factor

    run.model.eval()
    run.optimizer.zero_grad(set_to_none=True)
    run.plan.slot("backward").backward(run, closure, 8.0)
    run.scaler.unscale_(run.optimizer)
    return torch.cat([weight.grad.flatten() for weight in run.model.parameters() if weight.grad is not None])


def test_unscaled_gradients_are_those_of_fp32_even_where_fp16_has_none(tmp_path: Path) -> None:
    scaled = begun(text_run(tmp_path, [FP16, {**SCALING, "init_scale": 2.0**24}]))
    plain = begun(text_run(tmp_path))
    tiny = 1e-7  # times a gradient below 0.1: under the smallest number of fp16, 6e-8
    expected = _gradients(plain, tiny)
    assert float((_gradients(scaled, tiny) - expected).norm() / expected.norm()) < 0.01
    scaled.scaler = torch.amp.GradScaler("cpu", enabled=False)
    lost = _gradients(scaled, tiny)
    assert float((lost - expected).norm() / expected.norm()) > 0.1, "without scaling the gradient is lost"


def test_the_loop_unscales_before_anything_looks_at_a_gradient(tmp_path: Path) -> None:
    scaled = trained(text_run(tmp_path, [FP16, SCALING, 22]), tmp_path / "scaled")
    plain = trained(text_run(tmp_path, [22]), tmp_path / "plain")
    assert told(scaled, "gradient_norm") == pytest.approx(told(plain, "gradient_norm"), rel=0.05)


def test_an_overflow_skips_one_step_and_halves_the_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = text_run(tmp_path, [FP16, SCALING], epochs=2)
    states: list[tuple[float, torch.Tensor, float, bool]] = []
    steps = 0
    holder = type(next(one for one in run.plan.instructions if one.number == 28))
    inner: Any = holder.step

    def step(self: Any, run: Run) -> bool:
        nonlocal steps
        steps += 1
        weight = next(run.model.parameters())
        if steps == 3:
            assert weight.grad is not None
            weight.grad[0, 0] = float("inf")
            # What the loop's unscale_ would have seen, had the loss overflowed.
            run.scaler._per_optimizer_states[id(run.optimizer)]["found_inf_per_device"] = {
                weight.device: torch.tensor(1.0)
            }
        taken: bool = inner(self, run)
        moments = sum(float(state["exp_avg"].sum()) for state in run.optimizer.state.values())
        states.append((run.scaler.get_scale(), weight.detach().clone(), moments, taken))
        return taken

    monkeypatch.setattr(holder, "step", step)
    trained(run, tmp_path)
    (_, before, moments_before, _), (_, skipped, moments_skipped, taken), (_, after, _, _) = states[1:4]
    assert not taken
    assert torch.equal(skipped, before)
    assert moments_skipped == moments_before
    assert not torch.equal(after, skipped), "the next step goes on"
    # 1024, an overflow at the third step, then a growth after each four good steps in a row.
    assert [scale for scale, *_ in states] == [1024.0, 1024.0, *[512.0] * 4, *[1024.0] * 4, *[2048.0] * 2]
    assert told(run, "loss_scale") == [1024.0, 1024.0, *[512.0] * 4, *[1024.0] * 4, 2048.0]
    assert run.clock.step == run.clock.total - 1, "a skipped step does not move the clock"
    assert run.plan.instructions[1].report(run) == {"skipped_steps": 1.0, "scale": 2048.0}


def test_a_run_that_overflows_at_any_scale_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(text_run(tmp_path, [FP16, {**SCALING, "max_skips": 3}]))
    monkeypatch.setattr(Baseline, "step", lambda self, run: False)
    scaling = run.plan.instructions[1]
    assert [scaling.step(run) for _ in range(3)] == [False] * 3
    with pytest.raises(Diverged, match="4 steps in a row"):
        scaling.step(run)


@pytest.mark.parametrize("backoff", [0.001, 0.7])
def test_a_scale_that_has_sunk_to_nothing_ends_the_run(backoff: float) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    scaling = DynamicLossScaling(backoff_factor=backoff, init_scale=1.0, max_skips=400)
    run = Run(cast(Any, None), cast(Any, None), cast(Any, None))
    run.model, run.optimizer = torch.nn.ParameterList([weight]), torch.optim.SGD([weight], lr=0.1)
    run.scaler = scaling.scaler(run)

    def overflowing() -> bool:
        weight.grad = torch.full_like(weight, torch.inf)
        run.scaler.scale(torch.zeros(()))  # it makes its state on first use
        run.scaler.unscale_(run.optimizer)
        return scaling.step(run)

    assert not any(overflowing() for _ in range(400))
    with pytest.raises(Diverged, match="401 steps in a row"):
        overflowing()


def test_it_is_refused_where_nothing_is_half_precision(tmp_path: Path) -> None:
    for others in ([], ["autocast"]):
        with pytest.raises(InvalidPlan, match="need no loss scaling"):
            text_run(tmp_path, [*others, 28])
