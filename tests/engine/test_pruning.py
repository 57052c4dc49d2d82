"""A pruned model answers as the unpruned one with the same units held at zero, and can be stored.

The masked model is the oracle: it knows nothing of the graph, only of the units that were said to be removed.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from engine.coupling import Unfit, Width, widths
from engine.pruning import drop_blocks, kept, macs, prune, reshape, shapes_of
from engine.run import Run
from tests.engine.tiny_run import begun, image_run, text_run

NAME = "structured_pruning"


def _forward(run: Run) -> Callable[[nn.Module], Tensor]:
    """Logits on six padded rows."""
    batch = run.task.collate([run.data.examples["train"][i] for i in range(6)], [0] * 6)
    return lambda model: run.task.forward(model, batch)


def _scored(run: Run) -> Callable[[nn.Module], Tensor]:
    """Give `run.model` gradients, so that Taylor scores have something to read."""
    forward = _forward(run)
    run.model.eval()
    _shaken(run.model)
    forward(run.model).square().sum().backward()
    return forward


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


def _shaken(model: nn.Module) -> None:
    """Biases, norms and statistics away from 0 and 1, so that a slice left behind is seen."""
    drawn = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                shift = torch.rand(tensor.shape, generator=drawn) * 0.4
                tensor.add_(shift if "running_var" in name else shift - 0.2)


def _pruned(
    run: Run, forward: Callable[[nn.Module], Tensor], ratio: float, heads: float
) -> tuple[nn.Module, dict[str, list[int]], dict[str, Width]]:
    model = copy.deepcopy(run.model)
    for fresh, old in zip(model.parameters(), run.model.parameters(), strict=True):
        fresh.grad = old.grad
    found = widths(model, forward)
    counts = {name: kept(width, heads if width.attention else ratio, 8) for name, width in found.items()}
    return model, prune(model, forward, counts, "taylor"), found


def _masked(model: nn.Module, removed: Mapping[str, Sequence[int]], found: Mapping[str, Width]) -> nn.Module:
    """The unpruned model with the removed units' outputs held at zero, behind the norm that follows if one does."""
    masked = copy.deepcopy(model)
    for name, units in removed.items():
        size = found[name].size
        channels = [unit * size + i for unit in units for i in range(size)]
        follower = name.replace("convolution", "normalization")
        module = masked.get_submodule(follower)

        def zeroed(_module: nn.Module, _inputs: Any, output: Tensor, channels: list[int] = channels) -> Tensor:
            output = output.clone()
            # Pictures carry channels in the second axis, texts in the last.
            output[(slice(None), channels) if output.ndim == 4 else (..., channels)] = 0.0
            return output

        module.register_forward_hook(zeroed)
    return masked


@pytest.mark.parametrize(("ratio", "heads"), [(0.3, 0.0), (0.5, 0.5), (0.05, 0.75)])
def test_a_pruned_encoder_answers_as_the_masked_one(tmp_path: Path, ratio: float, heads: float) -> None:
    run = begun(text_run(tmp_path))
    forward = _scored(run)
    pruned, removed, found = _pruned(run, forward, ratio, heads)
    net: Any = pruned
    expected = forward(_masked(run.model, removed, found))
    assert sum(map(len, removed.values())) > 0
    assert _distance(forward(pruned), expected) < 1e-5
    assert _distance(forward(run.model), expected) > 1e-4, "what was removed had a part in the answer"
    attention = net.bert.encoder.layer[0].attention.self
    assert attention.num_attention_heads == 4 - round(4 * heads)
    assert attention.all_head_size == attention.query.out_features == 8 * (4 - round(4 * heads))
    assert net.classifier.out_features == 2


