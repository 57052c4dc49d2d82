"""Instruction 9: train, valid and test with near-equal label shares. Knows ids, labels and groups, no content."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.errors import Fault, InvalidData
from engine.instruction import Instruction
from engine.lazy import sklearn_model_selection
from engine.randomness import derive
from engine.rows import GROUPED_BY, SPLITS, UNGROUPED, Rows
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

Names = npt.NDArray[np.str_]
Labels = npt.NDArray[np.int64]

_SEEDS = 5
_SEED_RANGE = 2**32  # scikit-learn takes no larger one
_GOOD_ENOUGH = 0.1  # of the tolerance: no further seed is tried
_LEAST = 3
CLUSTER = "cluster"


class StratifiedSplit(Instruction):
    """Makes train, valid and test with near-equal label shares, and no group or repeated row in more than one of them.

    Sound: rows of equal content, captions of one picture, and rows of one group are one unit and never part. Units are
    sorted by content before anything is drawn, so the order of the rows does not matter; of several seeds the one with
    the least deviation of any class share wins, chosen on labels and never on scores. A row without a group is a group
    of its own. With groups the shares of rows are approximate and the receipt states them. Streamed rows are placed by
    a hash of their unit, which stays as rows are appended, yet is not exactly stratified.

    Refuses: data that names its splits, unless `resplit`; a class of fewer than 3 units; a class share that
    deviates by more than `tolerance` and by more than a row (for streamed rows a warning); a group that is not
    the data's; private training, where one row more may not deal others anew (without 9 each row's hash decides).

    Effect: an honest score where rows belong together: a split by row shows a model rows whose siblings it was trained
    on. It changes what is measured, not the model.
    """

    number = 9
    band = "preprocessing"
    title = "Group-aware stratified split"
    source = "scikit-learn user guide, cross-validation iterators for grouped data; Kohavi 1995 (stratification)"
    metric = "label_share_deviation"
    name: Literal["stratified_split"] = "stratified_split"
    valid: float = Field(default=0.1, ge=0.02, le=0.4, allow_inf_nan=False, description="share of the validation rows")
    test: float = Field(default=0.1, ge=0.02, le=0.4, allow_inf_nan=False, description="share of the test rows")
    group: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description='the column that was uploaded as group_column, or "cluster" for clusters of duplicates; null: none',
    )
    stratify: Literal["label"] | None = Field(
        default="label", description="whose shares are kept; null, or rows without labels: nobody's"
    )
    seed: int = Field(default=0, ge=0, lt=2**53, description="seed of the assignment")
    tolerance: float = Field(
        default=0.03, ge=0, le=0.2, allow_inf_nan=False, description="largest allowed difference in a class share"
    )
    resplit: bool = Field(default=False, description="split again where the data names its splits")

    @property
    def provides(self) -> frozenset[str]:
        """Every row has its split, and by all rows' labels: one row more may deal others anew."""
        return frozenset({"split", "couples_rows"})

    @property
    def needs(self) -> Mapping[str, str]:
        """Clusters come from whoever finds duplicates."""
        return {"duplicate_clusters": 'group "cluster" keeps clusters together'} if self.group == CLUSTER else {}

    @property
    def excludes(self) -> Mapping[str, str]:
        """Splits that somebody chose are not thrown away unasked."""
        return {} if self.resplit else {"fixed_splits": "the data names its splits; send resplit: true to split again"}

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Refuse another group than the column that the data was uploaded with, where that is known."""
        names = sorted(fact.removeprefix(GROUPED_BY) for fact in facts if fact.startswith(GROUPED_BY))
        if self.group in (None, CLUSTER, *names) or not (names or UNGROUPED in facts):
            return
        there = f"its groups are those of {' and '.join(map(repr, names))}" if names else "it was uploaded without one"
        remedy = f"send group {names[0]}" if names else "upload the data with group_column, or leave `group` out"
        yield Fault("/group", "group_missing", f"the data has no group column {self.group!r}: {there}", remedy)

    def split(self, run: Run, rows: Rows) -> Rows:
        """Assign every row.

        Raises:
            InvalidData: for a class or a group that cannot be split.
        """
        groups = self._groups(run, rows)
        keys = unit_keys(rows.contents, groups)
        classes = rows.labels if rows.label_names else np.zeros(len(rows), np.int64)  # a pair or a text may have none
        strata = classes if self.stratify else np.zeros(len(rows), np.int64)
        self._splittable(keys, strata, rows)
        if "streamed_records" in run.plan.facts:
            splits = hashed(keys, self.seed, self.valid, self.test)
        else:
            splits = self._best(rows.ids, keys, strata, groups is not None)
        off = deviation(strata, splits)
        # A share cannot be nearer than one row of the smallest split.
        smallest = min(int((splits == split).sum()) for split in SPLITS)
        if off > max(self.tolerance, 1 / smallest if smallest else 0.0):
            self._unbalanced(run, off, keys, rows)
        absent = {
            split: [self._name(rows, label) for label in np.setdiff1d(strata, strata[splits == split]).tolist()]
            for split in SPLITS
        }
        for split, names in absent.items():
            if names:
                run.warn("class_absent", f"{split} has no row of {', '.join(names[:5])}")
        run.state(self.name).update(_figures(rows.ids, keys, classes, splits))
        return rows.assigned(splits)

    def report(self, run: Run) -> Mapping[str, float]:
        """Deviation, sizes, units that stand in two splits (none), and a fingerprint of the assignment.

        The fingerprint is the first 48 bits of the sha256 over id and split of every row in order of id.
        """
        return dict(run.state(self.name))

    def _groups(self, run: Run, rows: Rows) -> Names | None:
        if self.group is None:
            if rows.groups is not None:
                run.warn("groups_ignored", "the data has groups that this split does not keep together: set `group`")
            return None
        if rows.groups is None:
            remedy = "upload the data with group_column, or leave `group` out"
            raise _refusal("group_missing", f"the data has no group column for {self.group!r}", remedy)
        return rows.groups

    def _splittable(self, keys: Names, strata: Labels, rows: Rows) -> None:
        units = {label: len(np.unique(keys[strata == label])) for label in np.unique(strata).tolist()}
        small = [f"{self._name(rows, label)} ({count})" for label, count in units.items() if count < _LEAST]
        if small:
            what = "rows of different content" if self.group is None else "groups"
            detail = f"a class needs at least {_LEAST} {what} to be split; too few have {', '.join(small)}"
            raise _refusal("class_too_small_to_split", detail, "give these classes more rows, or remove them")

    def _best(self, ids: Names, keys: Names, strata: Labels, grouped: bool) -> Names:
        """The assignment of the seed with the least deviation."""
        found: list[tuple[float, Names]] = []
        for number in range(_SEEDS):
            seed = derive(self.seed, self.name, number) % _SEED_RANGE
            try:
                drawn = by_group if grouped else by_content
                splits = drawn(ids, keys, strata, self.valid, self.test, seed)
            except ValueError as error:  # scikit-learn's word for a split smaller than the number of classes
                detail = f"{len(np.unique(keys))} units are too few for these shares: {error}"
                raise _refusal("class_too_small_to_split", detail, "give more rows, or raise valid and test") from error
            found.append((deviation(strata, splits), splits))
            if found[-1][0] <= _GOOD_ENOUGH * self.tolerance:
                break
        return min(found, key=lambda one: one[0])[1]

    def _unbalanced(self, run: Run, off: float, keys: Names, rows: Rows) -> None:
        """Refuse, or warn where the split is a hash and nothing could be chosen."""
        names, counts = np.unique(keys, return_counts=True)
        largest = int(counts.argmax())
        detail = f"a class share deviates by {off:.3f}, more than the tolerance of {self.tolerance:g}"
        if self.group is not None:
            detail += f"; the largest group, {names[largest][1:]!r}, has {counts[largest] / len(rows):.0%} of the rows"
        if "streamed_records" in run.plan.facts:
            run.warn("split_unbalanced", detail)
            return
        best = math.ceil(off * 1000) / 1000
        remedy = f"allow a tolerance of {best}" if best <= 0.2 else "give more rows or more groups"
        raise _refusal("split_unbalanced", detail, remedy)

    def _name(self, rows: Rows, label: int) -> str:
        return rows.label_names[label] if rows.label_names and self.stratify else f"class {label}"


def unit_keys(ids: Names, groups: Names | None) -> Names:
    """The name of the unit of each row: rows of one id, or of one group, share it, and so does what these join.

    Groups count by name; "" is no group. The name is the least of the unit's names, "g" and "i" told apart.
    """
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for number, content in enumerate(ids.tolist()):
        least, other = root(f"i{content}"), ""
        if groups is not None and groups[number]:
            least, other = sorted((least, root(f"g{groups[number]}")))
            parents[other] = least
    return np.array([root(f"i{content}") for content in ids.tolist()], dtype=np.str_)


def by_content(ids: Names, keys: Names, strata: Labels, valid: float, test: float, seed: int) -> Names:
    """Stratified over units, whose stratum is the one of most of their rows."""
    units, unit_of = np.unique(keys, return_inverse=True)
    counts = np.zeros((len(units), int(strata.max()) + 1), np.int64)
    np.add.at(counts, (unit_of, strata), 1)
    strata_of = counts.argmax(axis=1)
    numbers = np.arange(len(units))
    split = sklearn_model_selection().train_test_split
    rest, tested = split(numbers, test_size=test, stratify=strata_of, random_state=seed)
    share = valid / (1 - test)
    _, validated = split(rest, test_size=share, stratify=strata_of[rest], random_state=seed)
    splits = np.full(len(units), "train", dtype="U5")
    splits[tested], splits[validated] = "test", "valid"
    assigned: Names = splits[unit_of]
    return assigned


def by_group(ids: Names, keys: Names, strata: Labels, valid: float, test: float, seed: int) -> Names:
    """Stratified over rows, whole units at a time; the shares are those of one fold of round(1 / share)."""
    rows = np.lexsort((strata, ids))
    splits = np.full(len(ids), "train", dtype="U5")
    for name, share in (("test", test), ("valid", valid / (1 - test))):
        parts = max(2, round(1 / share))
        folds = sklearn_model_selection().StratifiedGroupKFold(n_splits=parts, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # A class of fewer rows than folds is told by the deviation, and by the warning of an absent class.
            warnings.filterwarnings("ignore", message="The least populated class")
            kept, taken = next(folds.split(rows, strata[rows], keys[rows]))
        splits[rows[taken]] = name
        rows = rows[kept]
    return splits


def hashed(keys: Names, seed: int, valid: float, test: float) -> Names:
    """Each unit by its hash alone: it keeps its split whatever rows are appended."""
    drawn = np.array([_share(key, seed) for key in keys.tolist()])
    return np.where(drawn < test, "test", np.where(drawn < test + valid, "valid", "train"))


def _share(key: str, seed: int) -> float:
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") / 2**64


def deviation(labels: Labels, splits: Names) -> float:
    """The largest difference, over splits and classes, between a class's share in a split and its share of all rows."""
    whole = np.bincount(labels) / len(labels)
    parts = (np.bincount(labels[splits == split], minlength=len(whole)) for split in SPLITS)
    return max(float(np.abs(part / max(part.sum(), 1) - whole).max()) for part in parts)


def _figures(ids: Names, keys: Names, labels: Labels, splits: Names) -> dict[str, float]:
    order = np.lexsort((splits, ids))
    text = "\n".join(f"{ids[i]} {splits[i]}" for i in order.tolist())
    per_unit: dict[str, set[str]] = {}
    for key, split in zip(keys.tolist(), splits.tolist(), strict=True):
        per_unit.setdefault(key, set()).add(split)
    return {
        "label_share_deviation": deviation(labels, splits),
        **{f"{split}_rows": float((splits == split).sum()) for split in SPLITS},
        "units": float(len(per_unit)),
        "units_in_two_splits": float(sum(len(found) > 1 for found in per_unit.values())),
        "assignment_fingerprint": float(int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)),
    }


def _refusal(code: str, detail: str, remedy: str) -> InvalidData:
    return InvalidData(detail, remedy=remedy, faults=[Fault("/dataset", code, detail, remedy)])
