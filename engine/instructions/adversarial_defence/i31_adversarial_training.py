"""Instruction 31. Knows where a perturbation enters (pixels, or the output of the word embeddings) and no model."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.attacks import Ball, Losses, pgd, pixel_scale, still
from engine.errors import Fault
from engine.halves import whole_in
from engine.instruction import Instruction
from engine.ports import Batch, device_of
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

Method = Literal["pgd", "trades", "freelb"]

# By task: the methods that serve it, the default first.
_METHODS: Mapping[str, tuple[Method, ...]] = {
    "image_classification": ("trades", "pgd"),
    "text_image_pairs": ("pgd",),
    "text_classification": ("freelb",),
    "causal_lm": ("freelb",),
}
_STEPS: Mapping[Method, int] = {"pgd": 5, "trades": 5, "freelb": 3}
_NOISE = 1e-3  # TRADES has no gradient where nothing was moved yet: it starts beside the picture


class AdversarialTraining(Instruction):
    """Trains on small changes of each example that are searched for to be as bad as possible.

    `pgd` puts the loss at the worst picture that projected gradient ascent finds in the place of the plain one;
    `trades` adds to the plain loss how far the answer moves to the worst picture; `freelb` moves the output of the word
    embeddings and takes the mean of the losses along the way. For pairs the picture is moved.

    Sound: a random start inside the ball, ascent by sign, then into the ball and into the range of pixels, every step;
    `epsilon` is in pixel units, whatever normalises them. The worst case is that of the loss which is trained on, with
    what others, such as 7, make of it. Pictures are searched for in fp32 without dropout and with batch norm's averages
    left alone, and only the perturbation is differentiated, so no gradient of a weight is touched; the loss that is
    trained on is the plain training pass. FreeLB bounds each example by itself and leaves padding alone. Every draw
    comes from the chunk's own seed.

    Refuses: methods that do not serve the task (a word cannot be moved by epsilon, and a language model has no small
    set of labels to compare); `pgd` and `freelb` beside mixed examples, whose label is two; privacy accounting, whose
    clipped gradients would be those of two passes.

    Effect: robust accuracy rises, also under a stronger attack than the one trained on; clean accuracy may fall, on
    harder pictures it does. The test on handwritten digits holds the gain against plain training; `robustness_audit`
    (36) measures it for a job. FreeLB is for generalisation: it promises nothing against replaced words.
    """

    number = 31
    band = "adversarial_defence"
    title = "Training on worst-case inputs"
    source = "Madry et al. 2018; Zhang et al. 2019 (TRADES); Zhu et al. 2020 (FreeLB), algorithm 1"
    metric = "loss_gain"
    name: Literal["adversarial_training"] = "adversarial_training"

    method: Literal["auto", "pgd", "trades", "freelb"] = Field(
        default="auto", description="auto: trades for pictures, pgd for pairs, freelb for texts"
    )
    epsilon: float = Field(
        default=8 / 255, gt=0, le=0.5, allow_inf_nan=False, description="how far a pixel may move, of 0 to 1"
    )
    embedding_epsilon: float = Field(
        default=1.0, gt=0, le=10, allow_inf_nan=False, description="Frobenius norm of an example's move; freelb only"
    )
    step_size: float | None = Field(
        default=None,
        gt=0,
        le=10,
        allow_inf_nan=False,
        description="one step, in the unit of its epsilon; None: 2.5 epsilon / steps",
    )
    steps: int | None = Field(
        default=None, ge=1, le=50, description="steps of a search; None: 5 for pictures, 3 for texts"
    )
    beta: float = Field(
        default=6.0, gt=0, le=100, allow_inf_nan=False, description="weight of the moved answer; trades only"
    )
    warmup_epochs: int = Field(default=0, ge=0, le=1000, description="epochs of plain training before")

    @property
    def provides(self) -> frozenset[str]:
        """Trained against small changes."""
        return frozenset({"adversarially_trained"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """What the inner passes would break, and labels that are none."""
        reasons = {
            "differential_privacy": "the search runs passes of its own, and a clipped gradient must be of one pass"
        }
        if self.method != "trades":
            reasons["mixed_labels"] = "the worst case is searched for one label, and a mixed row has two; choose trades"
        return reasons

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """A method of another task, and steps longer than the ball is wide."""
        known = _METHODS[spec.task]
        if self.method != "auto" and self.method not in known:
            detail = f"{self.method} does not serve {spec.task}"
            yield Fault("/method", "wrong_method", detail, f"choose auto or {' or '.join(known)}")
        radius = self.embedding_epsilon if "freelb" in known else self.epsilon
        if self.step_size is not None and self.step_size > 2 * radius:
            detail = f"a step of {self.step_size:g} is longer than the ball of radius {radius:g} is wide"
            yield Fault("/step_size", "step_beyond_ball", detail, f"choose at most {2 * radius:g}, or leave it out")

    def loss(self, run: Run, losses: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """The losses at, or with, the worst case: one value an example, (batch,)."""
        if run.clock.epoch < self.warmup_epochs or not len(losses):
            return losses
        method = _METHODS[run.spec.task][0] if self.method == "auto" else self.method
        if method == "freelb":
            hard = self._freelb(run, batch)
        elif method == "pgd":
            hard = self._losses(run, self._worst(run, batch, self._losses_of(run, batch), None))
        else:
            hard = losses + self.beta * self._divergence(run, outputs, batch)
        state = run.state(self.name)
        state["gained"] = state.get("gained", 0.0) + (hard - losses).detach().sum().double().cpu()
        state["examples"] = state.get("examples", 0) + len(losses)
        return hard

    def report(self, run: Run) -> Mapping[str, float]:
        """How much higher the trained loss was than the plain one, an example."""
        state = run.state(self.name)
        return {"loss_gain": float(state["gained"]) / state["examples"]} if state.get("examples") else {}

    def _losses(self, run: Run, batch: Batch) -> Tensor:
        """The losses of a batch by the task and by all who act on them before, (batch,)."""
        outputs = run.task.forward(run.model, batch)
        losses = run.task.losses(outputs, batch)
        for one in takewhile(lambda one: one.number != self.number, run.plan.on("loss")):
            losses = one.loss(run, losses, outputs, batch)
        return losses

    def _losses_of(self, run: Run, batch: Batch) -> Losses:
        def losses(pixels: Tensor) -> Tensor:
            return self._losses(run, {**batch, "pixel_values": pixels})

        return losses

    def _worst(self, run: Run, batch: Batch, losses: Losses, first: Tensor | None) -> Batch:
        """The batch with the worst pictures that a search finds."""
        steps = self.steps or _STEPS["pgd"]
        step = 2.5 / steps if self.step_size is None else self.step_size / self.epsilon
        ball, origin = self._ball(run), batch["pixel_values"].detach()
        with _in_full(run.model):
            found = pgd(losses, origin, ball, steps=steps, step=step, first=first)
        return {**batch, "pixel_values": found.detach()}

    def _ball(self, run: Run) -> Ball:
        mean, std = pixel_scale(run.task)
        return Ball.of(mean, std, self.epsilon, device_of(run.model))

    def _divergence(self, run: Run, outputs: Tensor, batch: Batch) -> Tensor:
        """How far the answer moves to the worst picture: KL(plain, moved), (batch,)."""
        origin = batch["pixel_values"].detach()
        with _in_full(run.model), torch.no_grad():
            plain = run.task.forward(run.model, batch).float().softmax(dim=1)

        def moved(pixels: Tensor) -> Tensor:
            return _kl(plain, run.task.forward(run.model, {**batch, "pixel_values": pixels}).float())

        ball = self._ball(run)
        start = ball.project(origin, origin + _NOISE * ball.radius * torch.randn_like(origin))
        worst = self._worst(run, batch, moved, start)
        return _kl(outputs.float().softmax(dim=1), run.task.forward(run.model, worst).float())

    def _freelb(self, run: Run, batch: Batch) -> Tensor:
        """The mean of the losses along the ascent, (batch,); their graphs stay until the loop goes back."""
        steps = self.steps or _STEPS["freelb"]
        radius = self.embedding_epsilon
        step = 2.5 * radius / steps if self.step_size is None else self.step_size
        mask = batch["attention_mask"].unsqueeze(-1)
        width = run.model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]  # of every transformers model
        drawn = 2 * torch.rand(*mask.shape[:2], int(width), device=mask.device) - 1
        delta = within(drawn * mask / (mask.sum(dim=1, keepdim=True) * width).sqrt() * radius, radius)
        total: Tensor | None = None
        for number in range(steps):
            delta.requires_grad_(True)
            with moved_embeddings(run.model, delta):
                losses = self._losses(run, batch)
            total = losses if total is None else total + losses
            if number + 1 < steps:
                (gradient,) = torch.autograd.grad(losses.sum() * run.scaler.get_scale(), delta, retain_graph=True)
                delta = within(delta.detach() + step * _unit(gradient * mask), radius)
        assert total is not None
        return total / steps


@contextmanager
def _in_full(model: nn.Module) -> Iterator[None]:
    """The model in fp32, whatever precision it trains in, without dropout and with its averages left alone."""
    with torch.autocast(device_of(model).type, enabled=False), whole_in(model), still(model):
        yield


def _kl(plain: Tensor, moved: Tensor) -> Tensor:
    """KL(plain, softmax(moved)) of each row, (batch,)."""
    return nn.functional.kl_div(moved.log_softmax(dim=1), plain, reduction="none").sum(dim=1)


@contextmanager
def moved_embeddings(model: nn.Module, delta: Tensor) -> Iterator[None]:
    """The model with `delta` (batch, tokens, width) added to what its word embeddings give."""
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]  # of every transformers model
    handle = embeddings.register_forward_hook(lambda module, inputs, output: output + delta.to(output.dtype))
    try:
        yield
    finally:
        handle.remove()


def within(delta: Tensor, radius: float) -> Tensor:
    """Each example's move scaled down to a Frobenius norm of at most `radius`; (batch, tokens, width)."""
    norms = delta.flatten(1).norm(dim=1).view(-1, 1, 1)
    scaled: Tensor = delta * (radius / norms.clamp_min(1e-12)).clamp_max(1.0)
    return scaled


def _unit(gradient: Tensor) -> Tensor:
    """Each example's gradient at norm 1; nothing where it vanished or overflowed."""
    finite = torch.nan_to_num(gradient.float(), nan=0.0, posinf=0.0, neginf=0.0)
    unit: Tensor = finite / finite.flatten(1).norm(dim=1).view(-1, 1, 1).clamp_min(1e-12)
    return unit
