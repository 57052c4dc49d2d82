"""The kind `detect`: inputs screened with the detector of a trained model, or with one calibrated on given rows.

Trains nothing and never writes to the model. How an input is judged stands in `client.detector`, as in the command of
the same name.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from client.artifact import Package
from client.conformal import rows_needed
from client.detector import Detector, Raw, Screening, check_rate, read_signals
from client.errors import ClientError
from client.signals import Statistics
from engine.archive import entry, land
from engine.conformal import MODES, calibrated, count_tokens, too_few
from engine.data import Source, read_rows
from engine.errors import InvalidData
from engine.events import FileWritten, Finished, PhaseStarted, Sink, StepDone, Warned
from engine.guard import PRIVATE
from engine.interrupt import Interrupt
from engine.kinds import DetectFile
from engine.parent import open_parent
from engine.ports import Payload
from engine.randomness import settle_sums
from engine.rows import Rows

DEFAULT_RATE = 0.05
_TOGETHER = 16


def detect_inputs(spec: DetectFile, folder: Path, sink: Sink, *, job: str | None, interrupt: Interrupt) -> None:
    """Screen the inputs; detections.jsonl lands in `folder`/outputs. A stop is heeded at once, and all is repeated.

    Raises:
        EngineError: with what is wrong with the model, the rows or the rate.
    """
    settle_sums()
    sink.emit(PhaseStarted(phase="data"))
    outputs = folder / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    try:
        found = _screened(spec, folder, sink)
    except ClientError as error:  # the reader's own words for a package, a rate or an input that it cannot take
        raise InvalidData(error.detail, remedy=error.remedy) from error
    told = [one.json() for one in found.detections]
    content = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in told).encode()
    about = entry(land(content, outputs / "detections.jsonl"))
    sink.emit(
        FileWritten(
            kind="detections",
            filename=about.path,
            path=f"outputs/{about.path}",
            sha256=about.sha256,
            size_bytes=about.size_bytes,
            media_type="application/x-ndjson",
        )
    )
    inline = {"detections": told} if spec.inputs.texts is not None else {}
    sink.emit(Finished(result={**inline, "summary": dict(found.summary)}))


def _screened(spec: DetectFile, folder: Path, sink: Sink) -> Screening:
    package = Package(Path(spec.parent.package), threads=torch.get_num_threads())
    texts = spec.inputs.texts
    payloads = list(texts) if texts is not None else list(_rows(str(spec.inputs.dataset), package).payloads)
    sink.emit(PhaseStarted(phase="measure"))
    detector = _calibrated(spec, package, folder, sink) if spec.calibration is not None else Detector.read(package)
    rate = spec.target_fpr or detector.target_fpr
    calibration = detector.chosen(spec.signals)
    check_rate(rate, calibration.rows)
    raw = _read(package, detector.statistics, calibration.signals, payloads, sink)
    return detector.judged(raw, calibration, rate, spec.control)


def _rows(path: str, package: Package) -> Rows:
    """The rows of a file as they were uploaded.

    Raises:
        InvalidData: where they are of another task.
    """
    source = Source.open(Path(path))
    if source.task != package.task:
        detail = f"{source.id} was prepared for {source.task}, the model serves {package.task}"
        raise InvalidData(detail, remedy=f"give rows for {package.task}")
    return read_rows([(source, "")], source.labels)


def _unseen(spec: DetectFile, rows: Rows, folder: Path, sink: Sink) -> list[Payload]:
    """The rows that the model was not trained on: it is surer of those, so ranks among them raise false alarms."""
    opened = folder / "parent"
    parent = open_parent(spec.parent, opened)
    known = parent.trained_on()
    shutil.rmtree(opened, ignore_errors=True)
    if known is None:
        why = "is private" if PRIVATE in parent.facts else "cannot be looked up"
        detail = f"which rows the model was trained on {why}: where calibration rows are among them, more is flagged"
        sink.emit(Warned(code="unknown_training_rows", detail=detail))
        return list(rows.payloads)
    new = ~np.isin(rows.ids, known)
    if not new.all():
        detail = f"{int((~new).sum())} of {len(rows)} calibration rows are left out: the model was trained on them"
        sink.emit(Warned(code="training_rows", detail=detail))
    return list(rows.take(np.flatnonzero(new)).payloads)


def _calibrated(spec: DetectFile, package: Package, folder: Path, sink: Sink) -> Detector:
    """A detector on clean rows. Tokens are counted on half of them, where these are enough to spare it.

    Raises:
        InvalidData: where the rows cannot hold the rate.
    """
    clean = _unseen(spec, _rows(str(spec.calibration), package), folder, sink)
    rate = spec.target_fpr or DEFAULT_RATE
    signals = list(spec.signals or MODES[package.task]["full"])
    if "perplexity" not in signals:
        return calibrated(package, Statistics(), signals, clean, rate=rate)
    half = len(clean) // 2
    if spec.signals is None and half < rows_needed(rate):
        signals.remove("perplexity")
        return calibrated(package, Statistics(), signals, clean, rate=rate)
    wrong = too_few(rate, half)
    if wrong is not None:
        detail = f"perplexity counts tokens on one half of the calibration rows: {wrong} in the other"
        raise InvalidData(detail, remedy="give more rows, raise target_fpr, or leave perplexity out")
    # Every second row: a file may be sorted.
    return calibrated(package, Statistics(count_tokens(package, clean[1::2])), signals, clean[::2], rate=rate)


def _read(
    package: Package, statistics: Statistics, signals: Sequence[str], payloads: Sequence[Payload], sink: Sink
) -> Raw:
    """The signals of every input, a few at a time, so that somebody sees how far it is."""
    parts = []
    for start in range(0, len(payloads), _TOGETHER):
        parts.append(read_signals(package, statistics, signals, payloads[start : start + _TOGETHER]))
        done = min(start + _TOGETHER, len(payloads))
        sink.emit(StepDone(step=done, total_steps=len(payloads), values={}))
    return Raw(
        np.concatenate([one.logits for one in parts]),
        np.concatenate([one.signals for one in parts]),
        [changed for one in parts for changed in one.changed],
    )
