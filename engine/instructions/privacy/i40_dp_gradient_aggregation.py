"""Instruction 40. Knows when clients are drawn, trained, clipped and noised; `noise` and `accounting` know how."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from engine.accounting import LEAST_NOISE, LEAST_RATE, PrivacyEvent
from engine.apart import check_apart, draw_nothing, drawing_nothing
from engine.errors import Fault, InvalidData, InvalidPlan
from engine.federated import client_faults, clients_in, clipped, counted, scope_faults, too_few
from engine.frozen import in_scope, read_by_a_head, same_rows
from engine.guard import PRIVATE
from engine.instruction import Closure, Instruction, Window
from engine.noise import drawn
from engine.randomness import generator
from engine.releases import draws_left, journal_of, privacy_section, release, spent
from engine.run import Run
from engine.terms import Terms, choice_faults, place_in, terms_of

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_DEFAULT_ROUNDS = 30
_LENGTH = 4.0  # of what a head reads: at that, a few plain steps move a client about as far as it is clipped to
_COVERS = (
    "the trained weights and what is computed from them alone, for all that one client of the training rows holds; "
    "scores on validation and test rows are plain figures of those rows, and whoever runs the job sees everything"
)


class DpGradientAggregation(Instruction):
    """Trains on each drawn client by itself, clips each client's update, and adds Gaussian noise once to their sum.

    A round draws each client by itself with the probability `client_rate`. A client takes `local_steps` steps from the
    present weights on its own rows; what it moved, all tensors as one vector, is scaled down to `clip_norm`. The noisy
    sum is divided by the expected number of clients, a public number, and moves the weights. The clients are the groups
    of the data set (`group_column`); everything happens in one process, so nothing is hidden from whoever runs it.
    `rounds` takes the place of `training.epochs`, which cuts it into parts to validate after. A head alone reads the
    mean of a text's tokens: the last layer of a BERT is made to average them.

    Sound: what is protected is all that one client holds, added or removed. Dropout is off, and a model that draws is
    refused: one client more would change what others add. Draws and noise come from the operating
    system and are never stored; each round is in the journal, on disk, before its noise is drawn. An update that is not
    finite counts as zero. The server's step is post-processing.

    Refuses: rows without a client; fewer than 20 expected clients a round, since the noise would drown their sum;
    pictures, by task: statistics of batch norm would leave unclipped. What looks at training rows together or outside
    the rounds, the best snapshot, and raw rows in the receipt.

    Effect: `epsilon` at `delta` for a client; docs/article.md has its accuracy beside the article's method, which has
    no guarantee: no clipping, a noise scale read off the data, noise a client, no composition.
    """

    number = 40
    band = "privacy"
    title = "Differentially private aggregation of clients' updates"
    source = "McMahan et al. 2018 (arXiv 1710.06963); Balle and Wang 2018; Dwork and Roth 2014 appendix A"
    metric = "epsilon"
    tasks = frozenset({"text_classification", "causal_lm"})
    name: Literal["dp_gradient_aggregation"] = "dp_gradient_aggregation"

    epsilon: float | None = Field(
        default=None, ge=0.1, le=20, description="the guarantee; null without noise_multiplier: 8"
    )
    noise_multiplier: float | None = Field(
        default=None, ge=LEAST_NOISE, le=50, description="noise over clipping bound, instead of epsilon"
    )
    delta: float | None = Field(default=None, gt=0, le=0.1, description="null: clients to the -1.1")
    clip_norm: float = Field(default=0.5, ge=1e-4, le=1e4, description="L2 bound on one client's update")
    client_rate: float = Field(default=0.2, ge=LEAST_RATE, le=0.5, description="probability of a client to be drawn")
    clients: int | None = Field(
        default=None, ge=1, le=10**9, description="nominal number of clients, public; null: as counted in the data set"
    )
    rounds: int | None = Field(default=None, ge=1, le=100_000, description="null: 30")
    local_steps: int = Field(default=3, ge=1, le=1000, description="steps that a client takes by itself")
    local_learning_rate: float = Field(default=0.5, gt=0, le=100, description="of the clients' plain gradient steps")
    client_rows: int = Field(default=64, ge=1, le=4096, description="rows a client uses in a round, of more as many")
    server_learning_rate: float = Field(
        default=1.0, gt=0, le=100, description="how far the noisy mean moves the weights"
    )
    server_momentum: float = Field(default=0.9, ge=0, lt=1, description="of the server's steps, which follow the noise")
    client_field: str | None = Field(default=None, min_length=1, max_length=200, description="null: the group column")
    scope: Literal["full", "lora", "bias", "head"] | None = Field(
        default=None, description="what is trained; null: the adapters of 19 where it is chosen, else the head"
    )

    @property
    def provides(self) -> frozenset[str]:
        """The guarantee, and updates that are one client's each."""
        return frozenset({PRIVATE, "client_updates"})

    @property
    def after(self) -> frozenset[str]:
        """What is trained is decided once the model has its shape."""
        return frozenset({"adapters", "resized"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """What epsilon would not cover, and what takes the rounds apart."""
        return {
            "couples_rows": "it looks at rows of several clients together: epsilon would not cover it",
            "reads_training_rows": "it learns from training rows outside the rounds: epsilon would not cover it",
            "mixed_labels": "a mixture must not hold rows of two clients",
            "dp_sgd": "one run has one unit: a client here, a record there",
            "privacy_canaries": "its canaries are records, and what is protected here is a client",
            "window": "one round is one step; raise client_rate for a larger one",
            "loss_scaling": "updates must be unscaled, so choose bfloat16 for autocast (26)",
            "fake_quantized": "ranges would be learned from rows outside the accounted rounds",
            "sharpness_aware_minimization": "its inner step uses a gradient before the noise",
            "adaptive_gradient_clipping": "each update is clipped already, and clipping the noisy sum biases it",
            "adversarial_training": "its inner steps look at gradients before the noise",
        }

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Numbers that two fields own, clients that nobody names or that are too few, and private choices."""
        yield from choice_faults(spec, self.epsilon, self.noise_multiplier)
        if self.rounds is not None and spec.training.max_steps is not None:
            detail = "rounds and training.max_steps both say how long to train"
            yield Fault("/rounds", "one_of_two", detail, "leave training.max_steps out")
        yield from client_faults(facts, self.client_field, self.clients, self.client_rate)
        yield from scope_faults(self.scope, spec.task, "adapters" in facts)

    def spends(self, spec: "Spec", rows: int) -> list[PrivacyEvent]:
        """All rounds, at the noise that the guarantee needs; `rows` is the nominal number of clients."""
        return [self.terms(spec, rows).plan]

    def terms(self, spec: "Spec", clients: int) -> Terms:
        """The public numbers for so many nominal clients.

        Raises:
            InvalidPlan: where they give no guarantee.
        """
        expected = max(1, round(self.client_rate * clients))
        asked = {"epsilon": self.epsilon, "noise_multiplier": self.noise_multiplier, "delta": self.delta}
        at, rounds = place_in(spec, self.name), self.rounds or _DEFAULT_ROUNDS
        return terms_of(clients, expected, self.client_rate, rounds, **asked, at=at)

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Freeze what is not in scope; a run that goes on has the rounds left that were not drawn.

        Raises:
            InvalidPlan: where a layer keeps statistics of what it sees, or draws.
        """
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                detail = f"{name} is batch norm, whose statistics would leave a client unclipped"
                fault = Fault("/model", "batch_norm", detail, "choose a base model with layer or group norm")
                raise InvalidPlan([fault])
        scope = self.scope or ("lora" if "adapters" in run.plan.facts else "head")
        draw_nothing(model)
        if scope == "head":
            read_by_a_head(model, _LENGTH)
        kept = {id(weight) for weight in in_scope(model, scope)}
        for weight in model.parameters():
            weight.requires_grad_(weight.requires_grad and id(weight) in kept)
        run.state(self.name)["weights"] = sum(one.numel() for one in model.parameters() if one.requires_grad)
        check_apart(run, model)
        if run.clock.step:
            run.clock.total = min(run.clock.total, run.clock.step + journal_of(run).left(self._terms(run).plan))
        return model

    def optimizer(self, run: Run) -> torch.optim.Optimizer:
        """Plain steps by the noisy mean update."""
        weights = [weight for weight in run.model.parameters() if weight.requires_grad]
        return torch.optim.SGD(weights, lr=self.server_learning_rate, momentum=self.server_momentum)

    def schedule(self, run: Run, step: int, total: int) -> float:
        """One rate throughout."""
        return 1.0

    def total_steps(self, run: Run) -> int:
        """The rounds that were planned, less what lost attempts have drawn.

        Raises:
            InvalidData: there are too few clients.
            BudgetExhausted: that is more than the budget holds, or nothing is left.
        """
        present = len(clients_in(run.data.train.groups))
        if (fault := too_few(min(present, self._clients(run)), self.client_rate)) is not None:
            raise InvalidData(fault.detail, remedy=fault.remedy)
        return draws_left(run, self._terms(run))

    def order(self, run: Run, epoch: int) -> Iterator[int]:
        """Every row, in no order that matters."""
        yield from range(len(run.data.train))

    def grouping(self, run: Run, ids: Iterator[int], epoch: int) -> Iterator[Window]:
        """An epoch's share of the rounds; a window is a round and a chunk the rows of one drawn client."""
        terms, epochs = self._terms(run), run.spec.training.epochs
        clients = list(clients_in(run.data.train.groups).items())
        divisor = self.client_rate * self._clients(run)
        for number in range(terms.steps * epoch // epochs, terms.steps * (epoch + 1) // epochs):
            cohort = [clients[place] for place in drawn(len(clients), terms.rate).tolist()]
            yield Window(tuple(self._rows(run, name, rows, number) for name, rows in cohort), divisor)

    def _rows(self, run: Run, name: str, rows: np.ndarray[Any, np.dtype[np.int64]], number: int) -> tuple[int, ...]:
        if len(rows) > self.client_rows:  # by the name: any number of a row or a client hangs on the clients before it
            chance = generator(run.spec.training.seed, "client", number, name)
            rows = np.sort(chance.choice(rows, self.client_rows, replace=False))
        return tuple(rows.tolist())

    def context(self, run: Run) -> AbstractContextManager[Any]:
        """A pass that draws would make one client's update hang on the places of the others."""
        return drawing_nothing(run.model)

    def backward(self, run: Run, closure: Closure, divisor: float) -> Tensor:
        """Add what one client moves from the present weights, clipped, to `.grad`."""
        weights = [weight for weight in run.model.parameters() if weight.requires_grad]
        start = [weight.detach().clone() for weight in weights]
        with same_rows(run.model):
            for _ in range(self.local_steps):
                gradients = torch.autograd.grad(closure().mean(), weights, allow_unused=True)
                with torch.no_grad():
                    for weight, gradient in zip(weights, gradients, strict=True):
                        if gradient is not None:
                            weight.sub_(gradient, alpha=self.local_learning_rate)
        with torch.no_grad():
            moved = [before - weight for before, weight in zip(start, weights, strict=True)]
            for weight, before, update in zip(weights, start, clipped(moved, self.clip_norm), strict=True):
                weight.copy_(before)
                weight.grad = update if weight.grad is None else weight.grad.add_(update)
        return torch.zeros(())

    def gradients(self, run: Run) -> None:
        """Write the round down, then add noise once and divide by the fixed number.

        Raises:
            BudgetExhausted: before a round that was not planned.
        """
        release(run, self._terms(run), self.clip_norm, self.client_rate * self._clients(run), "os")

    def report(self, run: Run) -> Mapping[str, float]:
        """What was spent, on how many weights, among how many nominal clients."""
        found = {**spent(run, self._terms(run)), "rounds": journal_of(run).count}
        return {**found, "clients": self._clients(run), "trained_weights": run.state(self.name)["weights"]}

    def evidence(self, run: Run) -> Mapping[str, Mapping[str, Any]]:
        """The section `privacy`."""
        return privacy_section(
            run,
            self._terms(run),
            mechanism=self.name,
            unit="client",
            bound=self.clip_norm,
            covers=_COVERS,
            noise_source="os",
        )

    def _clients(self, run: Run) -> int:
        """Of the request, or as the data set's file has it."""
        return self.clients or counted(run.plan.facts) or len(clients_in(run.data.train.groups))

    def _terms(self, run: Run) -> Terms:
        return self.terms(run.spec, self._clients(run))
