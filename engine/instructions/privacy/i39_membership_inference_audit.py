"""Instruction 39. Knows the pool and the reference models; the attacks' maths is `engine.auditing`'s."""

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn

from engine.auditing import leak, lira, rmia
from engine.checkpoint import Snapshots
from engine.data import Data
from engine.errors import Fault
from engine.inference import eager_answers
from engine.instruction import Exported, Instruction
from engine.interrupt import Interrupt
from engine.ports import Answers, Payload
from engine.randomness import generator
from engine.rows import Rows
from engine.run import Run, inner_run
from engine.set_aside import joined, restored, stored, without
from engine.train import train

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_DEFAULT_POOL = 2000
_LEAST_POOL = 400
_Scores = npt.NDArray[np.float64]


class MembershipInferenceAudit(Instruction):
    """Tells how well an attacker can name the rows that a model was trained on.

    A pool of training rows is set aside and a coin for each says whether it stays; those that went are rows that the
    model could have seen and has not. References are trained by the same plan on halves of the same pool, uncompressed.
    The attack compares what the model says of each row with what they say (`rmia`, `lira`), or looks at the loss alone.

    Sound: rows that are equal to the model share one coin and count once, so no row that went was trained on. Members
    and the others come from one shuffle, so nothing but membership tells them apart. The figure is the
    true-positive rate at a low false-positive rate with its exact interval: averages hide the few that are exposed. The
    attack is chosen before it is seen. The loss alone says "safe" where rmia finds 13 % of the members: it is not the
    default, and no references are an attack by loss.

    Refuses: privacy (37, 40), under which the references would draw again and these plain figures of private rows would
    be told: privacy_canaries (41) bound that from below. What makes other rows of training rows (15, 41). A pool under
    400, as a parameter; a small one is warned of.

    Effect: `true_positive_rate` at the asked rate of false alarms, with its interval: what an attacker who holds
    candidates learns from the model. Half of the pool is not trained on.
    """

    number = 39
    band = "privacy"
    title = "Membership inference audit"
    source = "Zarifzadeh, Liu and Shokri 2024 (RMIA); Carlini et al. 2022 (LiRA); Yeom et al. 2018 (loss)"
    metric = "true_positive_rate"
    tasks = frozenset({"text_classification", "image_classification"})
    name: Literal["membership_inference_audit"] = "membership_inference_audit"

    references: int = Field(default=2, ge=0, le=16, description="models trained to compare with; each costs a training")
    attack: Literal["rmia", "lira", "loss"] = Field(default="rmia", description="how rows are scored; fixed beforehand")
    pool: int | None = Field(
        default=None, ge=_LEAST_POOL, le=20_000, description="rows that coins decide on; null: 2,000, or all of fewer"
    )
    false_positive_rate: float = Field(default=0.01, ge=0.001, le=0.5, description="where the attack is read off")

    @property
    def provides(self) -> frozenset[str]:
        """A figure for what the model tells of its rows."""
        return frozenset({"membership_audit"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """Under privacy each reference would cost again."""
        told = "references train on private rows again, and the figures are plain functions of these; choose 41 instead"
        return {
            "differential_privacy": told,
            "streamed_records": "the pool is scored again after the training",
            "augmented_rows": "variants of a row that is set aside would stay in the training",
            "empirical_epsilon": "canaries are rows with labels of their own, and one audit would count the other's",
        }

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """An attack without what it compares with."""
        if self.attack != "loss" and not self.references:
            detail = f"{self.attack} compares with reference models, and there are none"
            yield Fault("/references", "no_references", detail, "train 2 references or more, or choose attack loss")

    def training_records(self, run: Run, rows: Rows) -> Rows:
        """Set the pool aside and keep those of it whose coin says so."""
        of_row, first = _contents(rows)
        count = min(self.pool or _DEFAULT_POOL, len(first))
        if count < _LEAST_POOL:
            run.warn("small_pool", f"a pool of {count} rows says little at {self.false_positive_rate:.1%} false alarms")
        draw = generator(run.spec.training.seed, self.name)
        chosen = np.sort(draw.permutation(len(first))[:count])
        members = draw.permutation(count) < (count + 1) // 2
        stays, goes = (np.flatnonzero(np.isin(of_row, chosen[coin])) for coin in (members, ~members))
        state = run.state(self.name)
        state["members"] = np.unique(rows.ids[stays]).tolist()
        left_out = rows.take(goes).loaded()
        state["others"] = {"payloads": [stored(one) for one in left_out.payloads], "labels": left_out.labels.tolist()}
        return without(rows, goes)

    def audit(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        """Score the pool by the model and by references trained on halves of it."""
        pool, members, rest = self._pool(run)
        of_row, first = _contents(pool)
        public = run.data.valid if len(run.data.valid) else run.data.test
        scored = pool.take(first).loaded(), public
        target, population = (_scores(run, eager, rows) for rows in scored)
        draw = generator(run.spec.training.seed, self.name, "references")
        halves: list[npt.NDArray[np.bool_]] = []
        found: list[tuple[_Scores, _Scores]] = []
        for number in range(0 if self.attack == "loss" else self.references):
            # Two neighbours take the two halves, so that each row is in one of them.
            half = ~halves[-1] if number % 2 else draw.permutation(len(first)) < len(first) // 2
            halves.append(half)
            reference = _reference(run, joined(rest, pool.take(np.flatnonzero(half[of_row])).loaded()))
            of_pool, of_public = (_scores(reference, reference.model, rows) for rows in scored)
            found.append((of_pool, of_public))
        scores = target
        if found:
            every_pool, every_public = (np.stack(one) for one in zip(*found, strict=True))
            likely = _by_likelihood(target, every_pool, population, every_public)
            scores = lira(target, every_pool, np.stack(halves)) if self.attack == "lira" else rmia(*likely)
        told = leak(scores, members[first], self.false_positive_rate)
        run.state(self.name)["found"] = {
            "true_positive_rate": told.rate,
            "true_positive_rate_low": told.low,
            "true_positive_rate_high": told.high,
            "false_positive_rate": told.false_alarms,
            "auc": told.auc,
            "pool": float(len(first)),
            "references": float(len(found)),
        }

    def report(self, run: Run) -> Mapping[str, float]:
        """The attack's figures."""
        found: Mapping[str, float] = run.state(self.name).get("found", {})
        return found

    def _pool(self, run: Run) -> tuple[Rows, npt.NDArray[np.bool_], Rows]:
        """The pool's rows, members first; which they are; and the training rows that no coin decided on."""
        state, rows = run.state(self.name), run.data.train
        inside = np.isin(rows.ids, np.array(state["members"], dtype=np.str_))
        known, others = rows.take(np.flatnonzero(inside)).loaded(), state["others"]
        count = len(others["labels"])
        outside = replace(
            rows.take(np.zeros(count, np.int64)),
            payloads=[restored(one) for one in others["payloads"]],
            labels=np.array(others["labels"], dtype=np.int64),
        )
        members = np.arange(len(known) + count) < len(known)
        return joined(known, outside), members, rows.take(np.flatnonzero(~inside)).loaded()


def _contents(rows: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which content each row has, (n,), and the first row of each: a model cannot tell rows of one content apart.

    By what is read and not by the id, which is that of the row before it was normalised.
    """
    number_of: dict[Payload, int] = {}
    of_row = np.array([number_of.setdefault(one, len(number_of)) for one in rows.payloads], dtype=np.int64)
    return of_row, np.unique(of_row, return_index=True)[1]


def _reference(run: Run, rows: Rows) -> Run:
    """A run that has trained by the same plan on other rows, from the task as it was before the model got smaller."""
    task = run.start.task if run.start is not None else run.task
    inner = inner_run(run, task=task, data=Data(rows, run.data.valid, run.data.test, task))
    with tempfile.TemporaryDirectory() as folder:
        train(inner, Snapshots(Path(folder), inner.sink, every_seconds=math.inf), Interrupt())
    return inner


def _scores(run: Run, model: nn.Module, rows: Rows) -> _Scores:
    """The log-odds of each row's label, (n,): as good as normal where probabilities pile up at 1 (Carlini et al.)."""
    answers: Answers = eager_answers(run.task, model, run.task.encode([rows.payloads[i] for i in range(len(rows))]))
    likelihoods = torch.from_numpy(answers).double().log_softmax(1).numpy()
    own = np.take_along_axis(likelihoods, rows.labels[:, None], 1)[:, 0]
    other = likelihoods.copy()
    np.put_along_axis(other, rows.labels[:, None], -np.inf, 1)
    odds: _Scores = own - np.logaddexp.reduce(other, 1)
    return odds


def _by_likelihood(*odds: _Scores) -> tuple[_Scores, ...]:
    """Log-odds as log-likelihoods."""
    return tuple(-np.logaddexp(0.0, -one) for one in odds)
