"""The kind `compress`: a trained model through instructions 43 to 48, scored on the test rows of its training.

The reference is the parent as it was trained, uncompressed. Where the job names a data set, its training rows serve for
recovery and calibration, but for those that the model is scored on; else there are none. What is calibrated on rows
that nothing was fitted on gets none that the parent was trained on. No snapshot is taken: a run that is killed begins
anew, and gives the same bytes.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.archive import SHAPES
from engine.data import Data, Source
from engine.deliver import Origin, deliver
from engine.errors import InvalidData, InvalidPlan
from engine.events import Finished, PhaseStarted, Sink
from engine.guard import PRIVATE, hides_test_rows
from engine.interrupt import Interrupt
from engine.kinds import CompressFile, InFolder, derived_faults
from engine.parent import Opened, none_of, open_parent, told, without
from engine.plan import Plan
from engine.randomness import settle_sums
from engine.rows import SPLITS, Rows
from engine.run import Run


def compress_model(spec: CompressFile, folder: Path, sink: Sink, *, job: str | None, interrupt: Interrupt) -> None:
    """Compress the parent; the files of a training land in `folder`/outputs. A stop is heeded at once.

    Raises:
        EngineError: with every fault found; LimitMissed after the files are whole and announced.
    """
    settle_sums()
    sink.emit(PhaseStarted(phase="data"))
    opened = folder / "parent"
    shutil.rmtree(opened, ignore_errors=True)
    parent = open_parent(spec.parent, opened)
    run_spec = spec.run_spec("compress", parent.spec)
    faults = derived_faults(spec, parent.spec, parent.facts)
    try:
        plan = Plan.of(run_spec)
    except InvalidPlan as error:
        raise InvalidPlan([*faults, *error.faults]) from error
    if faults:
        raise InvalidPlan(faults)
    run = Run(run_spec, plan, sink)
    if isinstance(spec.parent, InFolder):
        detail = f"which rows {run_spec.base_model} was trained on is not known: those that score it may be among them"
        run.warn("unknown_training_rows", detail)
    tested = parent.sources()
    given = [(Source.open(Path(spec.dataset)), "")] if spec.dataset is not None else []
    parts = _parts(parent, tested, given)
    run.task = parent.task
    run.data = Data(parts["train"], parts["valid"], parts["test"], run.task)
    run.model = run.task.build().eval()
    origin = Origin(
        parent.preprocess,
        (parent.checkpoint / SHAPES).is_file(),
        _told(parent, parts, tested, given),
        names_rows=not hides_test_rows(parent.spec),
    )
    receipt = deliver(run, folder, [source for source, _ in tested], parent.base, job, origin=origin)
    shutil.rmtree(opened, ignore_errors=True)
    sink.emit(Finished(result={"limits": receipt["limits"]}))


def _parts(
    parent: Opened, tested: Sequence[tuple[Source, str]], given: Sequence[tuple[Source, str]]
) -> dict[str, Rows]:
    """The parent's test rows, and of the data set that is given, if any, the rows that none of these equals.

    A file that the training read is dealt as the training dealt it, so that what it held out stays held out. Of a
    private parent nothing may learn, and no count may tell which rows it knows: it gets none.

    Raises:
        InvalidData: where nothing is left to score by or, with a data set, to learn from.
    """
    known = parent.deal(tested)
    test = known["test"].loaded()
    if not len(test):
        raise InvalidData("the model has no test row left", remedy="train it again with rows to be scored by")
    parts = {"train": none_of(test), "valid": none_of(test), "test": test}
    for source, _ in given:
        parent.check(source)
        if PRIVATE in parent.facts:
            continue
        read = {one.sha256 for one, role in tested if role in {"", "train"}}
        dealt = known if source.sha256 in read else parent.deal(given)
        held_out = without(without(dealt["valid"], test), known["train"])
        parts |= {"train": without(dealt["train"], test).loaded(), "valid": held_out.loaded()}
        if not len(parts["train"]):
            raise InvalidData(f"{source.id} has no training row", remedy="name a data set with more rows, or none")
    return parts


def _told(
    parent: Opened,
    parts: Mapping[str, Rows],
    tested: Sequence[tuple[Source, str]],
    given: Sequence[tuple[Source, str]],
) -> list[dict[str, Any]]:
    """The data sets as the receipt lists them, each with the rows that this job used of it."""
    used = {split: len(parts[split]) for split in SPLITS}
    splits: dict[str, dict[str, int]] = {}
    for source, role in tested:
        if role in {"", "test"}:
            splits[source.id] = {"test": used["test"]}
    for source, _ in given:
        splits[source.id] = {"train": used["train"], "valid": used["valid"], **splits.get(source.id, {})}
    sources = {source.id: source for source, _ in (*tested, *given)}
    return [told(sources[name], counts, parent) for name, counts in splits.items()]
