"""Makes a detector of a trained model's file, measures it, and writes it beside the file. Knows no instruction.

What is fitted on what: counts on training rows, ranks on validation rows that nothing was fitted on, figures on test
rows and on attacks that succeed against this very file. How a detector answers stands in `client.detector`.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from safetensors.numpy import save
from torch import nn

from client.artifact import Package
from client.conformal import Calibration, Combine, Scores, least_rate, rows_needed
from client.detector import ABOUT, TENSORS, Detector, read_signals
from client.ngrams import NGrams
from client.signals import SignalName, Statistics
from engine.errors import Fault, InvalidData
from engine.evaluate import wilson
from engine.instruction import Exported
from engine.ports import Payload
from engine.randomness import generator
from engine.robustness import ATTACKS, Setting, attack_rows
from engine.rows import Rows
from engine.run import Run

MOST_RATE = 0.2
"""The largest rate of a detector that a training ships."""
VALID_ROWS = "valid_rows:"
"""A fact that ends in the number of validation rows, where it is known before the run."""
CONFIDENT = 0.9
RANKS_ARE_ROWS = (
    "a detector ships the scores of single validation rows, which no epsilon covers; calibrate a detect job"
)
MODES: Mapping[str, Mapping[str, tuple[SignalName, ...]]] = {
    "text_classification": {"full": ("softmax", "perplexity", "reaction"), "fast": ("softmax", "perplexity")},
    "image_classification": {"full": ("softmax", "squeezing"), "fast": ("softmax",)},
}
"""By task and mode the signals of a detector that nobody chose by name."""
SERVED: Mapping[str, tuple[SignalName, ...]] = {
    "text_classification": (*MODES["text_classification"]["full"], "density", "substitution", "attention"),
    "image_classification": (*MODES["image_classification"]["full"], "density"),
}
"""By task every signal that can be chosen."""
_Z = NormalDist().inv_cdf(0.975)
_GRID = 20_001


@dataclass(frozen=True)
class Figures:
    """How a detector does on n successful attacks, beside clean rows; every figure at the threshold that ships.

    auroc: an attack scores higher than a clean row, with its interval. tpr: share of attacks flagged. fpr: share of
    clean rows flagged. f1: at a prevalence of one half.
    """

    n: int
    clean_rows: int
    auroc: float
    auroc_ci95: tuple[float, float]
    tpr: float
    tpr_ci95: tuple[float, float]
    fpr: float
    fpr_ci95: tuple[float, float]
    f1: float

    def json(self) -> dict[str, Any]:
        """Rounded, as it is told."""
        rounded = {name: _rounded(value) for name, value in asdict(self).items()}
        return {**rounded, "n": self.n, "clean_rows": self.clean_rows}


def _rounded(value: Any) -> Any:
    return [round(float(end), 4) for end in value] if isinstance(value, tuple) else round(float(value), 4)


def auroc(attacks: Scores, clean: Scores) -> float:
    """How often an attack scores higher than a clean row, ties counted half."""
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, attacks, side="left")
    not_above = np.searchsorted(ordered, attacks, side="right")
    return float((below + not_above).mean() / 2 / len(clean))


def auroc_ends(area: float, attacks: int, clean: int) -> tuple[float, float]:
    """The 95 % interval of an area seen on so many rows: all areas that it does not refute.

    Newcombe 2006, method 5, which is Wilson's way with Hanley and McNeil's variance; of few attacks, or where all score
    higher than every clean row, a bootstrap would claim certainty.
    """
    areas, half = np.linspace(0, 1, _GRID), (attacks + clean) / 2 - 1
    spread = 1 + half * ((1 - areas) / (2 - areas) + areas / (1 + areas))
    deviation = np.sqrt(areas * (1 - areas) * spread / (attacks * clean))
    kept = areas[np.abs(areas - area) <= _Z * deviation + 1 / _GRID]
    return float(kept.min()), float(kept.max())


def figures(attacks: Scores, clean: Scores, threshold: float) -> Figures:
    """Hold the scores of attacks and of clean rows against a threshold that neither has set."""
    area = auroc(attacks, clean)
    hits, alarms = int((attacks > threshold).sum()), int((clean > threshold).sum())
    tpr, fpr = hits / len(attacks), alarms / len(clean)
    return Figures(
        n=len(attacks),
        clean_rows=len(clean),
        auroc=area,
        auroc_ci95=auroc_ends(area, len(attacks), len(clean)),
        tpr=tpr,
        tpr_ci95=wilson(hits, len(attacks)),
        fpr=fpr,
        fpr_ci95=wilson(alarms, len(clean)),
        f1=2 * tpr / (1 + tpr + fpr),
    )


def drawn_payloads(rows: Rows, count: int, seed: int, stream: str) -> list[Payload]:
    """At most `count` payloads, drawn by a seed, in order of storage."""
    order = np.sort(generator(seed, stream).permutation(len(rows))[:count])
    return [rows.payloads[int(number)] for number in order]


def too_few(rate: float, rows: int) -> str | None:
    """What is wrong with a rate that so few calibration rows are to hold; None where it is sound."""
    needed = rows_needed(rate)
    return None if rows >= needed else f"a {rate:.3g} rate needs {needed:,} clean validation rows, there are {rows:,}"


def rate_faults(rate: float, calibration_rows: int, facts: frozenset[str]) -> Iterator[Fault]:
    """The same before the run: of the parameter, and of the validation rows where their number is known."""
    needed = rows_needed(rate)
    if calibration_rows < needed:
        detail = f"a {rate:.3g} rate needs {needed:,} clean rows, calibration_rows is {calibration_rows:,}"
        yield Fault("/calibration_rows", "too_few_rows", detail, f"set it to at least {needed}, or raise target_fpr")
    for rows in (int(fact.removeprefix(VALID_ROWS)) for fact in facts if fact.startswith(VALID_ROWS)):
        wrong = too_few(rate, rows)
        if wrong is not None:
            yield Fault("/target_fpr", "too_few_rows", wrong, _more(rows))


def _more(rows: int) -> str:
    """The way out."""
    if rows < rows_needed(MOST_RATE):
        return "give more validation rows"
    return f"give more validation rows, or raise target_fpr to at least {least_rate(rows):g}"


def count_tokens(package: Package, texts: Sequence[Payload]) -> NGrams:
    """Counts over texts as the file reads them: cut and prepared like every input."""
    reader = package.texts
    sequences = [np.array(reader.encode([str(text)])[0].ids, dtype=np.int64) for text in texts]
    return NGrams.fit(sequences, max(reader.tokenizer.get_vocab().values()) + 1)  # some leave ids out


def calibrated(
    package: Package,
    statistics: Statistics,
    signals: Sequence[str],
    clean: Sequence[Payload],
    *,
    rate: float,
    combine: Combine = "fisher",
) -> Detector:
    """The detector whose ranks are those of some clean rows.

    Raises:
        InvalidData: where they cannot hold the rate.
    """
    wrong = too_few(rate, len(clean))
    if wrong is not None:
        raise InvalidData(wrong, remedy=_more(len(clean)))
    raw = read_signals(package, statistics, signals, clean).signals
    return Detector(package, Calibration(tuple(signals), raw, combine), statistics, rate)


def tested(run: Run, exported: Exported, eager: nn.Module, detector: Detector, setting: Setting) -> Detector:
    """The same detector with its figures on attacks against this file: at the first wrong answer, and at a sure one."""
    attack = ATTACKS[run.spec.task][0]
    outcome = attack_rows(run, exported, eager, [attack], setting)[attack]
    clean = [run.data.test.payloads[int(row)] for row in outcome.rows]
    scores = detector.scores(clean)
    threshold = detector.calibration.threshold(detector.target_fpr)
    measured = []
    for until, found in (("first wrong answer", outcome.found), (f"confidence {CONFIDENT:g}", outcome.confident)):
        changed = [one for one in found if one is not None]
        if changed and len(clean):
            about = figures(detector.scores(changed), scores, threshold).json()
            measured.append({"attack": attack, "until": until, "target_fpr": detector.target_fpr, **about})
    if not measured:
        run.warn("untested_detector", f"no attack of {len(outcome.rows)} rows succeeded: the detector was not tested")
    return replace(detector, measured=measured)


def write_detector(detector: Detector, folder: Path) -> None:
    """detector.json and detector.safetensors."""
    arrays = {name: np.ascontiguousarray(one) for name, one in sorted(detector.arrays().items())}
    content = save(arrays)
    about = detector.about(hashlib.sha256(content).hexdigest())
    (folder / TENSORS).write_bytes(content)
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")


def effects(measured: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures for a report: of the first kind of attack as they are, of the others by what they stopped at."""
    found: dict[str, float] = {}
    for number, one in enumerate(measured):
        prefix = "" if number == 0 else "confident_"
        found |= {prefix + name: float(one[name]) for name in ("auroc", "tpr", "fpr", "f1")}
        found[f"{prefix}attacks"] = float(one["n"])
    return found


def ship(package: Package, detector: Detector) -> dict[str, Any]:
    """Write the detector into the package; what an instruction remembers of it."""
    write_detector(detector, package.folder)
    return {
        "package": str(package.folder),
        "measured": list(detector.measured),
        "rows": detector.calibration.rows,
    }


def by_itself(shipped: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """The detector's files once more, as an artifact of their own; nothing where none was shipped."""
    if "package" not in shipped:
        return {}
    for name in (ABOUT, TENSORS):
        shutil.copyfile(Path(shipped["package"]) / name, folder / name)
    return {"detector": folder}
