"""Instruction 26: what is cast and what is not, through the loop; and that a context which is off is an error."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.errors import EngineError, InvalidPlan
from engine.events import Warned
from engine.halves import _KEPT, frozen_in
from engine.instructions.mixed_precision.i26_autocast import Autocast
from engine.prepare import arm
from engine.randomness import reseed
from engine.run import Run
from tests.engine.runs import tiny_image_run
from tests.engine.tiny import tiny_image_rows
from tests.engine.tiny_run import begun, text_run, told, trained


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[torch.dtype]]:
    """The output formats of all linear layers."""
    seen: list[torch.dtype] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def _loss(run: Run, cast: Autocast | None) -> Tensor:
    batch = run.task.collate([run.data.examples["train"][i] for i in range(8)], run.data.train.labels[:8].tolist())
    run.model.eval()
    if cast is None:
        return run.task.losses(run.task.forward(run.model, batch), batch)
    with cast.context(run):
        return run.task.losses(run.task.forward(run.model, batch), batch)


def test_products_are_cast_and_weights_gradients_and_loss_are_not(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    with _recorded(run.model) as seen:
        losses = _loss(run, Autocast())
    losses.sum().backward()
    assert seen
    assert set(seen) == {torch.bfloat16}
    assert losses.dtype == torch.float32
    assert {weight.dtype for weight in run.model.parameters()} == {torch.float32}
    assert {weight.grad.dtype for weight in run.model.parameters() if weight.grad is not None} == {torch.float32}
    torch.testing.assert_close(losses.mean(), _loss(run, None).mean(), rtol=0.01, atol=0.0)
    assert not torch.equal(losses, _loss(run, None)), "rounded, or nothing was cast"


def test_the_loop_enters_the_context_in_every_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Autocast, "_step_time_ratio", lambda *_: 1.0)  # the probe has passes of its own
    plain = trained(text_run(tmp_path), tmp_path / "plain")
    run = text_run(tmp_path, ["autocast"])
    model = run.task.build()
    run.task.build = lambda: model  # type: ignore[method-assign]  # the recorded model trains
    with _recorded(model) as seen:
        reseed(run.spec.training.seed, "model")
        model.load_state_dict(text_run(tmp_path).task.build().state_dict())
        trained(run, tmp_path / "cast")
    layers = sum(isinstance(module, nn.Linear) for module in model.modules())
    assert sum(dtype == torch.bfloat16 for dtype in seen) == layers * run.clock.total
    assert torch.float32 in seen, "validation is not cast"
    assert told(run, "train_loss") == pytest.approx(told(plain, "train_loss"), rel=0.05)


def test_each_forward_pass_sees_the_weights_of_its_moment(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    before = _loss(run, Autocast())
    with torch.no_grad():
        for weight in run.model.parameters():
            weight.add_(0.5)
    assert not torch.equal(_loss(run, Autocast()), before)


def test_a_context_that_turned_itself_off_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(text_run(tmp_path))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    with pytest.raises(EngineError, match="cannot cast"):
        _loss(run, Autocast())


def test_half_precision_needs_a_scaler_and_warns_on_a_processor(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match="underflows without dynamic_loss_scaling"):
        text_run(tmp_path, [{"name": "autocast", "dtype": "float16"}])
    run = begun(text_run(tmp_path, [{"name": "autocast", "dtype": "float16"}, 28]))
    cast = run.plan.instructions[0]
    assert isinstance(cast, Autocast)
    with _recorded(run.model) as seen:
        _loss(run, cast)
        _loss(run, cast)
    assert set(seen) == {torch.float16}
    warned = [event.code for event in run.sink.events if isinstance(event, Warned)]  # type: ignore[attr-defined]
    assert warned == ["slow_half_precision"], "once a run"


def test_the_probe_runs_where_the_model_trains_and_not_on_what_is_delivered(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, ["autocast"]), tmp_path)
    ratio = run.state("autocast")["step_time_ratio"]
    run.model = nn.Identity()  # what compression and the move to the processor make of it is nothing to time
    assert run.plan.instructions[0].report(run) == {"step_time_ratio": ratio}


def test_the_probe_reports_a_ratio_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, ["autocast"]), tmp_path)
    run.state("autocast").clear()
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.model.zero_grad(set_to_none=True)
    random = torch.get_rng_state()
    run.plan.instructions[0].after_epoch(run, 0)
    effects = run.plan.instructions[0].report(run)
    assert set(effects) == {"step_time_ratio"}
    assert effects["step_time_ratio"] > 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in run.model.state_dict().items())
    assert all(weight.grad is None for weight in run.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_convolutions_stay_in_fp32_on_a_processor(tmp_path: Path) -> None:
    # Their bf16 weight gradients came out huge or not a number on pictures of 8 pixels, in about one run of two.
    run = begun(tiny_image_run(tmp_path, ["autocast"], tiny_image_rows(80, size=8)))
    seen: list[torch.dtype] = []
    for module in run.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    batch = run.task.collate([run.data.examples["train"][i] for i in range(8)], [0, 1] * 4)
    with Autocast().context(run):
        logits = run.task.forward(run.model, batch)
    assert logits.dtype == torch.bfloat16
    assert seen
    assert set(seen) == {torch.float32}
    run.task.losses(logits, batch).sum().backward()
    gradients = [weight.grad for weight in run.model.parameters() if weight.grad is not None]
    assert len(gradients) == len(list(run.model.parameters()))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_frozen_weights_are_cast_once_and_are_whole_again_after(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path, [26]))
    for name, weight in run.model.named_parameters():
        weight.requires_grad_("classifier" in name)
    linear = [module for module in run.model.modules() if type(module) is nn.Linear]
    plain = _loss(run, None).dtype
    with frozen_in(run.model, torch.bfloat16, set()):
        seen = [module.weight.dtype for module in linear if not module.weight.requires_grad]
        first = [module.weight for module in linear]
    assert set(seen) == {torch.bfloat16}
    assert {module.weight.dtype for module in linear} == {plain} == {torch.float32}
    with frozen_in(run.model, torch.bfloat16, set()):
        assert all(module.weight is one for module, one in zip(linear, first, strict=True))
    with torch.no_grad():
        linear[0].weight.add_(1.0)
    with frozen_in(run.model, torch.bfloat16, set()):
        assert linear[0].weight is not first[0], "a weight that was changed is cast anew"
        assert torch.equal(linear[0].weight.float(), linear[0].weight.float().bfloat16().float())


def test_what_frozen_weights_are_cast_to_is_what_autocast_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(text_run(tmp_path, [26]))
    for name, weight in run.model.named_parameters():
        weight.requires_grad_("classifier" in name)
    arm(run)  # whose optimizer holds what learns alone
    cast = Autocast()
    mine = _loss(run, cast)
    assert len(_KEPT[run.model]) > 1
    monkeypatch.setattr("engine.instructions.mixed_precision.i26_autocast.frozen_in", lambda *_: nullcontext())
    assert torch.equal(mine, _loss(run, cast))
