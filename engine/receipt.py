"""The receipt: what was measured, as one document. Knows no model and measures nothing itself.

What was not measured is null, never a guess.
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.archive import Entry
from engine.contrastive import told_apart
from engine.data import Source
from engine.environment import environment
from engine.evaluate import Labels, Measured, agreement, loss, measured, race_ratio, rounded
from engine.events import now
from engine.instruction import Instruction
from engine.ladder import rungs
from engine.limits import Figures, checks, robust_score
from engine.models import Base
from engine.ports import Answers
from engine.rows import SPLITS
from engine.run import Run
from engine.twin import COMPRESSING

_FLIPPED = 50
_FEW_ROWS = 100


@dataclass(frozen=True)
class Evidence:
    """What the receipt rests on. `found`: what the fresh process wrote; answers are (n, k) over the test rows.

    `weights`: patterns of the files that hold the model's weights; `untuned_answers`: of the base before any training.
    `datasets`: what the receipt lists, where it is not the files of the spec with the rows of each split.
    `sections`: what instructions know for whole sections, such as `privacy`.
    `whole`: the file runs without the base that it was trained from.
    `names_rows`: test rows may be told of one by one.
    """

    reference_kind: str
    reference_answers: Answers
    exported_answers: Answers
    found: Mapping[str, Any]
    reference_bytes: int
    reference_parameters: int
    exported_parameters: int
    files: Sequence[Entry]
    effects: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    weights: Sequence[str] = ("model.onnx*",)
    untuned_answers: Answers | None = None
    datasets: Sequence[Mapping[str, Any]] | None = None
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    whole: bool = True
    names_rows: bool = True

    @property
    def exported_bytes(self) -> int:
        """Bytes of the files that hold the model's weights."""
        return sum(one.size_bytes for one in self.files if any(fnmatch(one.path, like) for like in self.weights))


def build(run: Run, sources: Sequence[Source], base: Base, job: str | None, evidence: Evidence) -> dict[str, Any]:
    """The receipt as JSON values."""
    spec = run.spec
    compresses = spec.kind == "compress" or any(one.band in COMPRESSING for one in run.plan.instructions)
    figures = figures_of(run, evidence)
    found = checks(spec.limits, figures, compresses=compresses)
    quality = _quality(run, figures, evidence)
    warnings = [
        *run.memory.get("warnings", {}).get("told", []),
        *([] if evidence.whole else [_needs_base(spec.base_model, evidence)]),
        *_warnings(run, quality, figures, compresses=compresses),
    ]
    return {
        "receipt_version": 1,
        "job": job,
        "created_at": now(),
        "kind": run.spec.kind,
        "inputs": {
            "datasets": list(listed(run, sources) if evidence.datasets is None else evidence.datasets),
            "base_model": {"name": base.name, "sha256": base.sha256()},
        },
        "plan": [_step(one, evidence.effects.get(one.number, {})) for one in run.plan.instructions],
        "environment": environment(run),
        "quality": quality,
        "size": {
            "reference_bytes": evidence.reference_bytes,
            "exported_bytes": evidence.exported_bytes,
            "package_bytes": sum(one.size_bytes for one in evidence.files),
            "ratio": round(figures.size_ratio, 6),
            "parameters": {"reference": evidence.reference_parameters, "exported": evidence.exported_parameters},
            **({} if evidence.whole else {"base_bytes": evidence.reference_bytes}),
        },
        "latency": latency(evidence.found["seconds"]),
        "ladder": rungs(run),
        "privacy": evidence.sections.get("privacy"),
        "robustness": evidence.sections.get("robustness"),
        "limits": {"passed": all(one["outcome"] == "passed" for one in found), "checks": found},
        "warnings": warnings,
        "files": [asdict(one) for one in evidence.files],
        "signature": None,
    }


def _needs_base(base: str, evidence: Evidence) -> str:
    return (
        f"the file is an adapter, which runs beside its base {base} alone: the base's {evidence.reference_bytes:,} "
        "bytes of weights are counted neither in exported_bytes nor in ratio"
    )


