"""The clipped sum of one pass is that of single examples, one at a time; what has no gradient of its own is refused."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from torch import Tensor, nn

from engine.clipping import Unclippable, add_clipped, trainable_layers
from tests.engine.adapted import adapted
from tests.engine.tiny import tiny_task

Losses = Callable[[nn.Module, Tensor], Tensor]


def _square(model: nn.Module, inputs: Tensor) -> Tensor:
    """One loss an example, with examples of very different size."""
    outputs: Tensor = model(inputs)
    weights = torch.arange(1, len(outputs) + 1, dtype=torch.float32)
    return outputs.flatten(1).square().sum(1) * weights


def _one_by_one(model: nn.Module, inputs: Tensor, losses: Losses, bound: float) -> tuple[list[Tensor], list[float]]:
    """The slow and obvious way: each example's own gradient, clipped as a whole, added up."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    sums, norms = [torch.zeros_like(weight) for weight in weights], []
    for number in range(len(inputs)):
        scale = number + 1
        loss = losses(model, inputs[number : number + 1]).sum() * scale
        own = torch.autograd.grad(loss, weights, allow_unused=True)
        gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, own, strict=True)]
        norm = float(torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(()))))
        norms.append(norm)
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient * min(1.0, bound / max(norm, 1e-30))
    return sums, norms


def _assert_same(model: nn.Module, inputs: Tensor, bound: float = 0.5) -> None:
    expected, norms = _one_by_one(model, inputs, _square, bound)
    model.zero_grad(set_to_none=True)
    found = add_clipped(model, lambda: _square(model, inputs), bound)
    torch.testing.assert_close(found, torch.tensor(norms), rtol=1e-4, atol=1e-5)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    assert max(norms) > bound, "something is clipped"
    for weight, total in zip(weights, expected, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, total, rtol=1e-5, atol=1e-5)


class _Twice(nn.Module):
    """One layer used twice in a pass, and rows of ids beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6, padding_idx=0)
        self.places = nn.Embedding(5, 6)
        self.layer = nn.Linear(6, 6)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, positions, 6)"""
        places: Tensor = self.places(torch.arange(ids.shape[1])[None])  # one row for the whole batch
        hidden = self.table(ids) + places
        twice: Tensor = self.layer(torch.tanh(self.layer(hidden)))
        return twice


class _Adapted(nn.Module):
    """Layers with adapters, one of them used twice, below a head that learns whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(6, 7), nn.Linear(7, 7, bias=False)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, 2)"""
        answer: Tensor = self.head(torch.tanh(self.again(torch.tanh(self.again(self.first(x))))))
        return answer


def _with_adapters(*, fused: bool = True) -> nn.Module:
    targets = ["first", "again"]
    model: nn.Module = adapted(
        _Adapted(), fused=fused, r=2, lora_alpha=3, target_modules=targets, modules_to_save=["head"]
    )
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), lambda n: torch.randn(n, 6)),
    "positions": (lambda: nn.Linear(6, 5), lambda n: torch.randn(n, 3, 6)),
    "many positions": (lambda: nn.Linear(4, 3), lambda n: torch.randn(n, 20, 4)),
    "without bias": (lambda: nn.Linear(6, 5, bias=False), lambda n: torch.randn(n, 3, 6)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 6, padding_idx=0), nn.LayerNorm(6)),
        lambda n: torch.randint(0, 9, (n, 5)),
    ),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), lambda n: torch.randn(n, 4, 6)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2)),
        lambda n: torch.randn(n, 2, 9, 9),
    ),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)),
        lambda n: torch.randn(n, 2, 5, 5),
    ),
    "twice": (_Twice, lambda n: torch.randint(0, 9, (n, 5))),
    "adapters": (_with_adapters, lambda n: torch.randn(n, 4, 6)),
    "adapters of PEFT": (lambda: _with_adapters(fused=False), lambda n: torch.randn(n, 4, 6)),
}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 5))
def test_the_clipped_sum_is_that_of_single_examples(name: str, seed: int, size: int) -> None:
    torch.manual_seed(seed)
    make, inputs = MODELS[name]
    model = make()
    # The last examples are far above the bound: losses differ by their number.
    _assert_same(model, inputs(size), bound=1e-3)


def test_a_fused_layer_stands_for_its_factors_while_its_base_is_frozen() -> None:
    model = _with_adapters()
    names = {name.removeprefix("base_model.model.") for name in trainable_layers(model)}
    assert names == {"first", "again", "head.modules_to_save.default"}
    for weight in model.parameters():
        weight.requires_grad_(True)
    names = {name.removeprefix("base_model.model.") for name in trainable_layers(model)}
    assert {"first.base_layer", "first.lora_A.default", "first.lora_B.default"} <= names
    assert "first" not in names


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_in_a_layer_neither_counts_nor_moves(frozen: str) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5))
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.endswith(frozen))
    _assert_same(model, torch.randn(4, 3, 6), bound=1e-3)
    assert all(weight.grad is None for name, weight in model.named_parameters() if name.endswith(frozen))


