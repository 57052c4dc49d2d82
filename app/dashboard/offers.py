"""What the fields of a form may name: the tenant's data sets and trained models, and the base models. Knows no form."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.models import repository as trained_models
from app.paging import Asked
from engine import models

MOST = 200


@dataclass(frozen=True)
class Offer:
    """One of the things that a field may name."""

    id: str
    title: str
    task: str | None
    rows: int | None = None


@dataclass(frozen=True)
class Offers:
    """All of them, the newest first; `bases` begin with the defaults of their tasks."""

    datasets: tuple[Offer, ...]
    trained: tuple[Offer, ...]
    bases: tuple[Offer, ...]
    folders: tuple[Offer, ...]
    """Trained classifiers of the models directory, which a compression may begin with."""
    older_datasets: bool = False
    """Whether there are data sets beyond these, to be named by their id; and trained models."""
    older_trained: bool = False

    @functools.cached_property
    def tasks(self) -> Mapping[str, str]:
        """The task of each data set by its id."""
        return {one.id: one.task for one in self.datasets if one.task is not None}


def of(session: Session, tenant: str, models_dir: Path | None, named: Collection[str] = ()) -> Offers:
    """What this tenant may name.

    Args:
        named: ids of data sets that the form names already, which it offers however old they are.
    """
    newest = Asked(MOST, None, "desc")
    rows = datasets.page(session, tenant, newest, None)
    trained = trained_models.trained(session, tenant, newest)
    offered = {one.id: one for one in rows[:MOST]}
    for dataset_id in named:
        if dataset_id not in offered and (one := datasets.find(session, tenant, dataset_id)) is not None:
            offered[dataset_id] = one
    bases = models.describe(models_dir)
    ready = [one for one in offered.values() if one.status == "ready"]
    return Offers(
        tuple(Offer(one.id, _title(one.name, one.id), one.task, one.rows) for one in ready),
        tuple(Offer(file.job_id, job.name or job.id, job.task) for file, job in trained[:MOST] if job is not None),
        tuple(Offer(one["id"], one["id"], one["task"]) for one in bases if models.built_in(one["id"])),
        tuple(Offer(one["id"], one["id"], one["task"]) for one in bases if not models.built_in(one["id"])),
        len(rows) > MOST,
        len(trained) > MOST,
    )


def _title(name: str | None, dataset_id: str) -> str:
    """The name with the end of the id: a file that was uploaded twice has its name twice."""
    return f"{name} · {dataset_id[-6:]}" if name else dataset_id