def test_a_pruned_net_answers_as_the_masked_one(tmp_path: Path) -> None:
    """Inner channels are masked behind their batch norm, those that a residual add joins behind each of its makers."""
    run = begun(image_run(tmp_path))
    forward = _scored(run)
    pruned, removed, found = _pruned(run, forward, 0.3, 0.0)
    net: Any = pruned
    everywhere = dict(removed)
    for root, stage in {"resnet.embedder.embedder.convolution": 0, "stages.1.": 1, "stages.2.": 2}.items():
        units = next(units for name, units in removed.items() if root in name and ("shortcut" in name or stage == 0))
        for layer in (0, 1):
            everywhere[f"resnet.encoder.stages.{stage}.layers.{layer}.layer.1.convolution"] = units
    masked = _masked(run.model, everywhere, {name: Width(0) for name in everywhere} | found)
    assert _distance(forward(pruned), forward(masked)) < 1e-5
    assert _distance(forward(run.model), forward(masked)) > 1e-4
    assert net.classifier[1].out_features == 2
    sizes = {name: module.num_features for name, module in pruned.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert sizes["resnet.encoder.stages.2.layers.1.layer.0.normalization"] == 88  # 89.6 to the nearest multiple of 8


@pytest.mark.parametrize("taken", ["output.dense", "bias"])
def test_a_wrong_index_or_a_bias_left_behind_is_seen(tmp_path: Path, taken: str) -> None:
    """The comparison above can fail: one column of the next layer swapped, or the bias of another unit kept."""
    run = begun(text_run(tmp_path))
    forward = _scored(run)
    pruned, removed, found = _pruned(run, forward, 0.5, 0.0)
    net: Any = pruned
    whole: Any = run.model
    layer, source = net.bert.encoder.layer[0], whole.bert.encoder.layer[0]
    gone = removed["bert.encoder.layer.0.intermediate.dense"][0]
    with torch.no_grad():
        if taken == "bias":
            layer.intermediate.dense.bias[0] = source.intermediate.dense.bias[gone] + 1
        else:
            layer.output.dense.weight[:, 0] = source.output.dense.weight[:, gone]
    assert _distance(forward(pruned), forward(_masked(run.model, removed, found))) > 1e-5


def test_the_least_important_units_go_and_equal_ones_do_not_all_fall(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    forward = _forward(run)
    run.model.eval()
    net: Any = run.model
    inner, outer = net.bert.encoder.layer[0].intermediate.dense, net.bert.encoder.layer[0].output.dense
    strength = torch.arange(64).flip(0).float() + 1
    with torch.no_grad():
        inner.weight.copy_(strength[:, None].expand_as(inner.weight))
        outer.weight.fill_(1.0)
    found = widths(run.model, forward)
    model = copy.deepcopy(run.model)
    removed = prune(model, forward, {name: 48 if not one.attention else 4 for name, one in found.items()}, "l1")
    assert removed["bert.encoder.layer.0.intermediate.dense"] == list(range(48, 64))
    with torch.no_grad():
        inner.weight.fill_(1.0)
    removed = prune(run.model, forward, {name: 48 if not one.attention else 4 for name, one in found.items()}, "l2")
    assert len(removed["bert.encoder.layer.0.intermediate.dense"]) == 16


def test_dropped_blocks_are_the_weakest_and_their_neighbours_meet(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    forward = _forward(run)
    run.model.eval()
    net: Any = run.model
    with torch.no_grad():
        for weight in net.bert.encoder.layer[0].parameters():
            weight.mul_(0.5)
    bypassed = copy.deepcopy(net)
    bypassed.bert.encoder.layer = nn.ModuleList([bypassed.bert.encoder.layer[1]])
    assert drop_blocks(run.model, 1, "l2") == [0]
    assert torch.equal(forward(run.model), forward(bypassed))
    with pytest.raises(Unfit, match="1 layers cannot be removed"):
        drop_blocks(run.model, 1, "l2")


@pytest.mark.parametrize("kind", ["text", "image"])
def test_shapes_and_a_state_dict_rebuild_the_model_bit_for_bit(tmp_path: Path, kind: str) -> None:
    run = begun(text_run(tmp_path) if kind == "text" else image_run(tmp_path))
    forward = _scored(run)
    pruned, _, _ = _pruned(run, forward, 0.4, 0.5)
    if kind == "text":
        drop_blocks(pruned, 1, "l1")
    shapes = json.loads(json.dumps(shapes_of(pruned)))
    rebuilt = reshape(run.task.build(), shapes)
    rebuilt.load_state_dict(pruned.state_dict())
    assert torch.equal(forward(rebuilt.eval()), forward(pruned))
    assert shapes_of(rebuilt) == shapes
    assert macs(rebuilt, forward) == macs(pruned, forward) < macs(run.model, forward)
    with pytest.raises(ValueError, match="another architecture"):
        reshape(nn.Linear(2, 2), {**shapes, "blocks": {}})


@pytest.mark.parametrize(
    ("width", "ratio", "round_to", "expected"),
    [
        (Width(1536), 0.2, 8, 1232),
        (Width(1536), 0.2, 32, 1216),
        (Width(32), 0.3, 8, 24),
        (Width(10), 0.05, 1, 10),
        (Width(12, 32, "self"), 0.34, 8, 8),
        (Width(12, 32, "self"), 0.75, 8, 3),
        (Width(64), 0.9, 8, 8),
        (Width(4), 0.05, 8, None),
        (Width(16), 0.9, 1, None),
        (Width(1, 8, "self"), 0.75, 8, None),
    ],
)
def test_counts_are_exact_and_too_few_are_refused(
    width: Width, ratio: float, round_to: int, expected: int | None
) -> None:
    if expected is None:
        with pytest.raises(Unfit, match="must stay"):
            kept(width, ratio, round_to)
    else:
        assert kept(width, ratio, round_to) == expected


class Hidden(nn.Module):
    """Half of its layers lie behind a detour that autograd does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.unseen = nn.Linear(4, 16), nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        """Two layers."""
        return self.seen(self.unseen(inputs.repeat(1, 4)).detach())  # type: ignore[no-any-return]  # a module call


def test_a_model_that_cannot_be_followed_is_refused_by_the_name_of_the_module() -> None:
    with pytest.raises(Unfit, match="cannot be followed through unseen"):
        widths(Hidden(), lambda model: model(torch.ones(2, 4)))


def test_label_outputs_are_never_cut_whatever_layer_makes_them() -> None:
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3)).eval()
    assert set(widths(net, lambda model: model(torch.ones(2, 1, 8, 8)).mean((2, 3)))) == {"0"}


def test_heads_that_nobody_counts_are_left_alone() -> None:
    config = DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40)
    model = DistilBertForSequenceClassification(config).eval()
    ids = torch.arange(14).reshape(2, 7)
    found = widths(model, lambda model: model(input_ids=ids).logits)
    assert {name.rpartition(".")[2] for name in found} == {"lin1"}