# Ids ask for no gradient, which PyTorch tells whoever hooks a backward pass, as Opacus does.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_the_norms_are_those_of_opacus() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 2))
    ids = torch.randint(0, 9, (6, 5))
    other = GradSampleModule(deepcopy(model), loss_reduction="sum")
    _square(other, ids).sum().backward()
    squared = sum(
        (weight.grad_sample.flatten(1).square().sum(1) for weight in other.parameters()),
        torch.zeros(()),
    )
    norms = add_clipped(model, lambda: _square(model, ids), 1.0)
    torch.testing.assert_close(norms, squared.sqrt(), rtol=1e-4, atol=1e-5)


def test_a_text_model_trains_whole(tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    model = task.build().eval()  # dropout would draw other values for one example than for many
    batch = task.collate(task.encode(["word1 prize free", "lunch", "word2 word3 cash meeting tomorrow"]), [1, 0, 1])

    def losses(rows: slice) -> Tensor:
        part = {name: value[rows] for name, value in batch.items()}
        return task.losses(task.forward(model, part), part)

    weights = list(model.parameters())
    sums, bound = [torch.zeros_like(weight) for weight in weights], 0.3
    for number in range(3):
        own = torch.autograd.grad(losses(slice(number, number + 1)).sum(), weights)
        norm = float(torch.sqrt(sum((g.square().sum() for g in own), torch.zeros(()))))
        assert norm > bound
        for total, gradient in zip(sums, own, strict=True):
            total += gradient * bound / norm
    add_clipped(model, lambda: losses(slice(None)), bound)
    for weight, total in zip(weights, sums, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, total, rtol=1e-4, atol=1e-5)


def test_frozen_layers_below_cost_no_graph() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    seen: list[bool] = []
    model[0].register_forward_hook(lambda _module, _args, output: seen.append(output.requires_grad))
    add_clipped(model, lambda: _square(model, torch.randn(3, 4)), 1.0)
    assert seen == [False]
    assert model[0].weight.grad is None
    assert all(weight.requires_grad for weight in model[1].parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_example_that_is_no_number_counts_as_zero(value: float) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    inputs = torch.randn(3, 4)
    add_clipped(model, lambda: model(inputs[[0, 2]]).square().sum(1), 0.1)
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad(set_to_none=True)
    spoiled = inputs.clone()
    spoiled[1] = value
    add_clipped(model, lambda: model(spoiled).square().sum(1), 0.1)
    for weight, total in zip(model.parameters(), expected, strict=True):
        assert total is not None
        torch.testing.assert_close(weight.grad, total)


def _apart(model: nn.Module, inputs: Tensor) -> Tensor:
    outputs: Tensor = model(inputs)
    return outputs.square().sum(1)


def test_sums_of_several_passes_add_up() -> None:
    model, inputs = nn.Linear(4, 2), torch.randn(4, 4)
    add_clipped(model, partial(_apart, model, inputs), 0.1)
    whole = model.weight.grad
    model.zero_grad(set_to_none=True)
    for part in inputs.split(1):
        add_clipped(model, partial(_apart, model, part), 0.1)
    torch.testing.assert_close(model.weight.grad, whole)


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.table.weight


class _Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


REFUSED: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("batch norm", lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "mixes the examples"),
    ("tied", _Tied, "share one weight"),
    ("unknown", _Own, "not known here"),
    ("scaled by counts", lambda: nn.Embedding(5, 4, scale_grad_by_freq=True), "not known here"),
    ("by name of padding", lambda: nn.Conv2d(1, 1, 3, padding="same"), "not known here"),
]


@pytest.mark.parametrize(("make", "reason"), [pytest.param(make, why, id=name) for name, make, why in REFUSED])
def test_what_has_no_gradient_of_its_own_is_refused_by_name(make: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(Unclippable, match=reason) as refused:
        trainable_layers(make())
    assert refused.value.remedy


def test_frozen_batch_norm_mixes_all_the_same() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3).requires_grad_(False), nn.Linear(3, 3))
    with pytest.raises(Unclippable, match="0 is batch norm"):
        trainable_layers(model)


def test_a_row_for_the_whole_batch_is_refused() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            """One row is computed for all."""
            shared: Tensor = self.layer(torch.ones(1, 2))
            return inputs + shared

    model = Shared()
    with pytest.raises(Unclippable, match="1 rows for 3 examples"):
        add_clipped(model, lambda: _square(model, torch.randn(3, 2)), 1.0)
