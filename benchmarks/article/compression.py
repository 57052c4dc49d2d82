"""Instructions 45 and 51 on scikit-learn's digits: structured pruning of a residual net, ranges of rounding layers."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.article.digits import Digits, answers, digits, net, run_accuracy, trained_run
from benchmarks.article.section import Figures, Section
from engine.instructions.compression.i45_structured_pruning import StructuredPruning
from engine.quantization import ActivationRange, Setting, affine, dequantize, quantize
from engine.run import Run

_RATIO = 0.4
_RECOVERY = 40
_BITS = 8


def pruning(seed: int, quick: bool) -> Figures:
    """45: what is left of a trained net."""
    size: dict[str, Any] = {"train_rows": 64, "epochs": 1} if quick else {"train_rows": 800}
    run = trained_run([], seed, **size)
    whole = sum(weight.numel() for weight in run.model.parameters())
    untouched = {"accuracy": run_accuracy(run, run.model), "share of parameters removed": 0.0}
    found: dict[str, dict[str, float | None]] = {
        "not pruned": {**untouched, "share of multiply-accumulates removed": 0.0},
        "the article's": _article_pruned(run, whole),
    }
    for name, steps in (("ours, no recovery", 0), (f"ours, {_RECOVERY} steps of recovery", _RECOVERY)):
        one = StructuredPruning(ratio=_RATIO, recovery_steps=2 if quick and steps else steps)
        model = one.compress(run, copy.deepcopy(run.model))
        effects = one.report(run)
        found[name] = {
            "accuracy": run_accuracy(run, model),
            "share of parameters removed": effects["parameters_removed"],
            "share of multiply-accumulates removed": 1 - effects["macs_after"] / effects["macs_before"],
        }
    return found


def _article_pruned(run: Run, whole: int) -> dict[str, float | None]:
    """Rows of every `nn.Linear` whose score lies above the quantile stay: in a residual net these are classes."""
    removed, said = 0, torch.from_numpy(answers(run, run.model))
    for layer in run.model.modules():
        if isinstance(layer, nn.Linear):
            scores = layer.weight.detach().abs().sum(dim=1)
            kept = scores > torch.quantile(scores, _RATIO)
            removed += int((~kept).sum()) * (layer.in_features + 1)
            said[:, ~kept] = -torch.inf
    right = said.argmax(dim=1).numpy() == run.data.test.labels
    return {
        "accuracy": float(right.mean()),
        "share of parameters removed": removed / whole,
        "share of multiply-accumulates removed": None,
    }


def ranges(seed: int, quick: bool) -> Figures:
    """51: the hidden values of a net on their levels, with a range of the first batch and with one that was tracked."""
    data, model = digits(seed), net(seed)
    first, tracked = _trained_with_ranges(model, data, seed, steps=10 if quick else 300)
    with torch.no_grad():
        hidden = model[0](data.test)
    step, zero = affine(*first, _BITS)
    ways: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
        "not rounded": lambda values: (values, values),
        "the article's, with a dequantisation": lambda values: _article_rounded(values, *first),
        "sound rounding, the first batch's range": lambda values: _rounded(values, step, zero),
        "ours, tracked": lambda values: _rounded(values, *affine(*tracked, _BITS)),
    }
    return {name: _rounding_figures(model, data, hidden, *way(hidden)) for name, way in ways.items()}


def _trained_with_ranges(
    model: nn.Sequential, data: Digits, seed: int, steps: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """SGD; the extremes of the hidden values of the first batch, and the moving average that 51 keeps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    watched = ActivationRange(Setting(active=False))
    first: tuple[Tensor, Tensor] | None = None
    drawn = torch.Generator().manual_seed(seed)
    for taken in range(steps):
        rows = torch.randint(len(data.train), (32,), generator=drawn)
        hidden = watched(model[0](data.train[rows]))
        if first is None:
            first = hidden.detach().amin(), hidden.detach().amax()
        optimizer.zero_grad()
        F.cross_entropy(model[2](model[1](hidden)), data.train_labels[rows]).backward()
        optimizer.step()
        watched.move(min(0.99, (1 + taken) / (10 + taken)))
    assert first is not None
    return first, (watched.low, watched.high)


def _rounded(values: Tensor, step: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """Levels and what they stand for."""
    levels = quantize(values, step, zero, _BITS)
    return levels, dequantize(levels, step, zero)


def _article_rounded(values: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(t - z scale) / scale with z = -min / scale, cut to 0 to 255; turned back as its author may have meant it."""
    scale = (high - low) / (2**_BITS - 1)
    zero = -low / scale
    levels = ((values - zero * scale) / scale).round().clamp(0, 2**_BITS - 1)
    return levels, (levels - zero) * scale


def _rounding_figures(
    model: nn.Sequential, data: Digits, hidden: Tensor, levels: Tensor, back: Tensor
) -> dict[str, float | None]:
    """What the net answers from the rounded values, and what rounding did to them."""
    with torch.no_grad():
        right = model[2](model[1](back)).argmax(dim=1) == data.test_labels
    return {
        "accuracy": float(right.float().mean()),
        "error over norm": float((back - hidden).norm() / hidden.norm()),
        "levels used": float(len(levels.unique())) if levels is not hidden else None,
    }


SECTIONS = (
    Section(
        45,
        "Structured pruning",
        "removes the output rows of linear layers with the smallest norms; it claims 62 % fewer parameters of ResNet-18"
        " for 1.8 points.",
        (
            "Only output rows go: the next layer still expects them, and the model ends in a shape error.",
            "Norms, residual adds and attention heads that share the removed units are not touched.",
            "It compares scores with a quantile by `>`: equal scores all fall together, and a ratio of 0 still removes"
            " a row. `torch.quantile` refuses large tensors.",
            "Only `nn.Linear` is looked at: in a ResNet that is the classifier, and the rows that go are classes. The"
            " claimed 62 % cannot come from this code.",
            "`l1` and `magnitude` are two names of one score.",
        ),
        "follows the dependency graph, so a unit goes with everything coupled to it; how many stay is an exact count,"
        " the labels never go, and some training steps recover what was lost.",
        f"A small residual net trained by the engine's loop on 800 digits; a ratio of {_RATIO:g}, Taylor scores, 500"
        " test rows. The article's code has its way with the same net.",
        "The article's 62 % is what an ordinary ratio of .4 does to a residual net; its 1.8 points on ResNet-18 were"
        " not measured here.",
        pruning,
    ),
    Section(
        51,
        "Dynamic range tracking",
        "keeps the ranges of activations up to date while a model trains for 8 bits; it claims a loss of 0.9 % instead"
        " of 3.2 % for BERT, in BLEU.",
        (
            "The zero point has the wrong sign: standard normal values all become level 0, values between 3 and 4 all"
            " become level 255.",
            "The zero point is no whole number, so 0.0 does not stay 0.0 (padding, the zeros of a ReLU).",
            "A constant tensor divides by zero.",
            "The range is taken from the first tensor and kept, so nothing is dynamic.",
            "Nothing turns levels back into values, and rounding has no gradient, so nothing can train through it.",
            "BLEU is a figure of translations, and BERT does not translate.",
        ),
        "widens each range to hold 0, has whole zero points, moves the ranges by an average after every step and lets"
        " them rest before the end; the gradient passes straight through.",
        "A two-layer net on digits, SGD, 300 steps; the values before its ReLU rounded to 8 bits on 500 test rows. The"
        " article's code has the range of the first batch of the training, as it asks for, and got a dequantisation by"
        " its own zero point, without which nothing could be read.",
        "The claim on BERT was not measured here.",
        ranges,
    ),
)
