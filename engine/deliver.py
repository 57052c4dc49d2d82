"""From the trained model to the files that are handed over and the receipt that tells of them. Knows no instruction.

compress -> export -> measure in a fresh process -> audit -> receipt. Figures are of the exported file alone; the
reference is the trained model before it was compressed, without rounding.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import engine
from client.artifact import Package
from engine import canonical_json
from engine.archive import entry, land, save_shapes, save_weights, zip_folder
from engine.data import Source
from engine.errors import LimitMissed, WrongExport
from engine.evaluate import wilson
from engine.events import FileWritten, PhaseStarted
from engine.export import TOLERANCE
from engine.guard import public_effects
from engine.inference import eager_answers
from engine.limits import faults
from engine.measure import Request
from engine.models import Base
from engine.ports import Answers
from engine.quantized import in_float
from engine.receipt import Evidence, build, figures_of, sections
from engine.run import Run

_MOST_CONTRADICTED = 0.02


def deliver(
    run: Run, folder: Path, sources: Sequence[Source], base: Base, job: str | None, reference: Answers | None = None
) -> dict[str, Any]:
    """Write model.zip, checkpoint.zip and receipt.json into `folder`/outputs, and give the receipt.

    Args:
        reference: answers (n, k) of an untreated twin on the test rows; None compares with the model as trained.

    Raises:
        WrongExport: where the file does not answer as the model that was exported.
        LimitMissed: after the files are whole and announced.
    """
    work, outputs = folder / "work", folder / "outputs"
    shutil.rmtree(work, ignore_errors=True)
    package, untouched = work / "package", work / "reference"
    for path in (package, untouched, work / "checkpoint", outputs):
        path.mkdir(parents=True, exist_ok=True)
    run.model.to("cpu")
    trained_float = _compress(run, reference)
    expected = _export(run, package)
    evidence = _measure(run, sources, package, untouched, expected, reference, trained_float)
    run.sink.emit(PhaseStarted(phase="receipt"))
    evidence = replace(evidence, sections=sections(run))
    figures = figures_of(run, evidence)
    run.memory["measured"] = {"metric_loss": figures.metric_loss.value, "bytes_ratio": figures.size_ratio}
    effects = {one.number: one.report(run) for one in run.plan.on("report")}
    evidence = replace(evidence, effects=public_effects(effects, run.plan))
    receipt = build(run, sources, base, job, evidence)
    _hand_over(run, work, outputs, receipt)
    shutil.rmtree(work)
    missed = list(faults(receipt["limits"]["checks"]))
    if missed:
        detail = "; ".join(one.detail for one in missed)
        raise LimitMissed(detail, remedy="the files are kept: see receipt.json for every figure", faults=missed)
    return receipt


def _compress(run: Run, reference: Answers | None) -> Answers:
    """Fold `compress`; gives the answers before it, without rounding."""
    run.sink.emit(PhaseStarted(phase="compress"))
    with in_float(run.model):
        before = eager_answers(run.task, run.model, run.data.examples["test"]) if reference is None else reference
    for one in run.plan.on("compress"):
        run.model = one.compress(run, run.model)
    run.model.to("cpu").eval()
    return before


def _export(run: Run, package: Path) -> Answers:
    """Write the package but its receipt; gives the answers that the file should give."""
    run.sink.emit(PhaseStarted(phase="export"))
    expected = eager_answers(run.task, run.model, run.data.examples["test"])
    written = run.plan.slot("exporter").exporter(run, run.model, package)
    if written != package / "model.onnx":
        raise WrongExport(
            f"the exporter wrote {written.name}, not model.onnx", remedy="report this as a fault of the server"
        )
    steps = [step for one in run.plan.instructions if (step := one.preprocess(run)) is not None]
    run.task.describe(package, run.model, steps)
    return expected


def _measure(
    run: Run,
    sources: Sequence[Source],
    package: Path,
    untouched: Path,
    expected: Answers,
    reference: Answers | None,
    trained_float: Answers,
) -> Evidence:
    """Let a fresh process measure the package, judge its answers, and let the auditors see it."""
    run.sink.emit(PhaseStarted(phase="measure"))
    fresh = run.task.build()
    reference_bytes = _save_untouched(fresh, untouched)
    _save_checkpoint(run, fresh, package.parent / "checkpoint")
    request = Request(
        str(package),
        str(untouched),
        [str(one.path.absolute()) for one in sources],
        run.data.test.ids.tolist(),
        with_texts=run.spec.include_inputs,
    )
    answers, found = in_fresh_process(request, package.parent)
    check_exported(run.task.contradicted, expected, answers, exact=run.plan.slot("exporter").number == 0)
    auditors = run.plan.on("audit")
    exported = Package(package) if auditors else None
    for one in auditors:
        assert exported is not None
        one.audit(run, exported, run.model)
    return Evidence(
        reference_kind="trained_float" if reference is None else "untreated_twin",
        reference_answers=trained_float,
        exported_answers=answers,
        found=found,
        reference_bytes=reference_bytes,
        reference_parameters=sum(one.numel() for one in fresh.parameters()),
        exported_parameters=sum(one.numel() for one in run.model.parameters()),
        files=[entry(path) for path in sorted(package.iterdir())],
    )


def _save_untouched(fresh: nn.Module, folder: Path) -> int:
    """The untouched architecture in the Hugging Face layout; the bytes of its weights."""
    fresh.save_pretrained(folder)  # type: ignore[operator]  # a method of every transformers model
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _save_checkpoint(run: Run, fresh: nn.Module, folder: Path) -> None:
    """Weights and what loads them; nothing of the job, so no preprocessing list."""
    save_weights(run.model, folder)
    save_shapes(run.model, fresh, folder)
    run.task.describe(folder, run.model, [])


def in_fresh_process(request: Request, folder: Path) -> tuple[Answers, Mapping[str, Any]]:
    """Run `engine.measure`; answers (n, k) and what else it found.

    Raises:
        WrongExport: where that process fails: the file cannot be read by a stranger either.
    """
    request.save(folder / "request.json")
    root = str(Path(engine.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "engine.measure", str(folder / "request.json")],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        detail = f"a fresh process could not measure the exported file (exit code {done.returncode}): {last[:300]}"
        raise WrongExport(detail, remedy="read the job's log; if memory and disk suffice, report it")
    return np.load(folder / "answers.npy"), json.loads((folder / "measured.json").read_text())


def check_exported(
    contradicted: Callable[[Answers, Answers], tuple[int, int]], expected: Answers, exported: Answers, *, exact: bool
) -> None:
    """Refuse a file that computes something else than the model; one that rounds badly is for the limits to judge.

    An fp32 file must give the same answers. One of integers is held against the same rounding in PyTorch: where that
    answers with a clear lead, the file must answer alike, in all but 2 % of such rows at the good end of the interval.

    Raises:
        WrongExport: with how far they are apart.
    """
    remedy = "report this as a fault of the server, with the job's spec: the trained model is whole, its export is not"
    if expected.shape != exported.shape or not np.isfinite(exported).all():
        raise WrongExport(f"the file's answers have shape {exported.shape}, or are no numbers", remedy=remedy)
    difference, allowed = float(np.abs(expected - exported).max()), TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if exact and difference > allowed:
        raise WrongExport(
            f"answers on the test rows differ by {difference:.3g}; {allowed:.3g} is allowed", remedy=remedy
        )
    wrong, n = contradicted(expected, exported)
    if n and wilson(wrong, n)[0] > _MOST_CONTRADICTED:
        raise WrongExport(f"the file contradicts the model on {wrong} of {n} rows that are clear to it", remedy=remedy)


def _hand_over(run: Run, work: Path, outputs: Path, receipt: Mapping[str, Any]) -> None:
    """Land the three files and announce each."""
    content = canonical_json.encode(receipt)
    (work / "package" / "receipt.json").write_bytes(content)
    told = [
        ("model", "application/zip", zip_folder(work / "package", outputs / "model.zip", compressed=True)),
        (
            "checkpoint",
            "application/zip",
            zip_folder(work / "checkpoint", outputs / "checkpoint.zip", compressed=False),
        ),
        ("receipt", "application/json", land(content, outputs / "receipt.json")),
    ]
    for kind, media_type, path in told:
        about = entry(path)
        run.sink.emit(
            FileWritten(
                kind=kind,
                filename=path.name,
                path=f"outputs/{path.name}",
                sha256=about.sha256,
                size_bytes=about.size_bytes,
                media_type=media_type,
            )
        )
