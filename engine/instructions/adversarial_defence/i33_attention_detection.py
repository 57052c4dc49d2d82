"""Instruction 33. Knows which signals serve a task; how they are read and held stands in `client.detector`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import nn

from client.conformal import Combine
from client.signals import SignalName, Statistics
from engine.attention import export_attention, fit_law
from engine.conformal import (
    CONFIDENT,
    MODES,
    MOST_RATE,
    RANKS_ARE_ROWS,
    SERVED,
    by_itself,
    calibrated,
    count_tokens,
    drawn_payloads,
    effects,
    rate_faults,
    ship,
    tested,
)
from engine.errors import Fault
from engine.instruction import COMPRESSES, Exported, Instruction
from engine.robustness import Setting, as_package
from engine.run import Run
from engine.signal_fits import fit_answers, fit_neighbours

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec


_FITTED = frozenset({"perplexity", "attention", "density"})
_ROUNDED = frozenset({"quantized", "fake_quantized"})


class AttentionDetection(Instruction):
    """Ships a calibrated detector of inputs that look manipulated, with a verdict an input at a stated rate.

    Texts are judged by how unsure the answer is (`softmax`), how unusual the tokens are beside the training rows
    (`perplexity`, a trigram), and how far the answer falls where single words are masked (`reaction`, one forward a
    word); pictures by `softmax` and by how far the answer moves where detail is squeezed out (`squeezing`). No
    attention is read by default, in spite of the name: the article's score over attention weights is at chance, and so
    is a sound one, which can be chosen for comparison (`attention`; its graph doubles the package). Two more can be
    chosen: how far the logits lie from those of the training rows that are answered alike (`density`), and how far the
    answer of a text falls where random words make room for neighbours in the model's embeddings (`substitution`, twelve
    forwards).

    Sound: each signal becomes a p-value by its rank among clean validation rows that nothing was fitted on; the
    p-values are combined (Fisher's sum), and the sum is ranked among those of the same rows again, since signals depend
    on each other and a chi-square table would be wrong. Each input is read alone, so its score never depends on a
    neighbour. The detector is tested on attacks that succeed against this very file, at their first wrong answer and
    again once they are sure of it, with the threshold that ships. The article's code averages over the batch and over
    padding, grows with the length of the text, leaves its threshold undefined, and reads weights that fused attention
    does not return.

    Refuses: fewer validation rows than 20 / `target_fpr`; language models, which have no answer to be unsure of; a
    second detector beside its own.

    Effect: docs/article.md has the article's score, the softmax alone and ours on attacked texts; `python -m benchmarks
    --only detection` measures the default against attacks on the very model. At a prevalence of 1 % most flags are
    false at any of these rates. Nothing here was held against an attacker who knows the detector.
    """

    number = 33
    band = "adversarial_defence"
    title = "Detection of adversarial inputs"
    source = (
        "article, instruction 33; Hendrycks and Gimpel 2017; Lee et al. 2018; Mosca et al. 2022; Wang et al. 2022;"
        " Vovk et al. 2005 section 2"
    )
    metric = "auroc"
    tasks = frozenset(MODES)
    kinds = COMPRESSES
    name: Literal["attention_detection"] = "attention_detection"

    target_fpr: float = Field(
        default=0.05,
        ge=0.001,
        le=MOST_RATE,
        allow_inf_nan=False,
        description="share of honest inputs that may be flagged",
    )
    mode: Literal["full", "fast"] = Field(
        default="full", description="full: every signal, a forward a word; fast: those of one forward"
    )
    signals: list[SignalName] | None = Field(
        default=None, min_length=1, max_length=7, strict=False, description="None: those of the mode"
    )
    combine: Combine = Field(default="fisher", description="the sum over all signals, or the most telling one alone")
    fit_rows: int = Field(
        default=2000, ge=500, le=20_000, description="training rows, at most, that signals are fitted on"
    )
    calibration_rows: int = Field(
        default=500, ge=100, le=20_000, description="clean validation rows, at most, that scores are ranked among"
    )
    attack_rows: int = Field(default=200, ge=0, le=5000, description="test rows attacked to test the detector; 0: none")
    attack_epsilon: float = Field(
        default=8 / 255, gt=0, le=0.5, allow_inf_nan=False, description="how far these attacks move a pixel, of 0 to 1"
    )

    @property
    def provides(self) -> frozenset[str]:
        """A detector; its counts are of training rows."""
        reads = self.signals is None or _FITTED & set(self.signals)
        return frozenset({"detector", "reads_training_rows"} if reads else {"detector"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """One detector a model, and none of private rows."""
        return {
            "differential_privacy": RANKS_ARE_ROWS,
            "detector": "a model ships one detector; leave the squeezers of feature_squeezing (34) empty to keep both",
        }

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Signals of another task, and rates that the rows cannot hold."""
        served = SERVED.get(spec.task, ())
        wrong = [one for one in self.signals or () if one not in served]
        if wrong and served:
            detail = f"{', '.join(wrong)} cannot be read off what {spec.task} takes"
            yield Fault("/signals", "wrong_signal", detail, f"choose among {', '.join(served)}")
        if "attention" in (self.signals or ()) and _ROUNDED & facts:
            detail = "attention is read off an fp32 graph, and this model is rounded"
            yield Fault("/signals", "wrong_signal", detail, "leave attention out: it is at chance anyway")
        yield from rate_faults(self.target_fpr, self.calibration_rows, facts)

    def audit(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        """Fit on training rows, calibrate on validation rows, test on attacks; write the detector into the package.

        Raises:
            InvalidData: where the validation rows cannot hold the rate.
        """
        package, seed = as_package(exported), run.spec.training.seed
        signals = list(dict.fromkeys(self.signals or MODES[run.spec.task][self.mode]))
        fitted = drawn_payloads(run.data.train, self.fit_rows, seed, "fit") if _FITTED & set(signals) else []
        law = None
        if "attention" in signals:
            export_attention(run.task, eager, run.data.sample_payloads(), package.folder)
            law = fit_law(package, fitted)
        statistics = Statistics(
            ngrams=count_tokens(package, fitted) if "perplexity" in signals else None,
            attention=law,
            answers=fit_answers(package, fitted) if "density" in signals else None,
            neighbours=fit_neighbours(run, eager, package) if "substitution" in signals else None,
        )
        clean = drawn_payloads(run.data.valid, self.calibration_rows, seed, "calibration")
        detector = calibrated(package, statistics, signals, clean, rate=self.target_fpr, combine=self.combine)
        if self.attack_rows:
            setting = Setting(rows=self.attack_rows, epsilon=self.attack_epsilon, confidence=CONFIDENT)
            detector = tested(run, package, eager, detector, setting)
        run.state(self.name).update(ship(package, detector))

    def report(self, run: Run) -> Mapping[str, float]:
        """Figures on the attacks that succeeded."""
        state = run.state(self.name)
        return {"calibration_rows": float(state["rows"]), **effects(state["measured"])} if state else {}

    def artifacts(self, run: Run, folder: Path) -> Mapping[str, Path]:
        """The detector by itself."""
        return by_itself(run.state(self.name), folder)
