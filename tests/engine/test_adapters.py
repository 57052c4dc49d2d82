"""The fused low-rank layer answers and learns as PEFT's own does, casts once, and steps back where it is watched."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import adapters
from engine.adapters import _Adapted
from tests.engine.adapted import adapted

WIDTH = 24


class Attentive(nn.Module):
    """Three layers that read the same tensor, one of them without a bias, and one that reads their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16, bias=False), nn.Linear(WIDTH, 16)
        self.out = nn.Linear(16, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        read = self.before(x)
        found: Tensor = self.out(torch.tanh(self.query(read) + self.key(read) * self.value(read)))
        return found


def attentive(dropout: float = 0.0, *, fused: bool) -> Any:
    torch.manual_seed(5)
    targets = ["query", "key", "value", "out"]
    return adapted(Attentive(), fused=fused, r=4, lora_alpha=6, lora_dropout=dropout, target_modules=targets)


def learned(model: nn.Module, x: Tensor, *, half: bool) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        answer = model(x)
    (answer.float() ** 2).sum().backward()
    return answer.detach(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 0.02)])
def test_answers_and_gradients_are_those_of_peft(half: bool, tolerance: float) -> None:
    x = torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)
    expected, theirs = learned(attentive(fused=False), x, half=half)
    of_x, x.grad = x.grad, None
    found, ours = learned(attentive(fused=True), x, half=half)
    assert of_x is not None
    assert x.grad is not None
    assert found.dtype == expected.dtype
    assert ours.keys() == theirs.keys()
    pairs = [(found, expected), (x.grad, of_x), *((ours[name], theirs[name]) for name in theirs)]
    for one, other in pairs:
        assert float((one - other).norm()) <= tolerance * float(other.norm())


def test_gradients_are_those_of_differences() -> None:
    drawn = torch.Generator().manual_seed(2)
    shapes = [(5, 6), (4, 6), (4,), (2, 6), (4, 2)]
    x, weight, bias, down, up = (torch.randn(*one, generator=drawn, dtype=torch.float64) for one in shapes)
    for one in (x, weight, bias, down, up):
        one.requires_grad_()
    apply: Any = _Adapted.apply
    assert torch.autograd.gradcheck(lambda *all_of: apply(*all_of, 1.5), (x, weight, bias, down, up))


def test_what_three_layers_read_is_cast_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = attentive(fused=True)
    seen: list[int] = []
    apply: Any = _Adapted.apply

    def noted(x: Tensor, *rest: Any) -> Any:
        seen.append(x.untyped_storage().data_ptr())
        return apply(x, *rest)

    monkeypatch.setattr(_Adapted, "apply", noted)
    x = torch.randn(2, 3, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
        model(x + 1)
    assert len(seen) == 8
    assert len(set(seen[:3])) == 1
    assert len(set(seen[4:7])) == 1


def test_a_tensor_that_was_changed_in_place_is_cast_again() -> None:
    once, x = adapters._CastOnce(), torch.ones(3)
    assert once.to(x, torch.bfloat16).tolist() == [1, 1, 1]
    x += 1
    assert once.to(x, torch.bfloat16).tolist() == [2, 2, 2]
    x.requires_grad_()
    assert once.to(x, torch.bfloat16).requires_grad
    with torch.no_grad():
        assert not once.to(x, torch.bfloat16).requires_grad


@pytest.mark.parametrize("watched", ["hook", "dropout", "disabled", "merged"])
def test_a_layer_that_is_not_plain_is_left_to_peft(watched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = attentive(0.4 if watched == "dropout" else 0.0, fused=True)
    monkeypatch.setattr(_Adapted, "apply", lambda *_: pytest.fail("fused"))
    calls: list[str] = []
    if watched == "hook":
        for name, module in model.named_modules():
            if name.endswith("lora_A.default"):
                module.register_forward_hook(lambda *_: calls.append("seen"))
    elif watched == "merged":
        model.merge_adapter()
    if watched == "disabled":
        with model.disable_adapter():
            model(torch.ones(1, 2, WIDTH))
    else:
        model(torch.ones(1, 2, WIDTH))
    assert len(calls) == (4 if watched == "hook" else 0)


def test_a_copy_has_weights_of_its_own() -> None:
    model, x = attentive(fused=True), torch.ones(1, 2, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        other = copy.deepcopy(model)
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()
        assert torch.equal(other(x), before)
