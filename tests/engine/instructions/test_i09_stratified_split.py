"""Instruction 9: groups and repeated rows never part, shares counted by hand, and one assignment whatever the order."""

import dataclasses
import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidData, InvalidPlan
from engine.events import Listed, Warned
from engine.ingest.__main__ import ingest
from engine.ingest.findings import Choices, Limits
from engine.instructions.preprocessing.i09_stratified_split import StratifiedSplit, deviation, hashed, unit_keys
from engine.interrupt import Interrupt
from engine.job import run_job
from engine.plan import Plan
from engine.rows import Rows, group_facts
from engine.run import Run
from engine.spec import Spec


def _rows(contents: list[str], labels: list[int], groups: list[str] | None = None) -> Rows:
    return Rows(
        payloads=list(contents),
        ids=np.array([hashlib.sha256(content.encode()).hexdigest()[:16] for content in contents]),
        labels=np.array(labels, dtype=np.int64),
        splits=np.full(len(contents), "", dtype="U5"),
        groups=None if groups is None else np.array(groups),
        shards=np.zeros(len(contents), dtype=np.int64),
        label_names=("ham", "spam", "other"),
    )


def _run(*facts: str) -> Run:
    return Run(cast(Any, None), cast(Any, SimpleNamespace(facts=frozenset(facts))), Listed())


def _made(count: int, groups: int | None = None, seed: int = 0) -> Rows:
    """A fifth is spam; every tenth content is repeated; groups are of unequal size and lean to one label."""
    drawn = np.random.default_rng(seed)
    contents = [f"text {i // 2 if i % 20 == 1 else i}" for i in range(count)]
    if groups is None:
        return _rows(contents, (drawn.random(count) < 0.2).astype(int).tolist())
    # Repeated contents stay inside a group, so that groups alone decide.
    of_row = np.sort(np.floor(groups * drawn.random(count) ** 1.5)).astype(int)
    lean = drawn.random(groups) * 0.4
    labels = (drawn.random(count) < lean[of_row]).astype(int).tolist()
    return _rows([f"text {i}" for i in range(count)], labels, [f"author {group}" for group in of_row])


def _warnings(run: Run) -> list[str]:
    assert isinstance(run.sink, Listed)
    return [event.code for event in run.sink.events if isinstance(event, Warned)]


def test_shares_are_those_asked_for_and_those_of_the_whole() -> None:
    rows = _made(1000)
    run = _run()
    split = StratifiedSplit(valid=0.15, test=0.2).split(run, rows)
    spam = {name: float(split.labels[split.splits == name].mean()) for name in ("train", "valid", "test")}
    assert all(share == pytest.approx(float(rows.labels.mean()), abs=0.01) for share in spam.values())
    sizes = {name: int((split.splits == name).sum()) for name in ("train", "valid", "test")}
    assert sizes["test"] == pytest.approx(200, abs=10)
    assert sizes["valid"] == pytest.approx(150, abs=10)
    reported = StratifiedSplit().report(run)
    off = max(abs(share - float(rows.labels.mean())) for share in spam.values())
    assert reported["label_share_deviation"] == pytest.approx(off)
    assert {name: reported[f"{name}_rows"] for name in sizes} == sizes
    assert reported["units_in_two_splits"] == 0.0


def test_rows_of_equal_content_never_part() -> None:
    split = StratifiedSplit().split(_run(), _made(600))
    by_id: dict[str, set[str]] = {}
    for content, name in zip(split.ids.tolist(), split.splits.tolist(), strict=True):
        by_id.setdefault(content, set()).add(name)
    assert len(by_id) < 600, "some are repeated"
    assert all(len(names) == 1 for names in by_id.values())


def test_captions_of_one_picture_never_part() -> None:
    pictures = np.array([f"picture {number // 5}" for number in range(600)])
    rows = dataclasses.replace(_rows([f"caption {number}" for number in range(600)], [0] * 600), pictures=pictures)
    split = StratifiedSplit().split(_run(), rows)
    of_picture = split.splits.reshape(120, 5)
    assert (of_picture == of_picture[:, :1]).all()
    assert set(of_picture[:, 0]) == {"train", "valid", "test"}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_group_stands_in_two_splits_and_labels_stay_even(seed: int) -> None:
    rows = _made(1500, groups=60, seed=seed)
    split = StratifiedSplit(group="author", valid=0.15, test=0.15).split(_run(), rows)
    assert split.groups is not None
    found = [set(split.groups[split.splits == name].tolist()) for name in ("train", "valid", "test")]
    assert found[0] & found[1] == found[0] & found[2] == found[1] & found[2] == set()
    assert all(found)
    assert deviation(split.labels, split.splits) <= 0.03
    assert 0.05 < (split.splits == "test").mean() < 0.25


