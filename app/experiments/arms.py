"""The arms of an experiment: the job of each, and everything that is wrong with them, told at once. Knows no request.

A treatment is the baseline with changes. A fault that the changes bring in points into them, one of the baseline itself
is told once, there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.errors import Invalid
from app.experiments.schemas import DEFAULT_SEEDS, ExperimentCreate
from app.jobs import private
from app.jobs.checked import Lookups
from app.jobs.checks import BaseLook, check, look_at_base, refusal
from app.jobs.requests import JobCreate
from app.privacy.composition import Spending
from app.unfit import Unfit
from app.unfit import refusal as faulty
from engine.errors import Fault
from engine.faults import from_validation
from engine.guard import hides_test_rows

Wanted: TypeAlias = ExperimentCreate | Unfit[ExperimentCreate]
NAME = "baseline"
_OURS: Mapping[str, str] = {
    "kind": "leave it out: the arms are trainings",
    "answers": "leave it out: every arm writes them",
    "auto_start": "leave it out: all arms are queued at once",
    "webhook": "leave it out: POST /v1/webhooks registers one that hears of all jobs",
}
"""Fields of a job that an experiment decides, with the remedy."""
_FIXED: Mapping[str, str] = {
    "task": "the arms are compared on one task",
    "dataset": "the arms are compared on the same rows",
    "metric": "the arms are compared by one metric",
}
"""Fields that no treatment changes, with the reason."""
_SEED = "a seed of its own would break the pairs"


@dataclass(frozen=True)
class Arm:
    """One arm that may run: the job but for its seed, what its base told, and what each of its jobs will spend."""

    name: str
    body: JobCreate
    base: BaseLook
    spending: Spending | None

    def with_seed(self, seed: int, name: str) -> JobCreate:
        """Its job with this seed."""
        training = self.body.training.model_copy(update={"seed": seed})
        title = f"{self.body.name or name}: {self.name}, seed {seed}"
        answers = "kept" if hides_test_rows(self.body) else True
        return self.body.model_copy(update={"training": training, "answers": answers, "name": title[-200:]})


def arms_of(
    session: Session, lookups: Lookups, tenant: str, wanted: Wanted, models_dir: Path | None, most_jobs: int
) -> list[Arm]:
    """The baseline and the treatments, in order; a base may lie on a slow hub, so no lock should wait for this.

    Args:
        most_jobs: how many may be open at a time; an experiment of more would wait for ever.

    Raises:
        Invalid: with every fault of all arms.
    """
    faults = [*(wanted.faults if isinstance(wanted, Unfit) else ()), *_size_faults(wanted, most_jobs)]
    baseline, treatments = _parts(wanted)
    looks = _Looks(session, lookups, tenant, models_dir)
    # Without a baseline the jobs of the arms cannot be told; what the treatments may not change is theirs alone.
    base = baseline if isinstance(baseline, Mapping) else None
    first = looks.arm(NAME, base) if base is not None else []
    own = first if isinstance(first, list) else []
    faults += [] if base is None else _clashes("/baseline", base)
    faults += [_moved(fault, f"/baseline{fault.pointer}") for fault in own]
    names, arms = {NAME}, [] if isinstance(first, list) else [first]
    for number, (name, changes) in treatments:
        pointer = f"/treatments/{number}"
        if name in names:
            detail = f"there is another arm called {name!r}"
            faults.append(Fault(f"{pointer}/name", "second_arm", detail, "give each arm a name of its own"))
        names.add(name)
        faults += _clashes(f"{pointer}/changes", changes) + _fixed(f"{pointer}/changes", changes)
        one = looks.arm(name, merged(base, changes)) if base is not None else []
        if isinstance(one, list):
            known = {(fault.pointer, fault.detail) for fault in own}
            faults += [
                _in_changes(pointer, changes, fault)
                for fault in one
                if _within(changes, fault.pointer) or (fault.pointer, fault.detail) not in known
            ]
        else:
            faults += _other_rows(f"{pointer}/changes/instructions", first, one)
            arms.append(one)
    faults += _shown_to_people(wanted, arms)
    if faults:
        raise _refused(faults)
    return arms


def _size_faults(wanted: Wanted, most_jobs: int) -> list[Fault]:
    """What is wrong with an experiment that has more jobs than may ever be open at a time: to wait would not help."""
    if isinstance(wanted, Unfit):
        sent = wanted.body if isinstance(wanted.body, Mapping) else {}
        treatments, seeds = sent.get("treatments"), sent.get("seeds", DEFAULT_SEEDS)
    else:
        treatments, seeds = wanted.treatments, wanted.seeds
    arms, each = (len(one) if isinstance(one, list | tuple) else 0 for one in (treatments, seeds))
    jobs = (1 + arms) * each
    if jobs <= most_jobs:
        return []
    detail = (
        f"{1 + arms} arms with {each} seeds are {jobs} jobs, {jobs - most_jobs} more than the {most_jobs} that may be"
        " open at a time: it can never start"
    )
    fewer = f"send at most {most_jobs // (1 + arms)} seeds or fewer treatments" if most_jobs >= 2 * (1 + arms) else ""
    remedy = f"{fewer or 'send fewer treatments'}, or let the operator raise FIFTYTWO_MAX_OPEN_JOBS"
    return [Fault("/seeds", "too_many_jobs", detail, remedy)]


def merged(base: Any, changes: Any) -> Any:
    """A JSON Merge Patch (RFC 7396) applied."""
    if not isinstance(changes, Mapping):
        return changes
    found = dict(base) if isinstance(base, Mapping) else {}
    for name, value in changes.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def _parts(
    wanted: Wanted,
) -> tuple[Any, list[tuple[int, tuple[str, Mapping[str, Any]]]]]:
    """The baseline, and number, name and changes of each treatment; of a faulty body those that are sound."""
    if isinstance(wanted, ExperimentCreate):
        return wanted.baseline, [(i, (one.name, one.changes)) for i, one in enumerate(wanted.treatments)]
    if not isinstance(wanted.body, Mapping):
        return None, []
    given = wanted.body.get("treatments")
    sound = [
        (i, (str(one.get("name", i)), one["changes"]))
        for i, one in enumerate(given if isinstance(given, list) else [])
        if isinstance(one, Mapping) and isinstance(one.get("changes"), Mapping)
    ]
    return wanted.body.get("baseline"), sound


class _Looks:
    """Checks the jobs of arms, in one transaction."""

    def __init__(self, session: Session, lookups: Lookups, tenant: str, models_dir: Path | None) -> None:
        self._session, self._lookups, self._tenant, self._models_dir = session, lookups, tenant, models_dir

    def arm(self, name: str, fields: Mapping[str, Any]) -> Arm | list[Fault]:
        """The arm, or what is wrong with its job."""
        kept = {key: value for key, value in fields.items() if key not in _OURS}
        try:
            body = JobCreate.model_validate(kept)
        except ValidationError as error:
            unfit = Unfit(kept, from_validation(error, JobCreate), JobCreate)
            return refusal(self._lookups, self._tenant, unfit, self._models_dir).faults
        base, spending, faults = look_at_base(body, self._models_dir), None, []
        try:
            spending = private.plan(self._session, self._tenant, body)
        except Invalid as error:
            faults += error.faults
        try:
            check(self._lookups, self._tenant, body, base)
        except Invalid as error:
            faults += error.faults
        return faults or Arm(name, body, base, spending)


def _clashes(pointer: str, fields: Mapping[str, Any]) -> list[Fault]:
    faults = [
        Fault(f"{pointer}/{name}", "decided_by_experiment", f"an experiment decides {name} by itself", remedy)
        for name, remedy in _OURS.items()
        if name in fields and not (name == "kind" and fields[name] == "train")
    ]
    training = fields.get("training")
    if isinstance(training, Mapping) and "seed" in training:
        detail = f"the seeds of all arms are those of `seeds`: {_SEED}"
        faults.append(Fault(f"{pointer}/training/seed", "decided_twice", detail, "leave it out, and send `seeds`"))
    return faults


def _fixed(pointer: str, changes: Mapping[str, Any]) -> list[Fault]:
    return [
        Fault(f"{pointer}/{name}", "not_a_treatment", f"a treatment cannot change {name}: {reason}", "leave it out")
        for name, reason in _FIXED.items()
        if name in changes
    ]


def _other_rows(pointer: str, baseline: Arm | Sequence[Fault], arm: Arm) -> list[Fault]:
    """What deals the rows out must do so alike, or one arm would train on what judges the other."""
    if not isinstance(baseline, Arm) or _splitting(baseline) == _splitting(arm):
        return []
    detail = "the rows would be dealt out otherwise than for the baseline: one arm would train on what judges the other"
    return [Fault(pointer, "other_rows", detail, "choose what splits the rows in the baseline, with these parameters")]


def _shown_to_people(wanted: Wanted, arms: Sequence[Arm]) -> list[Fault]:
    """People read test rows, which no receipt of such a job may quote either."""
    asked = wanted.human if isinstance(wanted, ExperimentCreate) else arms and wanted.body.get("human")
    hidden = [arm.name for arm in arms if hides_test_rows(arm.body)]
    if asked is None or not hidden:
        return []
    detail = (
        f"people would read test rows of a data set that {hidden[0]} trains on privately, and no guarantee covers these"
    )
    remedy = "leave human out, or give test rows that are a data set of their own"
    return [Fault("/human", "rows_shown", detail, remedy)]


def _splitting(arm: Arm) -> list[dict[str, Any]]:
    return [one.model_dump() for one in arm.body.instructions if "split" in one.hooks]


def _within(changes: Mapping[str, Any], pointer: str) -> bool:
    """Whether a pointer into a job leads to what the changes have put there."""
    node: Any = changes
    for part in pointer.split("/")[1:]:
        if not isinstance(node, Mapping):
            return True
        name = part.replace("~1", "/").replace("~0", "~")
        if name not in node:
            return False
        node = node[name]
    return bool(pointer)


def _in_changes(pointer: str, changes: Mapping[str, Any], fault: Fault) -> Fault:
    if _within(changes, fault.pointer):
        return _moved(fault, f"{pointer}/changes{fault.pointer}")
    detail = f"with these changes {fault.pointer or 'the job'} has a fault: {fault.detail}"
    return Fault(f"{pointer}/changes", fault.code, detail, fault.remedy)


def _moved(fault: Fault, pointer: str) -> Fault:
    return Fault(pointer, fault.code, fault.detail, fault.remedy)


def _refused(faults: Sequence[Fault]) -> Invalid:
    told = list({(fault.pointer, fault.code, fault.detail): fault for fault in faults}.values())
    return faulty(told)
