"""The detector that a package carries: which inputs look manipulated, at a stated rate of false alarms.

`fiftytwo detect`, the job kind `detect` and the engine's own measurement all answer through this. Knows NumPy, ONNX
Runtime and tokenizers; knows neither torch nor the server.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from client.artifact import Input, Package, read_text, softmax
from client.attention import FILE as ATTENTION
from client.canonical import canonical_text
from client.conformal import Calibration, Scores, discoveries, least_rate, rows_needed
from client.errors import BadPackage, BadUsage
from client.signals import SIGNALS, Examined, Squeezers, Statistics
from client.tensors import read_tensors

ABOUT, TENSORS = "detector.json", "detector.safetensors"
UNTESTED = "not evaluated against an attacker who knows the detector"
Control = Literal["fpr", "fdr"]


@dataclass(frozen=True)
class Detection:
    """One input's verdict; `signals` maps each signal to its p-value."""

    index: int
    prediction: str
    confidence: float
    score: float
    p_value: float
    flagged: bool
    signals: Mapping[str, float]
    canonical_changed: bool

    def json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "signals": dict(self.signals)}


@dataclass(frozen=True)
class Screening:
    """All verdicts, and what stands for the whole: the fields of a job's `result.summary`."""

    detections: Sequence[Detection]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Raw:
    """What is read off inputs before anything is compared: logits (n, labels) and signals (n, signals)."""

    logits: npt.NDArray[np.float64]
    signals: npt.NDArray[np.float32]
    changed: Sequence[bool]


