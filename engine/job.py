"""One job from its spec to its outputs, one direction: data, plan, training, delivery. Knows no server."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from engine.accounting import PrivacyBudget
from engine.checkpoint import Snapshots
from engine.data import Data, Source, read_rows, split_by_content
from engine.deliver import deliver
from engine.errors import InvalidData, InvalidPlan
from engine.events import Finished, PhaseStarted, Sink
from engine.guard import public_tokens
from engine.interrupt import Interrupt
from engine.journal import FILENAME, Journal
from engine.models import Base, fault, find, models_dir
from engine.plan import Plan
from engine.ports import Answers, Task
from engine.randomness import settle_sums
from engine.rows import SPLITS, Rows, client_facts, group_facts, groups_to_train_on, nominal_rows
from engine.run import Run
from engine.spec import Spec, TrainFile
from engine.tasks import TASKS
from engine.train import train
from engine.twin import untreated_answers


def run_job(spec: Spec, folder: Path, sink: Sink, *, job: str | None, interrupt: Interrupt) -> None:
    """Run a spec whose `dataset` names files; outputs and snapshots land in `folder`.

    A folder that holds a snapshot of the same job is gone on from.

    Raises:
        EngineError: with every fault found.
        StopRequested: after a snapshot, where one could be taken.
    """
    settle_sums()
    base = _base(spec, sink)
    sink.emit(PhaseStarted(phase="data"))
    sources = [(Source.open(Path(path)), role) for role, path in spec.files()]
    rows = read_rows(sources, _labels(spec, sources))
    files = [source for source, _ in sources]
    run = Run(spec, Plan.of(spec, facts_of(rows, files, pretrained=base.pretrained)), sink)
    run.journal = Journal(folder / FILENAME, _budget(spec, rows))
    run.task, run.data = load(run, rows, base, files[0].labels)
    fingerprint = _fingerprint(spec, sources)
    train(run, Snapshots(folder, sink, fingerprint), interrupt)
    twin: Answers | None = None
    if spec.compare == "untreated":
        twin = untreated_answers(run, folder, fingerprint, interrupt)
    receipt = deliver(run, folder, files, base, job, twin)
    sink.emit(Finished(result={"limits": receipt["limits"], **public_tokens(run.clock.tokens, run.plan)}))


def _fingerprint(spec: Spec, sources: Sequence[tuple[Source, str]]) -> str:
    """What a snapshot belongs to: the spec and the bytes of the data, wherever these lie."""
    parts = [
        spec.model_dump_json(exclude={"dataset", "privacy_budget"}),
        *(f"{role}:{source.sha256}" for source, role in sources),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _budget(spec: Spec, rows: Rows) -> PrivacyBudget:
    """What the job file says of the account, with the public number of rows."""
    told = spec.privacy_budget if isinstance(spec, TrainFile) else PrivacyBudget()
    return told if told.rows else told.model_copy(update={"rows": nominal_rows(rows.splits)})


def clients_of(train: Source) -> int | None:
    """How many groups the file of the training rows names for them; None where it names none."""
    if "group" not in train.columns:
        return None
    table = pq.read_table(train.path, columns=[name for name in ("group", "split") if name in train.columns])
    splits = table["split"].to_pylist() if "split" in train.columns else None
    return len(groups_to_train_on(table["group"].to_pylist(), splits))


def facts_of(rows: Rows, files: Sequence[Source], *, pretrained: bool) -> frozenset[str]:
    """What the data and the base make true of a run before any instruction acts; the training rows' file comes first.

    A run on the trained model asks here too, so that what held in the training holds there.
    """
    facts = {"pretrained"} if pretrained else set()
    if (rows.splits != "").any():
        facts.add("fixed_splits")
    train = files[0]
    return (
        frozenset(facts)
        | group_facts(one.roles for one in files)
        | client_facts(clients_of(train), train.roles.get("group"))
    )


def dealt(run: Run, rows: Rows) -> dict[str, Rows]:
    """The rows by split, through the hooks that act before training rows may be added."""
    for one in run.plan.on("records"):
        rows = one.records(run, rows)
    for one in run.plan.on("split"):
        rows = one.split(run, rows)
    rows = split_by_content(rows)
    parts = {split: rows.where(split) for split in SPLITS}
    if "streamed_records" in run.plan.facts:
        return parts
    return {split: part.loaded() for split, part in parts.items()}


def load(run: Run, rows: Rows, base: Base, labels: Sequence[str]) -> tuple[Task, Data]:
    """Deal the rows, let training rows be added, and open the task on them.

    Raises:
        InvalidData: where a split that the run cannot do without is empty.
    """
    parts = dealt(run, rows)
    sizes = {split: len(part) for split, part in parts.items()}
    for one in run.plan.on("training_records"):
        parts["train"] = one.training_records(run, parts["train"])
    kind = TASKS[run.spec.task]
    _filled(parts)
    kind.check(parts["train"])
    task = kind.open(base, labels, parts["train"], run.spec.training.max_length)
    data = Data(parts["train"], parts["valid"], parts["test"], task, sizes)
    if data.left_out:
        run.warn("rows_without_targets", f"{data.left_out} training rows have no token to learn and are left out")
    return task, data


def _filled(parts: dict[str, Rows]) -> None:
    missing = [split for split in ("train", "test") if not len(parts[split])]
    if missing:
        raise InvalidData(
            f"there are no rows in {' and '.join(missing)}", remedy="give more rows, or choose stratified_split (9)"
        )


def _base(spec: Spec, sink: Sink) -> Base:
    wrong = fault(spec.base_model, spec.task, models_dir())
    if wrong is not None:
        raise InvalidPlan([wrong])
    converting = PhaseStarted(phase="converting_base_model")
    return find(spec.base_model, models_dir(), converting=partial(sink.emit, converting))


def _labels(spec: Spec, sources: Sequence[tuple[Source, str]]) -> tuple[str, ...]:
    """The label set of the first file; the others must not go beyond it.

    Raises:
        InvalidData: where a file was prepared for another task.
    """
    for source, _ in sources:
        if source.task != spec.task:
            raise InvalidData(
                f"{source.id} was prepared for {source.task}, not {spec.task}", remedy="prepare it for this task"
            )
    return sources[0][0].labels
