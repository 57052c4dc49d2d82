"""Instructions 22, 24 and 28 on scikit-learn's digits: a clipping that follows the run, accumulation, loss scaling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.article.digits import Digits, accuracy, digits, net, run_accuracy, trained_run
from benchmarks.article.section import Figures, Section
from engine.events import Listed
from engine.instruction import Window
from engine.instructions.gradients.i24_gradient_accumulation import GradientAccumulation
from engine.instructions.mixed_precision.i28_dynamic_loss_scaling import DynamicLossScaling
from engine.plan import Plan
from engine.run import Run
from engine.spec import Spec

_RATES = (3e-3, 3e-2)
_CLIPPING: dict[str, list[Any]] = {
    "no clipping": [],
    "the article's ramp": [{"name": "adaptive_gradient_clipping", "kind": "epoch_ramp"}],
    "ours, percentile": [{"name": "adaptive_gradient_clipping"}],
}


def clipping(seed: int, quick: bool) -> Figures:
    """22: accuracy at a usual rate and at one that is too high."""
    found: dict[str, dict[str, float | None]] = {}
    size: dict[str, Any] = {"train_rows": 64, "epochs": 1} if quick else {"train_rows": 600}
    for name, instructions in _CLIPPING.items():
        found[name] = {}
        for rate in _RATES:
            run = trained_run(instructions, seed, learning_rate=rate, **size)
            found[name][f"accuracy at rate {rate:g}"] = run_accuracy(run, run.model)
            told = run.plan.on("report")
            found[name][f"steps clipped at {rate:g}"] = told[0].report(run)["clipped_share"] if told else None
    return found


def _bare_run(instructions: list[Any]) -> Run:
    """A run that has a plan and a scaler, for hooks that ask for no more."""
    spec = Spec.model_validate({"task": "image_classification", "dataset": "digits", "instructions": instructions})
    run = Run(spec, Plan.of(spec), Listed())
    run.scaler = torch.amp.GradScaler("cpu", enabled=False)
    return run


def _gradient(model: nn.Module) -> Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def _article_window(model: nn.Module, data: Digits, chunks: list[Tensor], zeroed: bool) -> Tensor:
    """A buffer gathers `.grad` after each micro-batch, of mean losses over a fixed count."""
    buffer = torch.zeros(sum(weight.numel() for weight in model.parameters()))
    for rows in chunks:
        if zeroed:
            model.zero_grad()
        (F.cross_entropy(model(data.train[rows]), data.train_labels[rows]) / len(chunks)).backward()
        buffer += _gradient(model)
    return buffer


def _our_window(model: nn.Module, data: Digits, chunks: list[Tensor]) -> Tensor:
    """The loop's own backward over the chunks of one window, with the items of the whole window as divisor."""
    run, items = _bare_run([24]), sum(map(len, chunks))
    for rows in chunks:
        closure = _losses(model, data.train[rows], data.train_labels[rows])
        run.plan.slot("backward").backward(run, closure, float(items))
    return _gradient(model)


def _losses(model: nn.Module, shown: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    return lambda: F.cross_entropy(model(shown), labels, reduction="none")


def accumulation(seed: int, quick: bool) -> Figures:
    """24: how far the gradient of a window is from that of one large batch, and what becomes of ten micro-batches."""
    data, model = digits(seed, 200), net(seed)
    windows = {"equal": (16, 16, 16, 16), "unequal": (40, 4, 4, 2)}
    ten = [Window(((number,),)) for number in range(10)]
    stepped = sum(len(one.chunks) for one in GradientAccumulation(steps=4).windows(_bare_run([24]), iter(ten)))
    ways: dict[str, Callable[[list[Tensor]], Tensor]] = {
        "the article's": lambda chunks: _article_window(model, data, chunks, zeroed=False),
        "the article's, caller empties `.grad`": lambda chunks: _article_window(model, data, chunks, zeroed=True),
        "ours": lambda chunks: _our_window(model, data, chunks),
    }
    found: dict[str, dict[str, float | None]] = {name: {} for name in ways}
    for kind, sizes in windows.items():
        rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[: sum(sizes)]
        model.zero_grad()
        F.cross_entropy(model(data.train[rows]), data.train_labels[rows]).backward()
        whole = _gradient(model)
        for name, way in ways.items():
            model.zero_grad()
            error = way(list(rows.split(sizes))) - whole
            found[name][f"error over norm, {kind} micro-batches"] = float(error.norm() / whole.norm())
    for name, row in found.items():
        row["micro-batches of ten that no step sees"] = float(len(ten) - stepped if name == "ours" else len(ten) % 4)
    return found


def _article_scaler(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, float]) -> None:
    """Steps on scaled gradients, doubles after each good step and halves after an overflow."""
    if all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None):
        optimizer.step()
        state["scale"] *= 2
    else:
        state["scale"] /= 2
        state["skipped"] += 1