@dataclass(frozen=True)
class Detector:
    """Signals, what they know, and the clean rows that they are held against."""

    package: Package
    calibration: Calibration
    statistics: Statistics = field(default_factory=Statistics)
    target_fpr: float = 0.05
    measured: Sequence[Mapping[str, Any]] = ()
    sha256: str | None = None

    @classmethod
    def read(cls, package: Package) -> "Detector":
        """The detector in a package's folder.

        Raises:
            BadPackage: there is none, its files are damaged, or it was calibrated on another model file.
        """
        path = package.folder / ABOUT
        if not path.is_file():
            raise BadPackage(
                "this model carries no detector",
                remedy="train it with attention_detection (33) or feature_squeezing (34)",
            )
        try:
            content = path.read_bytes()
            about = json.loads(content)
            signals = tuple(str(name) for name in about["signals"])
            squeezers = Squeezers(**{**about["squeezers"], "names": tuple(about["squeezers"]["names"])})
            combine, target = about["combine"], float(about["target_fpr"])
            hashes = {name: str(about[name]) for name in ("model_sha256", "preparation_sha256", "tensors_sha256")}
            measured = list(about["measured"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadPackage(f"{path} cannot be read: {error}", remedy="download the model again") from error
        unknown = sorted(set(signals) - set(SIGNALS))
        if unknown or combine not in ("fisher", "max"):
            raise BadPackage(
                f"the detector reads {', '.join(unknown) or combine}, which this client does not know",
                remedy="this model was made by a newer server: pip install --upgrade fiftytwo",
            )
        _same_files(package, hashes)
        arrays = read_tensors(package.folder / TENSORS)
        if "calibration" not in arrays or arrays["calibration"].shape[1:] != (len(signals),):
            raise BadPackage(f"{TENSORS} does not fit {ABOUT}", remedy="download the model again")
        calibration = Calibration(signals, arrays["calibration"], combine)
        statistics = Statistics.from_arrays(arrays, squeezers)
        return cls(package, calibration, statistics, target, measured, hashlib.sha256(content).hexdigest())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The tensors to be stored beside `about`."""
        return {"calibration": self.calibration.raw, **self.statistics.arrays()}

    def about(self, tensors_sha256: str) -> dict[str, Any]:
        """What `read` finds in detector.json."""
        return {
            "version": 1,
            "signals": list(self.calibration.signals),
            "combine": self.calibration.combine,
            "target_fpr": self.target_fpr,
            "calibration_rows": self.calibration.rows,
            "squeezers": {**vars(self.statistics.squeezers), "names": list(self.statistics.squeezers.names)},
            "measured": list(self.measured),
            "note": UNTESTED,
            "model_sha256": _hash(self.package.folder / "model.onnx"),
            "preparation_sha256": _preparation(self.package),
            "tensors_sha256": tensors_sha256,
        }

    def screen(
        self,
        inputs: Sequence[Input],
        *,
        target_fpr: float | None = None,
        signals: Sequence[str] | None = None,
        control: Control = "fpr",
    ) -> Screening:
        """A verdict for every input.

        Args:
            target_fpr: the share of honest inputs that may be flagged; with control "fdr" the share of flags that may
                be false. None: the rate that the detector was made for.
            signals: some of the detector's signals; None: all.

        Raises:
            BadUsage: an unknown signal, an empty text, or a rate that the calibration rows cannot support.
        """
        rate = self.target_fpr if target_fpr is None else target_fpr
        calibration = self.chosen(signals)
        check_rate(rate, calibration.rows)
        raw = read_signals(self.package, self.statistics, calibration.signals, inputs)
        return self.judged(raw, calibration, rate, control)

    def judged(self, raw: Raw, calibration: Calibration, rate: float, control: Control) -> Screening:
        """The verdicts of what was read off inputs by the signals of `calibration`."""
        scores, p_values = calibration.scores(raw.signals), calibration.p_values(raw.signals)
        flagged = p_values <= rate if control == "fpr" else discoveries(p_values, rate)
        detections = self._detections(calibration, raw, scores, p_values, flagged)
        return Screening(detections, self._summary(calibration, rate, control, flagged))

    def scores(self, inputs: Sequence[Input]) -> Scores:
        """The combined score of every input, (n,)."""
        raw = read_signals(self.package, self.statistics, self.calibration.signals, inputs)
        return self.calibration.scores(raw.signals)

    def chosen(self, signals: Sequence[str] | None) -> Calibration:
        """The clean rows by some of the signals; None: by all.

        Raises:
            BadUsage: for one that the detector does not have.
        """
        known = self.calibration.signals
        unknown = sorted(set(signals or ()) - set(known))
        if unknown or (signals is not None and not signals):
            raise BadUsage(
                f"the detector has no signal {', '.join(unknown) or 'at all in an empty list'}",
                remedy=f"choose among {', '.join(known)}",
            )
        return self.calibration if signals is None else self.calibration.of(list(dict.fromkeys(signals)))

    def _detections(
        self, calibration: Calibration, raw: Raw, scores: Scores, p_values: Scores, flagged: npt.NDArray[np.bool_]
    ) -> list[Detection]:
        if not len(raw.logits):
            return []
        confidences, single = softmax(raw.logits), calibration.signal_p_values(raw.signals)
        return [
            Detection(
                index=i,
                prediction=self.package.labels[int(raw.logits[i].argmax())],
                confidence=float(confidences[i].max()),
                score=float(scores[i]),
                p_value=float(p_values[i]),
                flagged=bool(flagged[i]),
                signals=dict(zip(calibration.signals, single[i].tolist(), strict=True)),
                canonical_changed=raw.changed[i],
            )
            for i in range(len(raw.logits))
        ]

    def _summary(
        self, calibration: Calibration, rate: float, control: Control, flagged: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        n, count = len(flagged), int(flagged.sum())
        warning = None
        if control == "fpr" and calibration.shifted(count, n, rate):
            warning = (
                f"{count} of {n} inputs are flagged where {rate:.1%} of honest ones would be: either many attacks, or "
                "the traffic differs from the calibration rows; recalibrate on rows of this traffic to tell"
            )
        threshold = calibration.threshold(rate)
        return {
            "n": n,
            "flagged": count,
            "target_fpr": rate,
            "control": control,
            "threshold": None if math.isinf(threshold) else threshold,
            "calibration_rows": calibration.rows,
            "shift_warning": warning,
            "measured": list(self.measured),
            "note": UNTESTED,
            "detector_sha256": self.sha256,
            "model_sha256": _hash(self.package.folder / "model.onnx"),
        }


def read_signals(package: Package, statistics: Statistics, signals: Sequence[str], inputs: Sequence[Input]) -> Raw:
    """Logits and signals of every input, each read alone.

    Raises:
        BadUsage: an input is an empty text.
    """
    logits = np.zeros((len(inputs), len(package.labels)))
    found = np.zeros((len(inputs), len(signals)), dtype=np.float32)
    changed = []
    for number, given in enumerate(inputs):
        text = read_text(given) if package.task == "text_classification" else None
        if text is not None and not text.strip():
            raise BadUsage(f"input {number} is empty", remedy="leave empty texts out: there is nothing to judge")
        one = Examined(package, statistics, given)
        logits[number] = one.logits
        found[number] = [SIGNALS[name](one) for name in signals]
        changed.append(text is not None and canonical_text(text) != text)
    return Raw(logits, found, changed)


def check_rate(rate: float, rows: int) -> None:
    """Refuse a rate of false alarms that so few clean rows cannot hold.

    Raises:
        BadUsage: with the smallest rate that they can.
    """
    if not 0 < rate < 1:
        raise BadUsage(f"the rate {rate:g} is no share between 0 and 1", remedy="give a rate such as 0.05")
    if rows < rows_needed(rate):
        least = (
            f"the smallest rate that these rows support is {least_rate(rows):g}" if rows >= 20 else "give at least 20"
        )
        raise BadUsage(f"a {rate:.3g} rate needs {rows_needed(rate):,} clean rows, there are {rows:,}", remedy=least)


def _same_files(package: Package, hashes: Mapping[str, str]) -> None:
    here = {
        "model_sha256": _hash(package.folder / "model.onnx"),
        "preparation_sha256": _preparation(package),
        "tensors_sha256": _hash(package.folder / TENSORS),
    }
    for name, value in here.items():
        if value != hashes[name]:
            part = name.removesuffix("_sha256")
            raise BadPackage(
                f"the detector was calibrated with another {part} than the one in this folder",
                remedy="its scores would mean nothing: download the model again, or recalibrate with a detect job",
            )


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadPackage(f"cannot read {path}: {error}", remedy="download the model again") from error


def _preparation(package: Package) -> str:
    """One hash over all that stands between an input and the model."""
    total = hashlib.sha256()
    config = {name: package.config.get(name) for name in ("task", "max_length", "preprocess")}
    total.update(json.dumps(config, sort_keys=True).encode())
    for name in ("tokenizer.json", "preprocessor_config.json", ATTENTION):
        path = package.folder / name
        total.update(path.read_bytes() if path.is_file() else b"-")
    return total.hexdigest()
