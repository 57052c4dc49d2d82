"""Arithmetic on a GPU: half precision that scales, private sums and their noise, memory that is really saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from engine.clipping import add_clipped
from engine.dropout import cheap_draws
from engine.instructions.mixed_precision.i26_autocast import Autocast
from engine.noise import Source, privatise, source
from engine.run import Run
from engine.tasks.text_classification import TextClassification
from tests.engine.runs import tiny_run, trained
from tests.engine.tiny import LABELS, tiny_bert, tiny_task, tiny_text_rows
from tests.engine.tiny_run import begun, text_run, told

pytestmark = pytest.mark.gpu


def test_bf16_products_are_bf16_and_their_losses_are_near_those_of_fp32(tmp_path: Path, here: torch.device) -> None:
    run = begun(text_run(tmp_path, [26]))
    batch = run.data.first_batch(16, here)
    seen: set[torch.dtype] = set()
    hooks = [
        one.register_forward_hook(lambda _, given, output: seen.add(output.dtype))
        for one in run.model.modules()
        if isinstance(one, nn.Linear)
    ]
    run.model.eval()
    plain = run.task.losses(run.task.forward(run.model, batch), batch)
    assert seen == {torch.float32}
    seen.clear()
    with Autocast().context(run):
        cast = run.task.losses(run.task.forward(run.model, batch), batch)
    for one in hooks:
        one.remove()
    assert seen == {torch.bfloat16}
    assert cast.dtype == torch.float32
    assert not torch.equal(cast, plain)
    torch.testing.assert_close(cast, plain, rtol=0.05, atol=0.05)


def test_fp16_overflows_at_first_skips_those_steps_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the largest scale the first gradients overflow: the weights wait, the scale falls, the run goes on."""
    choices = [{"name": "autocast", "dtype": "float16"}, {"name": "dynamic_loss_scaling", "init_scale": 2.0**24}]
    run = tiny_run(tmp_path, choices, tiny_text_rows(400), epochs=8, learning_rate=3e-3)
    scaling = next(one for one in run.plan.instructions if one.number == 28)
    seen: list[tuple[bool, float, Tensor, float]] = []
    inner: Callable[[Any, Run], bool] = type(scaling).step

    def step(self: Any, run: Run) -> bool:
        taken = inner(self, run)
        moments = sum(float(state["exp_avg"].abs().sum()) for state in run.optimizer.state.values())
        weight = next(run.model.parameters()).detach().clone()
        seen.append((taken, run.scaler.get_scale(), weight, moments))
        return taken

    monkeypatch.setattr(type(scaling), "step", step)
    before = begun(tiny_run(tmp_path, choices, tiny_text_rows(40))).model
    trained(run, tmp_path)
    scales = [2.0**24, *(scale for _, scale, *_ in seen)]
    skipped = [number for number, (taken, *_) in enumerate(seen) if not taken]
    first = next(number for number, (taken, *_) in enumerate(seen) if taken)
    assert first > 0, "something overflowed"
    assert all(torch.equal(seen[number][2], next(before.parameters())) for number in range(first))
    assert all(seen[number][3] == 0 for number in range(first))
    assert not torch.equal(seen[first][2], seen[first - 1][2])
    assert all(scales[number + 1] == scales[number] / 2 for number in skipped)
    assert scaling.report(run)["skipped_steps"] == len(skipped)
    assert run.clock.step == len(seen) - len(skipped)
    assert told(run, "valid_score")[-1] >= 0.9


def _square(model: nn.Module, inputs: Tensor) -> Tensor:
    found: Tensor = model(inputs).flatten(1).square().sum(1)
    return found