def sections(run: Run) -> dict[str, dict[str, Any]]:
    """The sections that instructions write, in order: what one leaves null, another may fill."""
    found: dict[str, dict[str, Any]] = {}
    for one in run.plan.on("evidence"):
        for name, section in one.evidence(run).items():
            kept = {key: value for key, value in found.get(name, {}).items() if value is not None}
            found[name] = {**found.get(name, {}), **section, **kept}
    return found


def figures_of(run: Run, evidence: Evidence) -> Figures:
    """The figures that limits are held against, with intervals at the limits' confidence (.95 without one)."""
    spec, was, now_ = run.spec, evidence.reference_answers, evidence.exported_answers
    confidence, seed, metric = spec.limits.confidence or 0.95, spec.training.seed, spec.metric
    before, after = (run.task.figures(metric, one, run.data.test.labels) for one in (was, now_))
    seconds, same = evidence.found["seconds"], run.task.same(was, now_)
    return Figures(
        metric=measured(metric, after, seed, confidence),
        metric_loss=loss(metric, before, after, seed, confidence),
        agreement=None if same is None else agreement(same, confidence),
        speedup=race_ratio(seconds["reference"], seconds["exported"], confidence),
        exported_bytes=evidence.exported_bytes,
        reference_bytes=evidence.reference_bytes,
        epsilon=evidence.sections.get("privacy", {}).get("epsilon"),
        robust_score=robust_score(evidence.sections.get("robustness"), confidence),
    )


def _scored(one: Measured) -> dict[str, Any]:
    return {"value": rounded(one.value), "n": one.n, "ci95": [rounded(one.low), rounded(one.high)]}


def _quality(run: Run, figures: Figures, evidence: Evidence) -> dict[str, Any]:
    truth, metric, seed, task = run.data.test.labels, run.spec.metric, run.spec.training.seed, run.task
    was, now_ = evidence.reference_answers, evidence.exported_answers
    before, after = (task.figures(metric, one, truth) for one in (was, now_))
    lost, same = loss(metric, before, after, seed), task.same(was, now_)
    return {
        "metric": metric,
        "reference": {"kind": evidence.reference_kind, **_scored(measured(metric, before, seed))},
        "exported": _scored(measured(metric, after, seed)),
        "loss": {"value": rounded(lost.value), "ci95": [rounded(lost.low), rounded(lost.high)]},
        **task.quality(was, now_, truth),
        "agreement": None if figures.agreement is None else rounded(figures.agreement.value),
        "flipped": [] if same is None else _flipped(run, evidence, np.flatnonzero(~same)[:_FLIPPED].tolist()),
        **_base(run, evidence),
        "golden": _golden(run, evidence),
        **({"generation": evidence.found["generation"]} if "generation" in evidence.found else {}),
    }


def _base(run: Run, evidence: Evidence) -> dict[str, Any]:
    """The untuned base on the same rows, and what the training gained over it."""
    metric, seed, truth = run.spec.metric, run.spec.training.seed, run.data.test.labels
    if evidence.untuned_answers is None:
        return {}
    before, after = (
        run.task.figures(metric, one, truth) for one in (evidence.untuned_answers, evidence.exported_answers)
    )
    gain = loss(metric, after, before, seed)
    further = run.task.quality(evidence.untuned_answers, evidence.exported_answers, truth)
    return {
        "base": {
            **_scored(measured(metric, before, seed)),
            "gain": {"value": rounded(gain.value), "ci95": [rounded(gain.low), rounded(gain.high)]},
            **{name: one["reference"] for name, one in further.items() if isinstance(one, dict) and "reference" in one},
        }
    }


def _golden(run: Run, evidence: Evidence) -> list[dict[str, Any]]:
    """Answers to test rows, or to prompts, which show themselves."""
    return [
        {**_row(run, evidence, one["row"]), **run.task.said(one["answers"])} if "row" in one else dict(one)
        for one in evidence.found["golden"]
        if evidence.names_rows or "row" not in one
    ]


