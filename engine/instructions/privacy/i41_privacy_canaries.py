"""Instruction 41. Knows how canaries are planted and scored; what their guesses prove is `engine.auditing`'s."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from engine.accounting import default_delta, epsilon
from engine.auditing import guesses, lower_bound, right_guesses
from engine.errors import EngineError, Fault, InvalidData
from engine.instruction import Exported, Instruction
from engine.noise import drawn
from engine.ports import Payload, device_of
from engine.randomness import derive, generator
from engine.releases import audited_section
from engine.rows import Rows
from engine.run import Run
from engine.set_aside import joined, restored, stored, without

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_DEFAULT_CANARIES = 1000
_LEAST_GUESSES = 50
_MOST_DOUBT = 0.05  # of delta times canaries: beyond it the bound is slack
_WORDS = 12
_WHOLE = 2**63  # what a draw by name lies below
_SCORED = 64  # rows a pass


class PrivacyCanaries(Instruction):
    """Plants canaries, each in or out by a fair coin, and bounds epsilon from below by how well the coins are guessed.

    `wrong_label` takes training rows, gives them a wrong label and puts back those whose coin says in; `random_tokens`
    makes texts of nonsense; `gradient`, with 37, adds a bound's worth of one coordinate to the clipped sums that a
    canary is drawn for, and watches the noisy sums. The score of a row is how much its loss fell.

    Sound: the coins are drawn before the run, the number of guesses too; top and bottom are guessed, the middle is
    not. If a row is a canary, its coin and its label hang on the row alone, so epsilon holds beside them. The bound
    is that of one run with many canaries, at `confidence`. A bound above the claim fails the job.

    Refuses: more canaries than a tenth of the rows; fewer than 50 guesses; a delta at which the bound says nothing;
    what would take the canaries out again. It is a smoke alarm: noise at a twentieth of what was claimed passed black
    boxes, and a bound below the claim proves nothing. It spoils the model: do not ship an audited one.

    Effect: `lower_bound` of epsilon at 95 %. Above the claim it fails the job; far below it proves nothing, since
    canaries miss much: a test holds that it stays below the claim over many small private runs and is positive without
    privacy.
    """

    number = 41
    band = "privacy"
    title = "Privacy canaries"
    source = "Steinke, Nasr and Jagielski 2023, theorem 5.2 and appendix D"
    metric = "lower_bound"
    tasks = frozenset({"text_classification", "image_classification"})
    name: Literal["privacy_canaries"] = "privacy_canaries"

    canaries: int | None = Field(
        default=None, ge=100, le=10_000, description="on average; null: 1,000, or a tenth of the rows if less"
    )
    guess_fraction: float = Field(default=0.5, gt=0, le=1, description="share of canaries guessed, fixed beforehand")
    kind: Literal["wrong_label", "random_tokens", "gradient"] = Field(
        default="wrong_label", description="what a canary is; gradient needs 37 and sees inside it"
    )
    confidence: float = Field(default=0.95, ge=0.5, le=0.999, description="of the lower bound")

    @property
    def provides(self) -> frozenset[str]:
        """A figure that epsilon is not below."""
        return frozenset({"empirical_epsilon"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """Whatever would take canaries out, or blend them with others."""
        gone = "it would take canaries out again, and their coins would say nothing"
        names = ("deduplication", "quality_filter", "label_noise_detection", "decontamination", "poison_screening")
        apart = {"mixed_labels": "a canary mixed with another row is neither in nor out"}
        apart["streamed_records"] = "canaries are put among rows that lie in memory"
        return {**dict.fromkeys(names, gone), **apart}

    @property
    def idle(self) -> frozenset[str]:
        """Rows or gradients, not both."""
        if self.kind == "gradient":
            return frozenset({"training_records", "model"})
        return frozenset({"gradients", "after_step"})

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """A kind that the plan cannot carry, and numbers that prove nothing."""
        if self.kind == "gradient" and "per_example_gradients" not in facts:
            yield Fault("/kind", "missing_need", "nobody clips gradients one by one here", "add dp_sgd (37)")
        if self.kind == "random_tokens" and spec.task != "text_classification":
            yield Fault("/kind", "wrong_task", "random words are no pictures", "choose wrong_label")
        if self.canaries is not None and self._made(self.canaries) < _LEAST_GUESSES:
            detail = f"{self._made(self.canaries)} guesses of {self.canaries} canaries prove nothing"
            yield Fault("/guess_fraction", "too_few_guesses", detail, f"guess {_LEAST_GUESSES} canaries or more")

    def training_records(self, run: Run, rows: Rows) -> Rows:
        """Take the canaries' rows out and put back those whose coin says in, with wrong labels or as nonsense.

        Raises:
            InvalidData: where the canaries would be more than a tenth of the rows, or none.
        """
        known = run.journal.budget.rows if run.journal is not None else None
        nominal = known or len(rows)
        count = self._count(nominal)
        if count > nominal / 10:  # the public number: how many rows there are is nobody's to choose
            detail = f"{count} canaries are more than a tenth of {nominal} training rows"
            raise InvalidData(detail, remedy=f"give at least {10 * count:,} training rows, or leave canaries out")
        records = [f"{id_} {label}" for id_, label in zip(rows.ids.tolist(), rows.labels.tolist(), strict=True)]
        first: dict[str, int] = {}  # the first row of each canary
        for number, record in enumerate(records):
            if self._drawn(run, "rows", record) < count / nominal * _WHOLE:
                first.setdefault(record, number)
        if not first:
            raise InvalidData(f"none of {len(rows)} training rows became a canary", remedy="give more rows")
        planted = self._planted(run, rows.take(np.array([*first.values()], np.int64)).loaded(), list(first))
        coins = np.array([self._drawn(run, "coins", record) % 2 for record in first], np.bool_)
        state = run.state(self.name)
        state["coins"], state["labels"] = coins.tolist(), planted.labels.tolist()
        state["payloads"] = [stored(payload) for payload in planted.payloads]
        taken = np.array([number for number, record in enumerate(records) if record in first], np.int64)
        return joined(without(rows, taken), planted.take(np.flatnonzero(coins)).loaded())

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Note the losses of all canaries before the first step."""
        state = run.state(self.name)
        if "before" not in state:
            state["before"] = self._losses(run, model).tolist()
        return model

    def gradients(self, run: Run) -> None:
        """Add each canary that is in and drawn to the clipped sum: its gradient is the bound in one coordinate."""
        state, about = self._watched(run), run.state("dp_sgd")
        coins = np.array(state["coins"], dtype=np.bool_)
        taken = np.zeros(len(coins), np.bool_)
        taken[drawn(len(coins), float(about["rate"]))] = True
        for flat, places, which in _coordinates(run.model, state["places"]):
            flat[places] += torch.from_numpy((taken & coins)[which]).to(flat) * float(about["bound"])

    def after_step(self, run: Run) -> None:
        """Add up what the noisy sums show of each coordinate."""
        state = self._watched(run)
        scores = np.array(state["scores"])
        for flat, places, which in _coordinates(run.model, state["places"]):
            scores[which] += flat[places].double().cpu().numpy()
        state["scores"] = scores.tolist()

    def audit(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        """Guess the coins of the finished run.

        Raises:
            EngineError: where the bound is above the epsilon that is claimed.
        """
        state = run.state(self.name)
        if self.kind == "gradient":
            scores = np.array(state["scores"])
        else:
            scores = np.array(state["before"]) - self._losses(run, eager)
        made = self._made(len(scores))
        journal = run.journal
        rows = journal.budget.rows if journal is not None and journal.budget.rows else len(run.data.train)
        delta = float(run.state("dp_sgd").get("delta", default_delta(rows)))
        if made < _LEAST_GUESSES or delta * len(scores) > _MOST_DOUBT:
            run.warn("weak_audit", f"{made} guesses at delta {delta:.1e} prove little: give more rows or canaries")
        right = right_guesses(guesses(scores, made), np.array(state["coins"], dtype=np.bool_))
        bound = lower_bound(len(scores), made, right, delta, self.confidence)
        bound = math.floor(bound * 1e4) / 1e4
        claim = epsilon(journal.drawn(), delta) if journal is not None and journal.count else None
        found = {"lower_bound": bound, "right_guesses": right, "guesses": made, "canaries": len(scores)}
        state["found"] = {name: float(value) for name, value in found.items()}
        if claim is not None and bound > claim:
            detail = f"{right} of {made} coins were guessed: epsilon is {bound:g} at least, and {claim:g} was claimed"
            raise EngineError(detail, remedy="report this as a fault of the server: the privacy claim does not hold")

    def report(self, run: Run) -> Mapping[str, float]:
        """The bound, and what it rests on."""
        found: Mapping[str, float] = run.state(self.name).get("found", {})
        return found

    def evidence(self, run: Run) -> Mapping[str, Mapping[str, Any]]:
        """The bound, beside the claim where there is one."""
        found = self.report(run)
        return audited_section(found["lower_bound"]) if found else {}

    def _count(self, rows: int) -> int:
        return self.canaries or max(1, min(_DEFAULT_CANARIES, rows // 10))

    def _made(self, canaries: int) -> int:
        return 2 * (int(canaries * self.guess_fraction) // 2)

    def _drawn(self, run: Run, stream: str, record: str) -> int:
        """A number below `_WHOLE` by the record alone: one more row makes no other a canary, nor turns its coin."""
        return derive(run.spec.training.seed, self.name, stream, record)

    def _planted(self, run: Run, rows: Rows, records: list[str]) -> Rows:
        """The rows as canaries, all of them."""
        classes = len(rows.label_names) or 2
        steps = np.array([1 + self._drawn(run, "labels", record) % (classes - 1) for record in records], np.int64)
        labels = (rows.labels + steps) % classes
        if self.kind == "random_tokens":
            made = [_nonsense(generator(run.spec.training.seed, self.name, "words", record)) for record in records]
            return replace(rows, payloads=list[Payload](made), labels=labels)
        return replace(rows, labels=labels)

    @torch.no_grad()
    def _losses(self, run: Run, model: nn.Module) -> npt.NDArray[np.float64]:
        """The loss of each canary, (canaries,), in evaluation mode."""
        state, task, was_training = run.state(self.name), run.task, model.training
        examples, labels = task.encode([restored(one) for one in state["payloads"]]), state["labels"]
        found: list[Tensor] = []
        model.eval()
        for start in range(0, len(examples), _SCORED):
            part = slice(start, start + _SCORED)
            batch = {k: v.to(device_of(model)) for k, v in task.collate(examples[part], labels[part]).items()}
            found.append(task.losses(task.forward(model, batch), batch))
        model.train(was_training)
        return torch.cat(found).double().cpu().numpy()

    def _watched(self, run: Run) -> dict[str, Any]:
        """Coins, coordinates and scores of gradient canaries, made at the first step."""
        state = run.state(self.name)
        if "places" not in state:
            weights = sum(weight.numel() for weight in run.model.parameters() if weight.requires_grad)
            count = min(self._count(len(run.data.train)), weights)
            draw = generator(run.spec.training.seed, self.name, "gradient")
            state["places"] = np.sort(draw.permutation(weights)[:count]).tolist()
            state["coins"] = draw.integers(0, 2, count).astype(np.bool_).tolist()
            state["scores"] = [0.0] * count
        return state


def _nonsense(draw: np.random.Generator) -> str:
    letters = [chr(ord("a") + i) for i in range(26)]
    return " ".join("".join(draw.choice(letters, 6)) for _ in range(_WORDS))


def _coordinates(model: nn.Module, places: list[int]) -> Iterable[tuple[Tensor, Tensor, npt.NDArray[np.int64]]]:
    """The flat gradient of each weight in training, the places in it, and the canaries that watch them."""
    wanted, start = np.array(places, dtype=np.int64), 0
    for weight in model.parameters():
        if not weight.requires_grad:
            continue
        which = np.flatnonzero((wanted >= start) & (wanted < start + weight.numel()))
        if len(which):
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            yield weight.grad.view(-1), torch.from_numpy(wanted[which] - start).to(weight.device), which
        start += weight.numel()
