"""Runs of the engine without a job around them: a spec made ready as a job does it, and its file as a user has it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.artifact import Package
from engine.data import Source, read_rows
from engine.events import Listed
from engine.job import facts_of, load
from engine.journal import Journal
from engine.models import find, models_dir
from engine.plan import Plan
from engine.run import Run
from engine.spec import Spec


def ready(body: Mapping[str, Any], journal: Journal | None = None) -> Run:
    """A run of a spec whose data set is one file: plan, task and rows; no weight is read yet."""
    spec = Spec.model_validate(dict(body))
    ((role, path),) = spec.files()
    source, base = Source.open(Path(path)), find(spec.base_model, models_dir())
    rows = read_rows([(source, role)], source.labels)
    run = Run(spec, Plan.of(spec, facts_of(rows, [source], pretrained=base.pretrained)), Listed(), journal=journal)
    run.task, run.data = load(run, rows, base, source.labels)
    return run


def packaged(run: Run, folder: Path, threads: int) -> Package:
    """The run's file as a user has it."""
    run.model.to("cpu").eval()
    run.plan.slot("exporter").exporter(run, run.model, folder)
    run.task.describe(folder, run.model, [])
    return Package(folder, threads=threads)
