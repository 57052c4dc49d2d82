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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import engine
from engine.answers import answer_lines, output
from engine.archive import entry, save_shapes, save_weights
from engine.data import Source
from engine.errors import WrongExport
from engine.evaluate import rounds_needed, wilson
from engine.events import PhaseStarted
from engine.export import TOLERANCE
from engine.exporters import FORMATS
from engine.guard import hides_test_rows, public_effects
from engine.handover import Output, finished, hand_over
from engine.inference import eager_answers
from engine.ladder import climb, rungs
from engine.limits import refuse_missed
from engine.measure import READERS, Request
from engine.models import Base
from engine.ports import Answers
from engine.quantized import in_float, setting_of
from engine.receipt import Evidence, build, figures_of, sections
from engine.report import report
from engine.run import Run

_MOST_CONTRADICTED = 0.02


@dataclass(frozen=True)
class Origin:
    """The trained model that a run began with instead of a base: what its files and its receipt take over from that.

    `preprocess`: the steps of its package; `reshaped`: its shapes are not those that its configuration says;
    `datasets`: what the receipt lists; `names_rows`: it may tell of test rows one by one.
    """

    preprocess: Sequence[Mapping[str, Any]]
    reshaped: bool
    datasets: Sequence[Mapping[str, Any]]
    names_rows: bool