@pytest.mark.parametrize("groups", [None, 40])
@pytest.mark.parametrize("facts", [(), ("streamed_records",)])
def test_the_order_of_the_rows_decides_nothing(groups: int | None, facts: tuple[str, ...]) -> None:
    rows = _made(500, groups)
    moved = np.random.default_rng(9).permutation(500)
    chosen = StratifiedSplit(group="author" if groups else None, tolerance=0.2)
    run, again, other = _run(*facts), _run(*facts), _run(*facts)
    first = chosen.split(run, rows).splits
    assert chosen.split(again, rows.take(moved)).splits.tolist() == first[moved].tolist()
    assert chosen.report(run)["assignment_fingerprint"] == chosen.report(again)["assignment_fingerprint"]
    changed = StratifiedSplit(group="author" if groups else None, tolerance=0.2, seed=1).split(other, rows).splits
    assert changed.tolist() != first.tolist()


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), min_size=1, max_size=25))
def test_units_are_what_contents_and_groups_join(pairs: list[tuple[int, int]]) -> None:
    ids = np.array([f"c{content}" for content, _ in pairs])
    groups = np.array([f"a{group}" if group else "" for _, group in pairs])
    # The slow way: join any two rows that share something until nothing changes.
    units = [{row} for row in range(len(pairs))]
    joined = True
    while joined:
        joined = False
        for one in units:
            for other in units:
                if one is not other and any(
                    ids[a] == ids[b] or (groups[a] and groups[a] == groups[b]) for a in one for b in other
                ):
                    one |= other
                    units.remove(other)
                    joined = True
                    break
            if joined:
                break
    keys = unit_keys(ids, groups)
    assert {frozenset(np.flatnonzero(keys == key).tolist()) for key in np.unique(keys)} == {frozenset(u) for u in units}


def test_a_row_without_a_group_is_its_own() -> None:
    keys = unit_keys(np.array(["a", "b", "c"]), np.array(["", "", "x"]))
    assert len(set(keys.tolist())) == 3


def test_streamed_rows_keep_their_split_when_rows_are_appended() -> None:
    many, few = _made(3000), _made(2000).take(np.arange(1500))
    chosen, run = StratifiedSplit(valid=0.1, test=0.2), _run("streamed_records")
    of_many = dict(zip(many.ids.tolist(), chosen.split(run, many).splits.tolist(), strict=True))
    of_few = dict(zip(few.ids.tolist(), chosen.split(run, few).splits.tolist(), strict=True))
    assert all(of_many[content] == split for content, split in of_few.items())
    shares = np.unique(list(of_many.values()), return_counts=True)[1] / len(of_many)
    assert shares.tolist() == pytest.approx([0.2, 0.7, 0.1], abs=0.03)


def test_a_hash_is_the_same_in_every_process() -> None:
    assert hashed(np.array(["ia", "ib", "ic", "id"]), 1, 0.3, 0.3).tolist() == ["train", "test", "test", "valid"]


def test_a_class_that_cannot_be_split_is_named() -> None:
    rows = _rows([f"t{i}" for i in range(50)], [0] * 47 + [1, 1, 2])
    with pytest.raises(InvalidData, match=r"spam \(2\), other \(1\)") as refused:
        StratifiedSplit().split(_run(), rows)
    assert [fault.code for fault in refused.value.faults] == ["class_too_small_to_split"]


def test_repeats_do_not_make_a_class_large_enough() -> None:
    rows = _rows([f"t{i}" for i in range(47)] + ["same"] * 3, [0] * 47 + [1] * 3)
    with pytest.raises(InvalidData, match=r"spam \(1\)"):
        StratifiedSplit().split(_run(), rows)


def test_too_few_rows_for_the_shares_are_refused() -> None:
    with pytest.raises(InvalidData) as refused:
        StratifiedSplit(valid=0.02, test=0.02).split(_run(), _rows([f"t{i}" for i in range(9)], [0, 1, 2] * 3))
    assert [fault.code for fault in refused.value.faults] == ["class_too_small_to_split"]


