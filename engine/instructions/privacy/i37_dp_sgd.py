"""Instruction 37. Knows when rows are drawn, clipped and noised; `clipping`, `noise` and `accounting` know how."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from engine.accounting import LEAST_NOISE, PrivacyEvent
from engine.apart import check_apart, draw_nothing, drawing_nothing
from engine.chunking import PASS_COSTS, cut_by_length
from engine.clipping import Unclippable, add_clipped, trainable_layers
from engine.errors import Fault, InvalidPlan
from engine.frozen import in_scope, read_by_a_head
from engine.guard import PRIVATE
from engine.instruction import Closure, Instruction, Window
from engine.noise import drawn
from engine.ports import device_of
from engine.releases import draws_left, journal_of, privacy_section, release, spent
from engine.run import Run
from engine.terms import Terms, choice_faults, place_in, terms_of

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_DEFAULT_BATCH = 256
_COVERS = (
    "the trained weights and what is computed from them alone, for the training rows; "
    "scores on validation and test rows are plain figures of those rows"
)


class DpSgd(Instruction):
    """Clips each example's gradient, sums a Poisson draw of them, and adds Gaussian noise once a step.

    Every row enters a step by itself with a fixed probability; the draw may be empty, and the step is made all the
    same. The noisy sum is divided by `expected_batch`, a number of the request, never by what was drawn. It takes the
    place of `training.batch_size`; where `steps` is given, `training.epochs` cuts it into parts to validate after. A
    head alone reads the mean of a text's tokens, which the last layer of a BERT is made to average, and learns at a
    rate of its own.

    Sound: draws and noise come from the operating system, never from the seed, and are never stored. Each draw is in
    the journal, on disk, before it is made; what a resumed run repeats counts again, and all attempts together draw no
    more than was planned. Dropout is off, and a model that draws, or whose losses depend on the batch, is refused: one
    record more would change what others add. The clipped sum is that of single examples within 1e-5, by one forward and
    one backward pass. A record is one example: of a text that is cut or stands twice with one label, one part is drawn.
    Figures of training rows are not told. Real-number analysis, noise on a grid; no formal proof for floats, and timing
    is not defended.

    Refuses: pictures, by task: the nets here have batch norm, which mixes examples. What looks at training rows
    together or outside these steps; mixed examples; shared weights; more than half of the rows a draw; a delta of 1/N
    or more; the best snapshot instead of the last; raw rows in the receipt; a language model without adapters (19).

    Effect: `epsilon` at `delta`, counted by privacy loss distributions. What it costs in quality depends on rows and
    steps: compare with a job without it on the data at hand.
    """

    number = 37
    band = "privacy"
    title = "Differentially private training"
    source = "Abadi et al. 2016; Li et al. 2022 (ghost clipping); Bu et al. 2023 (book-keeping)"
    metric = "epsilon"
    tasks = frozenset({"text_classification", "causal_lm"})
    name: Literal["dp_sgd"] = "dp_sgd"

    epsilon: float | None = Field(
        default=None, ge=0.1, le=20, description="the guarantee; null without noise_multiplier: 8"
    )
    noise_multiplier: float | None = Field(
        default=None, ge=LEAST_NOISE, le=50, description="noise over clipping bound, instead of epsilon"
    )
    delta: float | None = Field(default=None, gt=0, le=0.1, description="null: N to the -1.1, which is below 1/N")
    max_grad_norm: float = Field(default=0.1, ge=1e-3, le=100, description="L2 bound on one example's gradient")
    expected_batch: int | None = Field(
        default=None, ge=1, le=10_000_000, description="rows a step on average; null: 256, or a quarter of few rows"
    )
    steps: int | None = Field(default=None, ge=1, le=10_000_000, description="null: training.epochs times the rows")
    scope: Literal["full", "lora", "bias", "head"] | None = Field(
        default=None, description="what is trained; null: the adapters of 19 where it is chosen, else the head"
    )
    physical_batch: int = Field(default=32, ge=1, le=4096, description="most rows a pass: memory, not privacy")
    noise_source: Literal["os", "torch"] = Field(
        default="os", description="os: a stream cipher under a fresh key; torch: faster, not cryptographic"
    )

    @property
    def provides(self) -> frozenset[str]:
        """The guarantee, gradients that are one example's each, and perhaps a part of the model that learns."""
        facts = frozenset({PRIVATE, "per_example_gradients"})
        if self.scope == "full":
            return facts
        return facts | {"head_alone" if self.scope in {None, "head"} else "few_weights"}

    @property
    def after(self) -> frozenset[str]:
        """The model has its shape then, and what a canary adds to the sum is noised with it."""
        return frozenset({"adapters", "resized", "empirical_epsilon"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """What epsilon would not cover, and what takes an example's own gradient away."""
        own = "an example must have a gradient of its own"
        return {
            "couples_rows": "it looks at training rows together, outside the accounted steps that epsilon covers",
            "reads_training_rows": "it learns from training rows, outside the accounted steps that epsilon covers",
            "mixed_labels": f"{own}, and a mixture of two has that of both",
            "sequence_packing": f"{own}, and a packed row holds several",
            "contextual_augmentation": "a copy of a row would be a second record of the same person",
            "class_rebalancing": "each row must be drawn with one public rate, and counts of classes are private",
            "window": "one draw is one step; raise expected_batch for a larger one",
            "loss_scaling": "norms must be those of the unscaled gradients, so choose bfloat16 for autocast (26)",
            "fake_quantized": f"{own}, and those of layers that round are not known",
            "sharpness_aware_minimization": "its inner step uses the gradient before the noise",
            "activation_checkpointing": "its second forward pass would be recorded as a second use of each layer",
            "adaptive_gradient_clipping": "each example is clipped already, and clipping the noisy sum biases it",
            "adversarial_training": "its inner steps look at gradients before the noise",
            "dp_gradient_aggregation": "one run has one unit: a record here, a client there",
        }

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Numbers that two fields own, choices by private figures, and rows in the receipt."""
        yield from choice_faults(spec, self.epsilon, self.noise_multiplier)
        training, plain = spec.training, type(spec.training)()
        if self.steps is not None and training.max_steps is not None:
            detail = "steps and training.max_steps both say how long to train"
            yield Fault("/steps", "one_of_two", detail, "leave training.max_steps out")
        if self.expected_batch is not None and training.batch_size != plain.batch_size:
            detail = "expected_batch and training.batch_size both say how many rows a step takes"
            yield Fault("/expected_batch", "one_of_two", detail, "leave training.batch_size out")
        yield from self._about_the_model(spec, facts)

    def _about_the_model(self, spec: "Spec", facts: frozenset[str]) -> Iterator[Fault]:
        adapters = "adapters" in facts
        if self.scope == "lora" and not adapters:
            yield Fault("/scope", "missing_need", "there are no adapters to train", "add low_rank_adaptation (19)")
        elif spec.task == "causal_lm" and not adapters:
            detail = "a language model shares its weights with its head, so it trains privately by adapters alone"
            yield Fault("", "missing_need", detail, "add low_rank_adaptation (19)")
        if adapters and self.scope in {"head", "bias"}:
            detail = f"scope {self.scope} would leave the adapters as they are"
            yield Fault("/scope", "idle_adapters", detail, "leave scope out, or low_rank_adaptation (19)")

    def spends(self, spec: "Spec", rows: int) -> list[PrivacyEvent]:
        """All steps, at the noise that the guarantee needs."""
        return [self.terms(spec, rows).plan]

    def terms(self, spec: "Spec", rows: int) -> Terms:
        """The public numbers for so many nominal rows.

        Raises:
            InvalidPlan: where they do not fit that many rows.
        """
        batch = self.expected_batch or max(1, min(_DEFAULT_BATCH, rows // 4))
        training = spec.training
        steps = self.steps or min(math.ceil(training.epochs * rows / batch), training.max_steps or 2**62)
        asked = {"epsilon": self.epsilon, "noise_multiplier": self.noise_multiplier, "delta": self.delta}
        return terms_of(rows, batch, batch / max(rows, 1), steps, **asked, at=place_in(spec, self.name))

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Freeze what is not in scope; a run that goes on has the draws left that were not made.

        Raises:
            InvalidPlan: where a layer in training has no gradients of single examples, or a loss depends on others.
        """
        terms = self._terms(run)
        scope = self.scope or _default_scope(run)
        draw_nothing(model)
        if scope == "head":
            read_by_a_head(model)
        kept = {id(weight) for weight in in_scope(model, scope)}
        for weight in model.parameters():
            weight.requires_grad_(weight.requires_grad and id(weight) in kept)
        weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        run.state(self.name).update(rate=terms.rate, bound=self.max_grad_norm, delta=terms.delta, weights=weights)
        try:
            trainable_layers(model)
        except Unclippable as error:
            fault = Fault(place_in(run.spec, self.name), "no_own_gradients", error.detail, error.remedy)
            raise InvalidPlan([fault]) from error
        check_apart(run, model)
        if run.clock.step:
            run.clock.total = min(run.clock.total, run.clock.step + journal_of(run).left(terms.plan))
        return model

    def total_steps(self, run: Run) -> int:
        """What was planned, less what lost attempts have drawn before their first snapshot.

        Raises:
            BudgetExhausted: where nothing is left of it, or it is more than the budget holds.
        """
        return draws_left(run, self._terms(run))

    def order(self, run: Run, epoch: int) -> Iterator[int]:
        """The first row of each record: those that are drawn from, in no order that matters.

        A text with another label is another record: in the place of the first it would be one gone and one added.
        """
        first: dict[tuple[str, int], int] = {}
        for number, record in enumerate(zip(run.data.train.ids.tolist(), run.data.train.labels.tolist(), strict=True)):
            first.setdefault(record, number)
        yield from first.values()

    def grouping(self, run: Run, ids: Iterator[int], epoch: int) -> Iterator[Window]:
        """An epoch's share of the steps, each a draw of its own in chunks of similar length."""
        terms, rows = self._terms(run), np.array(list(ids), dtype=np.int64)
        lengths, epochs = run.data.lengths("train"), run.spec.training.epochs
        pass_cost = PASS_COSTS[device_of(run.model).type]
        for _ in range(terms.steps * epoch // epochs, terms.steps * (epoch + 1) // epochs):
            taken = rows[drawn(len(rows), terms.rate)]
            taken = taken[np.argsort(-lengths[taken], kind="stable")]
            cuts = cut_by_length(lengths[taken], self.physical_batch, pass_cost)
            yield Window(tuple(tuple(taken[cut].tolist()) for cut in cuts), float(terms.expected_batch))

    def context(self, run: Run) -> AbstractContextManager[Any]:
        """A pass that draws would make one record's gradient hang on the places of the others."""
        return drawing_nothing(run.model)

    def backward(self, run: Run, closure: Closure, divisor: float) -> Tensor:
        """Add the clipped sum to `.grad`; the loss of private rows goes nowhere."""
        add_clipped(run.model, closure, self.max_grad_norm)
        return torch.zeros(())

    def gradients(self, run: Run) -> None:
        """Write the draw down, then add noise once and divide by the fixed number.

        Raises:
            BudgetExhausted: before a draw that was not planned.
        """
        terms = self._terms(run)
        release(run, terms, self.max_grad_norm, terms.expected_batch, self.noise_source)

    def report(self, run: Run) -> Mapping[str, float]:
        """What was spent, and on how many weights."""
        return {**spent(run, self._terms(run)), "trained_weights": run.state(self.name)["weights"]}

    def evidence(self, run: Run) -> Mapping[str, Mapping[str, Any]]:
        """The section `privacy`."""
        return privacy_section(
            run,
            self._terms(run),
            mechanism=self.name,
            unit="record",
            bound=self.max_grad_norm,
            covers=_COVERS,
            noise_source=self.noise_source,
        )

    def _terms(self, run: Run) -> Terms:
        return self.terms(run.spec, journal_of(run).budget.rows or len(run.data.train))


def _default_scope(run: Run) -> str:
    return "lora" if "adapters" in run.plan.facts else "head"