def _one_by_one(model: nn.Module, losses_of: Callable[[int], Tensor], rows: int, bound: float) -> list[Tensor]:
    """The slow and obvious way: each example's own gradient, clipped as a whole, added up."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    sums = [torch.zeros_like(weight) for weight in weights]
    for row in range(rows):
        own = torch.autograd.grad(losses_of(row).sum(), weights, allow_unused=True)
        gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, own, strict=True)]
        norm = float(torch.stack([one.square().sum() for one in gradients]).sum().sqrt())
        for total, one in zip(sums, gradients, strict=True):
            total += one * min(1.0, bound / norm)
    return sums


def _assert_same_sum(model: nn.Module, expected: list[Tensor]) -> None:
    found = [weight.grad for weight in model.parameters() if weight.requires_grad]
    one, other = (
        torch.cat([part.flatten() for part in parts if part is not None]).double() for parts in (found, expected)
    )
    assert float((one - other).norm() / other.norm()) < 1e-5


def test_the_clipped_sum_of_a_text_model_is_that_of_single_examples(tmp_path: Path, here: torch.device) -> None:
    task = tiny_task(tmp_path)
    model = task.build().to(here).eval()
    texts, labels = list(tiny_text_rows(16).payloads), [number % 2 for number in range(16)]
    whole = {name: value.to(here) for name, value in task.collate(task.encode(texts), labels).items()}

    def losses_of(row: int) -> Tensor:
        own = {name: value[row : row + 1] for name, value in whole.items()}
        return task.losses(task.forward(model, own), own)

    torch.use_deterministic_algorithms(True)  # as for every run
    expected = _one_by_one(model, losses_of, 16, 0.5)
    norms = add_clipped(model, lambda: task.losses(task.forward(model, whole), whole), 0.5)
    assert float(norms.max()) > 0.5, "something is clipped"
    _assert_same_sum(model, expected)


def test_the_clipped_sum_of_a_net_of_pictures_is_that_of_single_examples(here: torch.device) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, 2),
        nn.Flatten(),
        nn.Linear(36, 3),
    ).to(here)
    pictures = torch.randn(12, 3, 8, 8, device=here)
    with torch.backends.cudnn.flags(allow_tf32=False, deterministic=True):
        expected = _one_by_one(net, lambda row: _square(net, pictures[row : row + 1]), 12, 0.5)
        add_clipped(net, lambda: _square(net, pictures), 0.5)
    _assert_same_sum(net, expected)


@pytest.mark.parametrize("name", ["os", "torch"])
def test_noise_has_the_planned_variance(name: Source, here: torch.device) -> None:
    sigma, bound, divisor, weights = 0.8, 0.3, 64.0, 500_000
    sums = [torch.zeros(weights // 2, 1, device=here), torch.zeros(weights // 2, device=here)]
    privatise(sums, bound, sigma, divisor, source(name))
    assert all(one.device.type == here.type for one in sums)
    # What rounding adds to the deviation, a two-thousandth, is below what so many values can show.
    found = torch.cat([one.flatten() for one in sums]).double().cpu() * divisor / (sigma * bound)
    statistic = float(found.square().sum())
    assert min(stats.chi2.cdf(statistic, weights), stats.chi2.sf(statistic, weights)) > 1e-6


def test_a_private_run_steps_on_the_gpu_and_tells_nothing_of_its_rows(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [37], count=120), tmp_path)
    assert run.clock.step == run.clock.total > 0
    assert told(run, "train_loss") == []
    assert told(run, "gradient_norm") == []


def test_checkpointing_lowers_the_peak_of_the_gpu(tmp_path: Path, cuda: torch.device) -> None:
    """A measured effect: the allocator's own figure, of a model whose activations outweigh its weights."""
    peaks = {}
    for choices in ([], [25]):
        run = tiny_run(tmp_path / str(len(choices)), choices, tiny_text_rows(200), batch_size=128, max_steps=2)
        run.task = TextClassification(tiny_bert(tmp_path / "wide", hidden=256, layers=8), LABELS, 32)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        trained(run, tmp_path / str(len(choices)))
        peaks[len(choices)] = torch.cuda.max_memory_allocated()
        assert max(told(run, "memory_bytes")) <= peaks[len(choices)]
        del run
    assert peaks[1] < 0.7 * peaks[0]


def test_a_gpu_draws_for_itself(cuda: torch.device) -> None:
    """The stand-ins for a processor's dropout leave a GPU's alone."""
    ones = torch.ones(100_000, device=cuda)
    torch.manual_seed(7)
    plain = nn.functional.dropout(ones, 0.3)
    torch.manual_seed(7)
    with cheap_draws(ones.device):
        assert torch.equal(nn.functional.dropout(ones, 0.3), plain)
