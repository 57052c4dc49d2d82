"""The kind `evaluate`: a model's file measured on its own test rows or on a data set. Trains nothing, writes no model.

The reference is the checkpoint beside the file, in PyTorch fp32 and without rounding: of a compressed model, that is
the compressed one.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from client.artifact import replay
from engine.archive import entry
from engine.calibration import calibration, class_table
from engine.data import Source, read_rows
from engine.deliver import audited, format_of, in_fresh_process, measure_request
from engine.errors import InvalidData
from engine.events import Finished, PhaseStarted, Sink
from engine.exporters import FORMATS
from engine.guard import PRIVATE, hides_test_rows
from engine.handover import finished, hand_over
from engine.inference import eager_answers
from engine.interrupt import Interrupt
from engine.kinds import EvaluateFile
from engine.limits import refuse_missed
from engine.parent import Opened, open_parent, save_reference, testing, told
from engine.plan import Plan
from engine.ports import Answers, Payload, text_of, with_text
from engine.randomness import settle_sums
from engine.receipt import Evidence, build, sections
from engine.rows import Rows
from engine.run import Run
from engine.spec import Export

_SHOWN = ("value", "n", "ci95")


def evaluate_model(spec: EvaluateFile, folder: Path, sink: Sink, *, job: str | None, interrupt: Interrupt) -> None:
    """Measure the parent's file; receipt.json lands in `folder`/outputs. A stop is heeded at once, and all is repeated.

    Raises:
        EngineError: with every fault found; LimitMissed after the receipt is whole and announced.
    """
    settle_sums()
    sink.emit(PhaseStarted(phase="data"))
    work, outputs = folder / "work", folder / "outputs"
    shutil.rmtree(work, ignore_errors=True)
    for path in (work / "reference", outputs):
        path.mkdir(parents=True, exist_ok=True)
    parent = open_parent(spec.parent, work)
    run, given = _opened(spec, parent, sink)
    sources = [source for source, _ in given]
    sink.emit(PhaseStarted(phase="measure"))
    evidence = _measured(run, parent, given, work)
    evidence = replace(evidence, names_rows=spec.dataset is not None or not hides_test_rows(parent.spec))
    audited(run, parent.package)
    sink.emit(PhaseStarted(phase="receipt"))
    effects = {one.number: one.report(run) for one in run.plan.on("report")}
    evidence = replace(evidence, effects=effects, sections=sections(run))
    receipt = build(run, sources, parent.base, job, evidence)
    receipt["quality"] |= _by_class(run, evidence.exported_answers)
    receipt = finished(receipt, None, run.task.name, str(run.spec.export.format))
    hand_over(sink, outputs, receipt, {}, {})
    shutil.rmtree(work)
    refuse_missed(receipt)
    quality = receipt["quality"]
    shown = {"metric": quality["metric"], **{name: quality["exported"][name] for name in _SHOWN}}
    sink.emit(Finished(result={"quality": shown, "limits": receipt["limits"]}))


def _opened(spec: EvaluateFile, parent: Opened, sink: Sink) -> tuple[Run, list[tuple[Source, str]]]:
    """The run over the rows to be scored, and the files that these lie in."""
    run_spec = spec.run_spec("evaluate", parent.spec)
    if spec.dataset is None:
        sources = parent.sources()
        test = parent.deal(sources)["test"].loaded()
    else:
        sources = [(Source.open(Path(spec.dataset)), "test")]
        run_spec = run_spec.model_copy(update={"dataset": spec.dataset})
        parent.check(sources[0][0])
        test = _prepared(read_rows(sources, parent.task.labels), parent).loaded()
    if not len(test):
        raise InvalidData("there is no row to score", remedy="name a data set with rows")
    # By the file itself: a compression may have written another format than the training did.
    run_spec = run_spec.model_copy(update={"export": Export.model_validate({"format": parent.format})})
    run = Run(run_spec, Plan.of(run_spec), sink)
    run.task, run.data = parent.task, testing(parent.task, test)
    run.model = parent.task.build().eval()
    if spec.dataset is not None:
        _warn_of_training_rows(run, parent, test)
    return run, sources


def _warn_of_training_rows(run: Run, parent: Opened, test: Rows) -> None:
    """Tell how many of the rows the model was trained on, or that nobody can."""
    trained_on = parent.trained_on()
    if trained_on is None:
        why = "is private" if PRIVATE in parent.facts else "cannot be looked up"
        detail = f"which rows the model was trained on {why}: those that score it here may be among them"
        run.warn("unknown_training_rows", detail)
        return
    known = int(np.isin(test.ids, trained_on).sum())
    if known:
        detail = f"the model was trained on {known} of these {len(test)} rows: the score says less of new ones"
        run.warn("training_rows", detail)


def _prepared(rows: Rows, parent: Opened) -> Rows:
    """Rows that go through what the package replays, as the training's rows have gone through it."""
    steps = parent.preprocess

    def change(payload: Payload) -> Payload:
        return payload if isinstance(payload, bytes) else with_text(payload, replay(steps, text_of(payload)))

    return rows.map(change) if steps else rows


def _measured(run: Run, parent: Opened, given: Sequence[tuple[Source, str]], work: Path) -> Evidence:
    """What a fresh process finds in the file, beside what the checkpoint answers here."""
    reference_bytes = save_reference(run.model, parent.checkpoint, work / "reference")
    request = measure_request(run, [source for source, _ in given], parent.package, work / "reference")
    answers, found = in_fresh_process(request, work)
    weights = sum(one.numel() for one in run.model.parameters())
    return Evidence(
        reference_kind="checkpoint",
        reference_answers=eager_answers(run.task, run.model, run.data.examples["test"]),
        exported_answers=answers,
        found=found,
        reference_bytes=reference_bytes,
        reference_parameters=weights,
        exported_parameters=weights,
        files=[entry(path) for path in sorted(parent.package.iterdir()) if path.name != "receipt.json"],
        weights=FORMATS[format_of(run)].weights,
        whole=FORMATS[format_of(run)].whole,
        datasets=[told(source, {"test": len(run.data.test)}, parent) for source, role in given if role in {"", "test"}],
    )


def _by_class(run: Run, answers: Answers) -> Mapping[str, Any]:
    """Calibration and the table by class, of a task that has classes."""
    if not run.task.labels:
        return {}
    truth = run.data.test.labels
    return {
        "calibration": calibration(answers, truth, run.spec.training.seed),
        "classes": class_table(truth, answers.argmax(axis=1), tuple(run.task.labels)),
    }
