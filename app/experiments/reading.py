"""What the jobs of an experiment have left: their answers and receipts, and how long they trained. Changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.artifacts.models import Artifact
from app.experiments import repository
from app.experiments.scores import Figures
from app.experiments.service import Seen
from app.jobs.states import State
from app.storage import Storage

_ANSWERS = ("answers", artifacts.KEPT)
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Left:
    """What one job has left: ids and figures of the test rows, in few bytes, as there may be many jobs of many rows.

    `lines`: reads all that was answered, a line a row; `training_seconds` None: it did not tell.
    """

    ids: Sequence[str]
    figures: Figures
    lines: Callable[[], Sequence[Line]]
    receipt: Mapping[str, Any]
    training_seconds: float | None


@dataclass(frozen=True)
class Paired:
    """Jobs that answered the same rows, by arm and seed, each with its rows in one order."""

    ids: Sequence[str]
    by_arm: Sequence[Mapping[int, Left]]


@dataclass(frozen=True)
class Trace:
    """Where the files lie that a job of an arm and a seed has left, and how long it trained."""

    arm: int
    seed: int
    answers: Artifact
    receipt: Artifact
    training_seconds: float | None


def traces(session: Session, seen: Seen) -> list[Trace]:
    """Those of the jobs that succeeded and whose files have not been erased."""
    jobs = [job.id for _, job in seen.runs if job is not None and job.state is State.SUCCEEDED]
    given, kept = (find(session, seen.experiment.tenant, jobs) for find in (artifacts.of_jobs, artifacts.kept))
    phases = repository.phases(session, jobs)
    found = []
    for place, _ in seen.runs:
        files = {one.kind: one for one in (*given.get(place.job_id, ()), *kept.get(place.job_id, ()))}
        answers, receipt = next((files[kind] for kind in _ANSWERS if kind in files), None), files.get("receipt")
        if answers is not None and receipt is not None:
            seconds = training_seconds(phases.get(place.job_id, ()))
            found.append(Trace(place.arm, place.seed, answers, receipt, seconds))
    return found


def left_by(storage: Storage, arms: int, traced: Sequence[Trace]) -> list[dict[int, Left]]:
    """By arm, by seed: what the jobs have left, less files that have been erased since."""
    found: list[dict[int, Left]] = [{} for _ in range(arms)]
    names: dict[str, str] = {}
    for one in traced:
        with suppress(FileNotFoundError):
            found[one.arm][one.seed] = _left(storage, one, names)
    return found


def _left(storage: Storage, one: Trace, names: dict[str, str]) -> Left:
    """`names`: the ids of rows so far, each kept once for all jobs."""
    lines = _lines(storage, one.answers)
    return Left(
        [names.setdefault(line["id"], line["id"]) for line in lines],
        compact(np.array([line["figures"] for line in lines], dtype=np.float64)),
        partial(_lines, storage, one.answers),
        orjson.loads(_content(storage, one.receipt)),
        one.training_seconds,
    )


def compact(figures: npt.NDArray[np.float64]) -> Figures:
    """The same numbers, in two bytes each where that says all of them."""
    with np.errstate(invalid="ignore"):
        whole = figures.astype(np.int16)
    return whole if np.array_equal(whole, figures) else figures


def _lines(storage: Storage, answers: Artifact) -> list[dict[str, Any]]:
    return _by_id([orjson.loads(line) for line in _content(storage, answers).splitlines()])


def _by_id(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same lines; what one finds among the rows of its file by their number is found by its id."""
    return [line | {"found": lines[line["found"]]["id"]} if "found" in line else line for line in lines]


def _content(storage: Storage, artifact: Artifact) -> bytes:
    return b"".join(storage.open(artifact.storage_key, 0, artifact.size_bytes))


def training_seconds(phases: Sequence[tuple[str, datetime]]) -> float | None:
    """How long a job trained, all attempts together, from its phases and moves in order; None: it never did."""
    total, since = None, None
    for name, at in phases:
        if since is not None:
            total = (total or 0.0) + (at - since).total_seconds()
        since = at if name == "train" else None
    return total


def paired(left: Sequence[Mapping[int, Left]]) -> Paired:
    """The same jobs on the rows that all of them answered, in one order.

    The rows are the same by the rules of the split; an instruction that leaves rows out may leave some out of one arm.
    """
    every = [one for by_seed in left for one in by_seed.values()]
    if not every:
        return Paired([], left)
    ids = every[0].ids
    if all(one.ids == ids for one in every):
        return Paired(ids, left)
    common = set(ids).intersection(*(one.ids for one in every))
    kept = [one for one in dict.fromkeys(ids) if one in common]
    return Paired(kept, [{seed: _taken(one, kept) for seed, one in by_seed.items()} for by_seed in left])


def _taken(one: Left, ids: Sequence[str]) -> Left:
    place = {name: number for number, name in reversed(list(enumerate(one.ids)))}
    places = [place[name] for name in ids]

    def lines() -> list[Line]:
        every = one.lines()
        return [every[number] for number in places]

    return replace(one, ids=ids, figures=one.figures[places], lines=lines)