def _flipped(run: Run, evidence: Evidence, numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [_flip(run, evidence, one) for one in numbers] if evidence.names_rows else []


def _flip(run: Run, evidence: Evidence, number: int) -> dict[str, Any]:
    if not run.task.labels:  # which of many texts a picture finds is no answer by a name
        return _row(run, evidence, number)
    was, now_ = (one[number].tolist() for one in (evidence.reference_answers, evidence.exported_answers))
    truth = {"label": run.task.labels[run.data.test.labels[number]]}
    said = {"reference": run.task.said(was).get("label"), "exported": run.task.said(now_).get("label")}
    return {**_row(run, evidence, number), **truth, **said}


def _row(run: Run, evidence: Evidence, number: int) -> dict[str, Any]:
    about = {"id": str(run.data.test.ids[number]), "sha256": evidence.found["sha256"][number]}
    texts = evidence.found.get("texts")
    return {**about, "text": texts[number]} if texts else about


def latency(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The section of that name, from the seconds of each round by contestant."""
    ratios = race_ratio(seconds["exported"], seconds["reference"])
    return {
        "baseline": "pytorch fp32",
        "reference_p50_ms": round(float(np.median(seconds["reference"])) * 1e3, 4),
        "exported_p50_ms": round(float(np.median(seconds["exported"])) * 1e3, 4),
        "ratio": round(ratios.value, 4),
        "ratio_ci95": [round(ratios.low, 4), round(ratios.high, 4)],
        "batch_size": 1,
        "threads": 1,
        "runs": len(seconds["exported"]),
        "inputs": "test rows at their own length, evenly spread over the lengths",
    }


def listed(run: Run, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The files with the rows of each split, as they were dealt; training rows in secret are told by a public number.

    A split without a file of its own is a part of the training rows' file.
    """
    public = run.journal.budget.shown_rows if run.journal is not None else None
    roles = [role for role, _ in run.spec.files()]
    found = []
    for source, role in zip(sources, roles, strict=True):
        mine = [one for one in SPLITS if one == role or (role in {"", "train"} and one not in roles)]
        splits = {split: run.data.dealt[split] for split in mine}
        if public is not None and "train" in splits:
            # Of a file that serves the training alone the public number is that of all its rows.
            splits = (splits if not role else {}) | {"train": public}
        rows = source.rows if public is None else sum(splits.values())
        found.append({"id": source.id, "sha256": source.sha256, "rows": rows, "splits": splits})
    return found


def _step(one: Instruction, effects: Mapping[str, float]) -> dict[str, Any]:
    return {
        "number": one.number,
        "name": one.name,
        "parameters": one.parameters(),
        "version": _source_hash(inspect.getfile(type(one))),
        "effects": {name: rounded(float(value)) for name, value in effects.items()},
    }


@cache
def _source_hash(path: str) -> str:
    """What an instruction is, without a number that somebody must remember to raise."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def guessed(metric: str, labels: Labels) -> list[str]:
    """What to know of a recall that whoever knows nothing has too: where hardly more texts are there than looked at."""
    if not metric.startswith("recall_at_"):
        return []
    first, texts = int(metric.removeprefix("recall_at_")), len(np.unique(told_apart(labels)[:, 0]))
    if texts > 2 * first:
        return []
    by_chance = f"guessing has {min(1.0, first / texts):.2f} of {metric}, since the test rows hold {texts} texts"
    return [f"{by_chance}: give more of them, or choose recall_at_1"]


def _warnings(run: Run, quality: Mapping[str, Any], figures: Figures, *, compresses: bool) -> list[str]:
    found = []
    n = len(run.data.test)
    if n < _FEW_ROWS:
        found.append(f"the scores rest on {n} test rows: their intervals are wide")
    found += guessed(quality["metric"], run.data.test.labels)
    low, high = quality["loss"]["ci95"]
    if quality["loss"]["value"] and low <= 0 <= high:
        found.append(f"the difference in {quality['metric']} to the reference lies inside its 95 % interval")
    never = [name for name, one in quality.get("recall", {}).items() if one == 0]
    if never:
        found.append(f"the exported model finds no row of {', '.join(never[:10])}")
    if compresses and figures.size_ratio < 1 and figures.speedup.low <= 1:
        found.append("smaller but not faster on this processor")
    return found
