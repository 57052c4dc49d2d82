"""Instruction 36. Knows which attacks serve a task; how they search stands in `engine.robustness`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field
from torch import nn

from engine.character_noise import noised_rows
from engine.errors import Fault
from engine.evaluate import measured, rounded, wilson
from engine.instruction import ALL_TASKS, AUDITS, Exported, Instruction
from engine.randomness import generator
from engine.robustness import ATTACKS, Outcome, Setting, as_package, attack_rows, drawn_rows
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_FEW_ROWS = 50
_SHOWN = 3

AttackName: TypeAlias = Literal[
    "pgd20", "apgd_ce", "square", "word_substitution", "character_swap", "homoglyph", "character_noise"
]
_NOISE = "character_noise"
_SCORES = {"text_image_pairs": "recall_at_1", "causal_lm": "bits_per_byte"}


class RobustnessAudit(Instruction):
    """Attacks the finished model with fixed budgets and reports what is left of its accuracy.

    Pictures move inside an L-infinity ball in pixel units (PGD, APGD, and Square, which needs no gradient); words of a
    text are replaced greedily by neighbours in the model's own embeddings, by swapped letters, or by look-alike ones.
    The picture of a pair is right where it finds its own text first among those of all test rows. A language model is
    not attacked: swapped letters in a share of the words show how its bits per byte rise with slips of the keyboard.

    Sound: the file that ships is judged. A search may use the eager model's fp32 gradients, in evaluation mode and
    without rounding, but a change counts only where the file, given it as a file of 8-bit pixels or as a text, answers
    wrongly. The score is a share of all rows: those that are wrong untouched are lost already, and a row that any
    attack breaks is lost. Neighbours are not synonyms ("madrid" has "lisbon"), so the share of changed words is told
    and no claim is made that meaning is kept. A budget bounds every figure: a stronger attack may find more.

    Refuses: attacks that do not serve the task; `min_robust_score` on a language model, whose bits per byte are no
    share of rows; a change beyond the range of pixels; fewer than 50 rows as a parameter, and a test split that small
    is warned of. Where a model gives no gradient, Square takes the place of the search and the receipt says so.

    Effect: none on the model: the section `robustness` of the receipt, and what `min_robust_score` is held against. The
    attacks are made against the very model, since attacks on another one find fewer of its failures.
    """

    number = 36
    band = "adversarial_defence"
    title = "Attack the trained model"
    source = "Madry et al. 2018; Croce and Hein 2020; Andriushchenko et al. 2020; Jin et al. 2020"
    metric = "robust_accuracy"
    tasks = ALL_TASKS
    kinds = AUDITS
    name: Literal["robustness_audit"] = "robustness_audit"

    attacks: list[AttackName] | None = Field(
        default=None, min_length=1, max_length=7, strict=False, description="None: every attack that serves the task"
    )
    epsilon: float = Field(
        default=8 / 255,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="how far a pixel may move, of 0 to 1; pictures only",
    )
    rows: int = Field(default=200, ge=50, le=5000, description="test rows that are attacked")
    max_words: float = Field(
        default=0.3, gt=0, le=1, allow_inf_nan=False, description="share of a text's words that may change"
    )
    max_queries: int = Field(default=500, ge=1, le=100_000, description="answers that a search may ask for a row")
    seed: int = Field(default=0, ge=0, le=2**53, description="draws the rows and the starts of the searches")

    @property
    def provides(self) -> frozenset[str]:
        """A measured robust score, and the attacks themselves for whoever judges a detector by them."""
        return frozenset({"robust_accuracy", "attack_pairs"})

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Attacks of another task, and a limit on a score that is no share."""
        known = ATTACKS.get(spec.task, (_NOISE,))
        wrong = [one for one in self.attacks or () if one not in known]
        if wrong and known:
            detail = f"{', '.join(wrong)} cannot change what {spec.task} reads"
            yield Fault("/attacks", "wrong_attack", detail, f"choose among {', '.join(known)}")
        if spec.task == "causal_lm" and spec.limits.min_robust_score is not None:
            detail = "min_robust_score is a share of rows, and of a language model bits per byte are measured"
            yield Fault("", "wrong_limit", detail, "leave limits.min_robust_score out")

    def audit(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        """Attack, and keep what stands in the receipt."""
        if run.spec.task == "causal_lm":
            return self._tell(run, self._noised(run, exported))
        names = list(dict.fromkeys(self.attacks or ATTACKS[run.spec.task]))
        outcomes = attack_rows(run, as_package(exported), eager, names, self.setting)
        self._tell(run, section(run, outcomes, self.epsilon, self.max_words))

    def _tell(self, run: Run, found: dict[str, Any]) -> None:
        if (n := found["n"]) < _FEW_ROWS:
            run.warn("few_attacked_rows", f"the robust score rests on {n} attacked rows: its interval is wide")
        run.state(self.name)["section"] = found

    def _noised(self, run: Run, exported: Exported) -> dict[str, Any]:
        """A language model's section: the same rows without slips and with them."""
        rows, seed = drawn_rows(run, self.setting), run.spec.training.seed
        plain = [run.data.test.payloads[int(row)] for row in rows]
        noisy, changed = noised_rows(plain, self.max_words, generator(self.seed, _NOISE), chat=run.data.test.chat)
        before, after = (
            measured("bits_per_byte", run.task.figures("bits_per_byte", one, run.data.test.labels[rows]), seed)
            for one in (exported.answers(plain), exported.answers(noisy))
        )
        told = {"robust": rounded(after.value), "ci95": [rounded(after.low), rounded(after.high)]}
        attack = {"name": _NOISE, **told, "changed_words": round(changed, 4)}
        about = {"n": len(rows), "metric": "bits_per_byte", "max_words": self.max_words}
        return {"attacks": [attack], "clean": rounded(before.value), **told, **about}

    @property
    def setting(self) -> Setting:
        """The parameters as the search takes them."""
        return Setting(
            rows=self.rows,
            epsilon=self.epsilon,
            max_words=self.max_words,
            max_queries=self.max_queries,
            seed=self.seed,
        )

    def report(self, run: Run) -> Mapping[str, float]:
        """The score before and after, and after each attack."""
        found = run.state(self.name).get("section")
        if found is None:
            return {}
        each = {f"robust_{one['name']}": one["robust"] for one in found["attacks"]}
        return {f"clean_{found['metric']}": found["clean"], f"robust_{found['metric']}": found["robust"], **each}

    def evidence(self, run: Run) -> Mapping[str, Mapping[str, Any]]:
        """The receipt's `robustness`."""
        found = run.state(self.name).get("section")
        return {} if found is None else {"robustness": found}


def section(run: Run, outcomes: Mapping[str, Outcome], epsilon: float, max_words: float) -> dict[str, Any]:
    """What the receipt tells: shares of all attacked rows with intervals, the worst over attacks row by row."""
    first = next(iter(outcomes.values()))
    n = len(first.rows)
    survived = np.logical_and.reduce([one.held for one in outcomes.values()])
    texts = run.spec.task == "text_classification"
    budget = {"max_words": max_words} if texts else {"norm": "linf", "epsilon": epsilon}
    return {
        "attacks": [_attack(run, one) for one in outcomes.values()],
        "clean": round(float(first.right.mean()), 6),
        "robust": round(float(survived.mean()), 6),
        "ci95": [round(end, 6) for end in wilson(int(survived.sum()), n)],
        "n": n,
        "metric": _SCORES.get(run.spec.task, "accuracy"),
        **budget,
    }


def _attack(run: Run, one: Outcome) -> dict[str, Any]:
    n, held = len(one.rows), int(one.held.sum())
    about: dict[str, Any] = {
        "name": one.attack,
        "robust": round(held / n, 6),
        "ci95": [round(end, 6) for end in wilson(held, n)],
        "succeeded": len(one.fooling),
        "queries_a_row": round(float(np.mean(one.queries)), 1) if one.queries else 0.0,
    }
    if one.changed:
        about["changed_words"] = round(float(np.mean(one.changed)), 4)
    shown = _examples(run, one)
    return {**about, "examples": shown} if shown else about


def _examples(run: Run, one: Outcome) -> Sequence[Mapping[str, str]]:
    """A few texts before and after, where the job lets the receipt show rows."""
    if not run.spec.include_inputs:
        return []
    pairs = [(int(row), found) for row, found in zip(one.rows, one.found, strict=True) if isinstance(found, str)]
    return [{"original": str(run.data.test.payloads[row]), "changed": found} for row, found in pairs[:_SHOWN]]