def deliver(
    run: Run,
    folder: Path,
    sources: Sequence[Source],
    base: Base,
    job: str | None,
    reference: Answers | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """Write model.zip, checkpoint.zip, receipt.json and report.html into `folder`/outputs, and give the receipt.

    Args:
        reference: answers (n, k) of an untreated twin on the test rows; None compares with the model as trained.
        origin: where the run did not train: what it began with.

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
    fresh = run.task.build()  # before an instruction changes what the task builds
    reference_bytes = _save_untouched(fresh, untouched, reshaped=origin is not None and origin.reshaped)
    untuned = _untuned(run, fresh) if origin is None else None
    trained_float, expected = _compress(run, reference)
    _export(run, package, origin.preprocess if origin is not None else ())
    _save_checkpoint(run, fresh, work / "checkpoint", reshaped=origin is not None and origin.reshaped)
    answers, found = _measure(run, sources, package, untouched, expected)
    evidence = Evidence(
        reference_kind="trained_float" if reference is None else "untreated_twin",
        reference_answers=trained_float,
        exported_answers=answers,
        found=found,
        reference_bytes=reference_bytes,
        reference_parameters=sum(one.numel() for one in fresh.parameters()),
        exported_parameters=sum(one.numel() for one in run.model.parameters()),
        files=[entry(path) for path in sorted(package.iterdir())],
        weights=FORMATS[format_of(run)].weights,
        whole=FORMATS[format_of(run)].whole,
        untuned_answers=untuned,
        datasets=None if origin is None else origin.datasets,
        names_rows=origin.names_rows if origin is not None else not hides_test_rows(run.spec),
    )
    receipt = _told(run, sources, base, job, evidence, work)
    refuse_missed(receipt)
    return receipt


def _told(
    run: Run, sources: Sequence[Source], base: Base, job: str | None, evidence: Evidence, work: Path
) -> dict[str, Any]:
    """Make the receipt, hand everything over, and clear `work` away; gives the receipt."""
    run.sink.emit(PhaseStarted(phase="receipt"))
    evidence = replace(evidence, sections=sections(run))
    figures = figures_of(run, evidence)
    run.memory["measured"] = {"metric_loss": figures.metric_loss.value, "bytes_ratio": figures.size_ratio}
    effects = {one.number: one.report(run) for one in run.plan.on("report")}
    evidence = replace(evidence, effects=public_effects(effects, run.plan))
    package = work / "package"
    receipt = finished(build(run, sources, base, job, evidence), package, run.task.name, str(run.spec.export.format))
    made = {
        kind: path
        for one in run.plan.instructions
        for kind, path in one.artifacts(run, _made(work / str(one.number))).items()
    }
    folders = {"model": package, "checkpoint": work / "checkpoint", **made}
    page = Output("report", "text/html; charset=utf-8", Path("report.html"))
    others = {page: _report(run, receipt, evidence)}
    if run.spec.answers:
        others[output(run.spec)] = answer_lines(run, evidence.exported_answers, evidence.found)
    hand_over(run.sink, work.parent / "outputs", receipt, folders, others)
    shutil.rmtree(work)
    return receipt


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _report(run: Run, receipt: Mapping[str, Any], evidence: Evidence) -> bytes:
    classes = run.task.labels
    return report(
        receipt,
        run.state("curves"),
        rungs(run),
        {one.number: one.tier() for one in run.plan.instructions},
        classes,
        run.data.test.labels if classes else None,
        evidence.exported_answers if classes else None,
    )


def _compress(run: Run, reference: Answers | None) -> tuple[Answers, Answers]:
    """Fold `compress`; gives the answers before it, without rounding, and those that the file should give."""
    run.sink.emit(PhaseStarted(phase="compress"))
    with in_float(run.model):
        before = eager_answers(run.task, run.model, run.data.examples["test"]) if reference is None else reference
    as_it_stands = reference is None and setting_of(run.model) is None
    expected = climb(run, "trained", run.model, before if as_it_stands else None)
    for one in run.plan.on("compress"):
        run.model = one.compress(run, run.model)
        expected = climb(run, one.name, run.model, below=expected)
    return before, expected


def _export(run: Run, package: Path, before: Sequence[Mapping[str, Any]]) -> None:
    """Write the package but its receipt; `before`: steps of preprocessing that come ahead of those of the plan."""
    run.sink.emit(PhaseStarted(phase="export"))
    written = run.plan.slot("exporter").exporter(run, run.model, package)
    wanted = FORMATS[format_of(run)].file
    if written != package / wanted:
        raise WrongExport(
            f"the exporter wrote {written.name}, not {wanted}", remedy="report this as a fault of the server"
        )
    steps = [step for one in run.plan.instructions if (step := one.preprocess(run)) is not None]
    run.task.describe(package, run.model, [*before, *steps])


def _measure(
    run: Run, sources: Sequence[Source], package: Path, untouched: Path, expected: Answers
) -> tuple[Answers, Mapping[str, Any]]:
    """Let a fresh process measure the package, judge its answers, and let the auditors see it."""
    run.sink.emit(PhaseStarted(phase="measure"))
    answers, found = in_fresh_process(measure_request(run, sources, package, untouched), package.parent)
    exact = run.plan.slot("exporter").number == 0 and FORMATS[format_of(run)].exact
    check_exported(run.task.contradicted, expected, answers, exact=exact)
    audited(run, package)
    return answers, found


def measure_request(run: Run, sources: Sequence[Source], package: Path, untouched: Path) -> Request:
    """What a fresh process is asked: this package on the test rows, beside that reference."""
    files = [str(one.path.absolute()) for one in sources]
    return Request(
        str(package),
        str(untouched),
        files,
        run.data.test.ids.tolist(),
        least=rounds_needed(max(0.95, run.spec.limits.confidence or 0.0)),
        with_texts=run.spec.include_inputs,
        format=format_of(run),
        threads=torch.get_num_threads(),
        with_answers=bool(run.spec.answers),
    )


def format_of(run: Run) -> str:
    """The format of the file that ships."""
    return run.spec.export.written_as


def _untuned(run: Run, fresh: nn.Module) -> Answers | None:
    """What the untouched model says of the test rows, where it can: pretrained, and without a fresh head.

    Asked before anything is compressed: a smaller vocabulary is none of its own.
    """
    if run.task.labels or not run.task.pretrained:
        return None
    return eager_answers(run.task, fresh.to("cpu"), run.data.examples["test"])


def audited(run: Run, package: Path) -> None:
    """Let every auditor of the plan see the file beside `run.model`."""
    auditors = run.plan.on("audit")
    if not auditors:
        return
    exported = READERS[format_of(run)](package).exported
    for one in auditors:
        one.audit(run, exported, run.model)


def _save_untouched(fresh: nn.Module, folder: Path, *, reshaped: bool) -> int:
    """The untouched architecture in the Hugging Face layout, with shapes of its own beside it; its weights' bytes."""
    fresh.save_pretrained(folder)  # type: ignore[operator]  # a method of every transformers model
    if reshaped:
        save_shapes(fresh, fresh, folder, always=True)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _save_checkpoint(run: Run, fresh: nn.Module, folder: Path, *, reshaped: bool) -> None:
    """Weights and what loads them; nothing of the job, so no preprocessing list."""
    save_weights(run.model, folder)
    if "safetensors" not in run.task.formats:  # what ships in that layout has no shape that config.json cannot say
        save_shapes(run.model, fresh, folder, always=reshaped)
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
    if not np.isfinite(expected).all():
        raise WrongExport("the model's own answers on the test rows are no numbers", remedy="train it at a lower rate")
    difference, allowed = float(np.abs(expected - exported).max()), TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if exact and difference > allowed:
        raise WrongExport(
            f"answers on the test rows differ by {difference:.3g}; {allowed:.3g} is allowed", remedy=remedy
        )
    wrong, n = contradicted(expected, exported)
    if n and wilson(wrong, n)[0] > _MOST_CONTRADICTED:
        raise WrongExport(f"the file contradicts the model on {wrong} of {n} rows that are clear to it", remedy=remedy)