def _scaled(seed: int, way: str, steps: int) -> dict[str, float | None]:
    """SGD on digits; the loss is divided by 10^6, so that fp16 gradients vanish, and the rate multiplied by it."""
    data, model = digits(seed), net(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * 1e6)
    ours = DynamicLossScaling(growth_interval=50).scaler(_with_model(model))
    state = {"scale": 65536.0, "skipped": 0.0}
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(data.train), (32,), generator=drawn)
        with torch.autocast("cpu", dtype=torch.float16, enabled=way != "fp32"):
            said = model(data.train[rows])
            loss = F.cross_entropy(said.float(), data.train_labels[rows]) / 1e6
        optimizer.zero_grad()
        if way == "ours":
            before = ours.get_scale()
            ours.scale(loss).backward()
            ours.step(optimizer)
            ours.update()
            state["skipped"] += ours.get_scale() < before
        elif way == "article":
            (loss * state["scale"]).backward()
            _article_scaler(model, optimizer, state)
        else:
            loss.backward()
            optimizer.step()
    scaling = way in ("ours", "article")
    last = ours.get_scale() if way == "ours" else state["scale"]
    return {
        "accuracy": accuracy(model, data),
        "share of steps skipped": state["skipped"] / steps if scaling else None,
        "last scale": last if scaling else None,
    }


def _with_model(model: nn.Module) -> Run:
    run = _bare_run([])
    run.model = model
    return run


def scaling(seed: int, quick: bool) -> Figures:
    """28: gradients below the smallest number of fp16."""
    ways = {
        "fp16, no scaling": "plain",
        "fp16, the article's scaler": "article",
        "fp16, ours": "ours",
        "fp32": "fp32",
    }
    return {name: _scaled(seed, way, 20 if quick else 400) for name, way in ways.items()}


SECTIONS = (
    Section(
        22,
        "Adaptive gradient clipping",
        "clips at a threshold that grows with the epochs, and claims 28 % fewer epochs and 1.2 % more accuracy for"
        " ResNet-50.",
        (
            "Nothing in it is adaptive: the threshold max(0.1, min(1.0, 0.5 epoch / epochs)) reads the number of the"
            " epoch and no gradient.",
            "It ends at 0.5 and never reaches its own ceiling of 1.0.",
            "It is tightest in the first epochs, where gradients are largest, so it works as a hidden warm-up of the"
            " rate.",
            "No search for the rate stands beside the claim, and clipping mostly changes which rates are usable.",
        ),
        "keeps the norms of past steps and scales a larger gradient down to their 90th percentile; the article's"
        " formula is kept as `kind: epoch_ramp` for comparison. Norms are read after unscaling, and one that is not"
        " finite never enters the history.",
        "The engine's own loop on 600 digits of scikit-learn, a small residual net, 4 epochs, AdamW, 500 test rows; at"
        " a usual learning rate and at one far too high.",
        "AdamW divides by the size of past gradients, so a constant factor cancels, and only changes over time matter."
        " Overlapping intervals mean that no way of clipping was shown to be better here. The convergence claim was not"
        " measured here.",
        clipping,
    ),
    Section(
        24,
        "Gradient accumulation",
        "adds the gradients of several micro-batches in a buffer and steps once, as one large batch would; it claims"
        " batches of 2,048 for BERT in 16 GB.",
        (
            "`.grad` is never emptied between micro-batches, though torch already adds into it: the first of four is"
            " counted four times, and equal micro-batches give 2.5 times the gradient.",
            "It averages averages: where micro-batches hold unequal numbers of items, small ones weigh too much.",
            "What is left over at the end of an epoch is dropped: ten micro-batches by fours make two steps.",
            "Parameters without a gradient get zeros, so momentum and weight decay move parts that no loss used.",
            "The buffer is a second copy of all gradients, made anew for each window, for what torch does for nothing.",
        ),
        "divides every micro-batch's loss sum by the items of the whole window; the last, shorter window by its own.",
        "Gradient of a two-layer net on digits, four micro-batches of 16 rows, and of 40, 4, 4 and 2 rows, against the"
        " gradient of the same rows as one batch; the backward pass is the loop's own.",
        "Accumulation is meant to change nothing: the error is the effect. What remains for ours is fp32 rounding. The"
        " memory was not measured here.",
        accumulation,
    ),
    Section(
        28,
        "Dynamic loss scaling",
        "multiplies the loss, skips steps that overflow and adapts the factor; it claims that the stability of fp16"
        " rises from 68 to 92 %.",
        (
            "`backward` uses a `model` that is not defined: it ends in a NameError.",
            "Gradients are never divided by the scale before the step. AdamW hides that; SGD, clipping thresholds and"
            " weight decay do not.",
            "The scale doubles after every good step, so it runs into the next overflow at once.",
            "`min_scale` is stored and never used.",
            "It asks each tensor for NaN and infinity from Python, which waits for the device once or twice a tensor.",
            "Its state is not in any checkpoint.",
        ),
        "uses PyTorch's GradScaler: unscale once, clip, step or skip, and grow only after some good steps in a row. The"
        " state travels in snapshots, and a run that overflows without end fails with a remedy.",
        "A two-layer net on digits, SGD, 400 steps, fp16 products. The loss is divided by 10^6, as a large divisor"
        " does, and the rate multiplied by it, so plain fp16 gradients vanish. The article's scaler with `model` passed"
        " in.",
        "The claim on large models cannot be checked and was not measured here.",
        scaling,
    ),
)