def test_a_group_that_is_half_the_data_is_named_with_the_tolerance_that_would_do() -> None:
    groups = ["giant"] * 100 + [f"g{i}" for i in range(20) for _ in range(5)]
    labels = [1] * 90 + [0] * 10 + [int(i % 10 == 0) for i in range(100)]
    rows = _rows([f"t{i}" for i in range(200)], labels, groups)
    with pytest.raises(InvalidData, match=r"'giant', has 50% of the rows") as refused:
        StratifiedSplit(group="author", tolerance=0.01).split(_run(), rows)
    assert [fault.code for fault in refused.value.faults] == ["split_unbalanced"]


def test_the_tolerance_of_the_remedy_is_enough_and_a_single_row_is_never_refused() -> None:
    rows = _made(300, groups=12, seed=4)
    with pytest.raises(InvalidData, match="deviates") as refused:
        StratifiedSplit(group="author", tolerance=0.001).split(_run(), rows)
    enough = float(refused.value.remedy.removeprefix("allow a tolerance of "))
    assert StratifiedSplit(group="author", tolerance=enough).split(_run(), rows).splits.tolist().count("") == 0
    small = _rows([f"t{i}" for i in range(34)], [0] * 23 + [1] * 11)
    assert deviation(small.labels, StratifiedSplit(tolerance=0).split(_run(), small).splits) > 0


def test_a_missing_group_column_is_refused_and_an_unused_one_told() -> None:
    with pytest.raises(InvalidData, match="group column") as refused:
        StratifiedSplit(group="author").split(_run(), _made(100))
    assert [fault.code for fault in refused.value.faults] == ["group_missing"]
    run = _run()
    StratifiedSplit().split(run, _made(300, groups=30))
    assert _warnings(run) == ["groups_ignored"]


def test_a_class_that_a_split_lacks_is_told() -> None:
    run = _run()
    StratifiedSplit().split(run, _rows([f"t{i}" for i in range(203)], [0, 1] * 100 + [2] * 3))
    assert set(_warnings(run)) == {"class_absent"}


def test_without_strata_the_labels_are_free() -> None:
    split = StratifiedSplit(stratify=None).split(_run(), _rows([f"t{i}" for i in range(100)], [0] * 99 + [1]))
    assert sorted(np.unique(split.splits, return_counts=True)[1].tolist()) == [10, 10, 80]


def _plan(*facts: str, **parameters: Any) -> Plan:
    asked = {"name": "stratified_split", **parameters}
    return Plan.of(Spec.model_validate({"task": "text_classification", "dataset": "a", "instructions": [asked]}), facts)


def test_a_group_must_be_the_column_that_the_data_has() -> None:
    grouped = group_facts([{"text": "body", "group": "author"}])
    assert "split" in _plan(*grouped, group="author").facts
    assert "split" in _plan(*grouped).facts
    for facts, remedy in ((grouped, "send group author"), (group_facts([{"text": "body"}]), "upload the data")):
        with pytest.raises(InvalidPlan) as refused:
            _plan(*facts, group="writer")
        assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [
            ("/instructions/0/group", "group_missing")
        ]
        assert refused.value.faults[0].remedy.startswith(remedy)
    assert "split" in _plan(group="writer").facts, "nothing is known of the data yet"


def test_a_run_knows_the_group_column_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, file = tmp_path / "rows.csv", tmp_path / "ds_1.parquet"
    source.write_text("text,label,author\n" + "".join(f"text {i},{i % 2},{i // 2}\n" for i in range(40)))
    choices = Choices({"group": "author"})
    assert ingest(source, source.name, "text_classification", file, choices, Limits())[0].problems == []
    monkeypatch.setattr("engine.job._base", lambda *_: SimpleNamespace(pretrained=True))
    chosen = {"name": "stratified_split", "group": "writer"}
    body = {"task": "text_classification", "dataset": str(file), "instructions": [chosen]}
    with pytest.raises(InvalidPlan, match="no group column 'writer': its groups are those of 'author'"):
        run_job(Spec.model_validate(body), tmp_path, Listed(), job=None, interrupt=Interrupt())


def test_groups_hold_only_where_every_file_has_them() -> None:
    assert group_facts([{"group": "a"}, {"group": "b"}]) == {"grouped_by:a", "grouped_by:b"}
    assert group_facts([{"group": "a"}, {}]) == {"ungrouped"}


def test_named_splits_are_kept_unless_asked() -> None:
    with pytest.raises(InvalidPlan, match="resplit"):
        _plan("fixed_splits")
    assert "split" in _plan("fixed_splits", resplit=True).facts
    with pytest.raises(InvalidPlan, match="duplicate_clusters"):
        _plan(group="cluster")
