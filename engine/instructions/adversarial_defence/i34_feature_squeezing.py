"""Instruction 34. Knows which squeezers serve a task; what they and the canonical form do stands in the client."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field
from torch import nn

from client.artifact import Package
from client.canonical import VERSION, canonical_text, in_other_script
from client.ngrams import NGrams
from client.signals import Squeezers, Statistics
from engine.conformal import (
    MOST_RATE,
    RANKS_ARE_ROWS,
    by_itself,
    calibrated,
    count_tokens,
    drawn_payloads,
    effects,
    rate_faults,
    ship,
    tested,
)
from engine.errors import Fault, InvalidData
from engine.instruction import Exported, Instruction
from engine.robustness import Setting, as_package, neighbours_of
from engine.rows import Rows
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

SqueezerName: TypeAlias = Literal["bit_depth", "median", "canonical", "rare_word_mask", "frequency_substitution"]

_SERVED: Mapping[str, tuple[SqueezerName, ...]] = {
    "image_classification": ("bit_depth", "median"),
    "text_classification": ("canonical", "rare_word_mask", "frequency_substitution"),
}
_READ_TRAINING = frozenset({"rare_word_mask", "frequency_substitution"})
_FIT_ROWS = 2000
_MOST_OTHER = 0.05
_RARE = 3  # a token that the counted rows have fewer times is rare


class FeatureSqueezing(Instruction):
    """Gives texts one canonical form, in training and at serving, and flags inputs that answer otherwise once squeezed.

    Pictures are squeezed to fewer bits and by a median; texts by the canonical form, by masking the rarest words, and
    by the more usual neighbours of rare ones.

    Sound: the canonical form is compatibility form, then no format characters, then look-alike letters mapped inside
    words that mix scripts, so that Greek and Cyrillic words stay; it is idempotent and leaves ASCII alone, and the
    artifact replays it. Squeezing happens before normalisation. The score is the largest distance over the squeezers
    and has one threshold, from clean validation rows: one for each squeezer would multiply the false alarms. Each input
    is read alone.

    Refuses: fewer validation rows than 20 / `target_fpr`; a canonical form where over 5 % of the training rows' words
    are in another script than Latin, without `force`; a second detector beside its own.

    Effect: a manipulated input's answer moves when it is squeezed, an honest one's hardly; a test on handwritten digits
    holds it against attacks that succeed. An attacker who minimises the distance too is known to win (He et al. 2017)
    and was not run.
    """

    number = 34
    band = "adversarial_defence"
    title = "Canonical text and feature squeezing"
    source = "Xu, Evans and Qi 2018; Boucher et al. 2022; Mozes et al. 2021"
    metric = "auroc"
    tasks = frozenset({"text_classification", "image_classification", "causal_lm"})
    name: Literal["feature_squeezing"] = "feature_squeezing"

    canonicalise: bool = Field(default=True, description="give texts the canonical form; pictures have none")
    squeezers: list[SqueezerName] | None = Field(
        default=None, max_length=3, strict=False, description="None: all that serve the task; empty: no detector"
    )
    bits: int = Field(default=4, ge=1, le=7, description="bits of depth that bit_depth leaves; 8 would change nothing")
    median: int = Field(default=2, ge=2, le=5, description="pixels a side of the median's square")
    target_fpr: float = Field(
        default=0.05,
        ge=0.001,
        le=MOST_RATE,
        allow_inf_nan=False,
        description="share of honest inputs that may be flagged",
    )
    distance: Literal["l1", "kl"] = Field(default="l1", description="what holds two answers apart")
    force: bool = Field(default=False, description="canonical form also where much of the text is not Latin")
    calibration_rows: int = Field(
        default=500, ge=100, le=20_000, description="clean validation rows, at most, that scores are ranked among"
    )
    attack_rows: int = Field(default=200, ge=0, le=5000, description="test rows attacked to test the detector; 0: none")
    attack_epsilon: float = Field(
        default=8 / 255, gt=0, le=0.5, allow_inf_nan=False, description="how far these attacks move a pixel, of 0 to 1"
    )

    @property
    def provides(self) -> frozenset[str]:
        """One form of text, a detector, and perhaps counts of training rows."""
        facts = {"canonical_text"} if self.canonicalise else set()
        if self._detects:
            facts |= {"detector"}
        if self.squeezers is None or _READ_TRAINING & set(self.squeezers):
            facts |= {"reads_training_rows"}
        return frozenset(facts)

    @property
    def after(self) -> frozenset[str]:
        """Repaired text first, and sharding decides how rows are read."""
        return frozenset({"normalized_text", "streamed_records"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """One detector a model, and none of private rows."""
        reason = "a model ships one detector; set squeezers to an empty list to keep the canonical form alone"
        return {"detector": reason, "differential_privacy": RANKS_ARE_ROWS} if self._detects else {}

    @property
    def idle(self) -> frozenset[str]:
        """Without the canonical form no row changes; without squeezers nothing is calibrated."""
        return frozenset(
            ({"records"} if not self.canonicalise else set()) | ({"audit"} if not self._detects else set())
        )

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Squeezers of another task, and rates that the rows cannot hold."""
        served = _SERVED.get(spec.task, ())
        wrong = [one for one in self.squeezers or () if one not in served]
        if wrong:
            remedy = f"choose among {', '.join(served)}" if served else "set squeezers to an empty list"
            detail = f"{', '.join(wrong)} cannot squeeze what {spec.task} reads"
            yield Fault("/squeezers", "wrong_squeezer", detail, remedy)
        if self._detects and served:
            yield from rate_faults(self.target_fpr, self.calibration_rows, facts)

    def records(self, run: Run, rows: Rows) -> Rows:
        """Look at the scripts over one pass, then map lazily; pictures pass untouched.

        Raises:
            InvalidData: where the form would touch text that is not Latin.
        """
        if run.spec.task == "image_classification":
            return rows
        words = other = changed = 0
        for number in range(len(rows)):
            text = str(rows.payloads[number])
            parts = text.split()
            words, other = words + len(parts), other + sum(map(in_other_script, parts))
            changed += canonical_text(text) != text
        if other > _MOST_OTHER * words and not self.force:
            detail = f"{other / words:.0%} of the words are in another script than Latin, where look-alikes are letters"
            raise InvalidData(detail, remedy="leave canonicalise out, or set force to true")
        run.state(self.name)["rows_changed"] = changed / max(1, len(rows))
        return rows.map(lambda text: canonical_text(str(text)))

    def audit(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        """Calibrate on validation rows, test on attacks; write the detector into the package.

        Raises:
            InvalidData: where the validation rows cannot hold the rate.
        """
        served = _SERVED.get(run.spec.task)
        if served is None:
            return
        package, seed = as_package(exported), run.spec.training.seed
        names = list(dict.fromkeys(self.squeezers or served))
        statistics = Statistics(squeezers=Squeezers(tuple(names), self.bits, self.median, self.distance))
        if _READ_TRAINING & set(names):
            ngrams = count_tokens(package, drawn_payloads(run.data.train, _FIT_ROWS, seed, "fit"))
            usual = _usual(run, eager, package, ngrams) if "frequency_substitution" in names else None
            statistics = Statistics(ngrams, usual, None, statistics.squeezers)
        clean = drawn_payloads(run.data.valid, self.calibration_rows, seed, "calibration")
        detector = calibrated(package, statistics, ["squeezing"], clean, rate=self.target_fpr)
        if self.attack_rows:
            setting = Setting(rows=self.attack_rows, epsilon=self.attack_epsilon)
            detector = tested(run, package, eager, detector, setting)
        run.state(self.name).update(ship(package, detector))

    def report(self, run: Run) -> Mapping[str, float]:
        """Rows that changed, and figures on the attacks that succeeded."""
        state = run.state(self.name)
        changed = {"rows_changed": float(state["rows_changed"])} if "rows_changed" in state else {}
        return {**changed, **effects(state.get("measured", []))}

    def artifacts(self, run: Run, folder: Path) -> Mapping[str, Path]:
        """The detector by itself."""
        return by_itself(run.state(self.name), folder)

    def preprocess(self, run: Run) -> Mapping[str, Any] | None:
        """The canonical form by name, with the version of its table; pictures have none."""
        if not self.canonicalise or run.spec.task == "image_classification":
            return None
        return {"name": "canonical_text", "parameters": {"version": VERSION}}

    @property
    def _detects(self) -> bool:
        return self.squeezers is None or bool(self.squeezers)


def _usual(run: Run, eager: nn.Module, package: Package, ngrams: NGrams) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each token its own id, or, of a rare word, that of its most frequent neighbour; (vocabulary,)."""
    neighbours, vocabulary = neighbours_of(run, eager), package.texts.tokenizer.get_vocab()
    found = np.arange(len(ngrams.singles), dtype=np.int64)
    for token, number in vocabulary.items():
        if number >= len(found) or ngrams.singles[number] >= _RARE:
            continue
        known = [vocabulary[one] for one in neighbours(token) if one in vocabulary]
        best = max(known, key=lambda one: int(ngrams.singles[one]), default=number)
        if ngrams.singles[best] > ngrams.singles[number]:
            found[number] = best
    return found
