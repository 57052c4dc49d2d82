"""Snapshots: whole or absent, and a damaged one is passed over."""

import errno
import time
from pathlib import Path

import pytest
import torch

from engine import checkpoint
from engine.checkpoint import Snapshots
from engine.errors import DiskFull, InvalidData
from engine.events import CheckpointWritten, Listed
from engine.prepare import begin
from engine.run import Run
from tests.engine.runs import tiny_run, trained


def begun(folder: Path) -> Run:
    run = tiny_run(folder)
    begin(run, None)
    return run


def written(folder: Path, run: Run, *steps: int) -> Snapshots:
    snapshots = Snapshots(folder, Listed())
    for step in steps:
        run.clock.step = step
        snapshots.write(run)
    return snapshots


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    snapshots = written(tmp_path, begun(tmp_path), 1, 2, 3)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt")) == [
        "step-000000002-0.pt",
        "step-000000003-0.pt",
    ]
    latest = snapshots.latest()
    assert latest is not None
    assert latest.clock.step == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "unhashed"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    snapshots = written(tmp_path, begun(tmp_path), 1, 2)
    newest = tmp_path / "checkpoints" / "step-000000002-0.pt"
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    else:
        newest.with_suffix(".sha256").unlink()
    latest = snapshots.latest()
    assert latest is not None
    assert latest.clock.step == 1


def test_a_run_whose_newest_snapshot_is_damaged_gives_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tiny_run(tmp_path / "a"), tmp_path / "a").model.state_dict()
    run = begun(tmp_path / "b")
    snapshots = written(tmp_path / "b", run, 0)
    run.clock.step = 4  # a snapshot that lies about its step, and is damaged: it must not be believed
    snapshots.write(run)
    newest = max((tmp_path / "b" / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = trained(tiny_run(tmp_path / "b"), tmp_path / "b").model.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_memory_and_scaler_come_back(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.state("adaptive_gradient_clipping")["norms"] = [1.0, 2.5]
    latest = written(tmp_path, run, 1).latest()
    assert latest is not None
    assert latest.memory["adaptive_gradient_clipping"] == {"norms": [1.0, 2.5]}


def test_a_full_disk_is_told_and_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(tmp_path)
    snapshots = written(tmp_path, run, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    run.clock.step = 2
    with pytest.raises(DiskFull, match="No space left"):
        snapshots.write(run)
    latest = snapshots.latest()
    assert latest is not None
    assert latest.clock.step == 1
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))


def test_what_is_no_want_of_space_is_not_told_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(tmp_path)

    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch, "save", lost)
    with pytest.raises(RuntimeError, match="CUDA error"):
        written(tmp_path, run, 1)


def test_the_word_of_pytorchs_own_writer_is_told_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save = begun(tmp_path), torch.save
    monkeypatch.setattr(torch, "save", lambda content, _: save(content, "/dev/full"))
    with pytest.raises(DiskFull):
        written(tmp_path, run, 1)


def test_each_one_is_announced_with_its_hash(tmp_path: Path) -> None:
    sink = Listed()
    run = begun(tmp_path)
    Snapshots(tmp_path, sink).write(run)
    (event,) = sink.events
    assert isinstance(event, CheckpointWritten)
    assert (tmp_path / event.path).with_suffix(".sha256").read_text() == event.sha256


def test_those_of_another_job_are_not_gone_on_from(tmp_path: Path) -> None:
    run = begun(tmp_path)
    Snapshots(tmp_path, Listed(), "one job").write(run)
    assert Snapshots(tmp_path, Listed(), "one job").latest() is not None
    with pytest.raises(InvalidData, match="another spec"):
        Snapshots(tmp_path, Listed(), "another job").latest()


@pytest.mark.parametrize(("took", "apart"), [(0.1, 30.0), (5.0, 100.0), (60.0, 300.0)])
def test_slow_snapshots_are_written_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, apart: float
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    run, snapshots = begun(tmp_path), Snapshots(tmp_path, Listed())

    def synced(path: Path) -> str:
        clock[0] += took
        return "hash"

    monkeypatch.setattr(checkpoint, "_synced_hash", synced)
    snapshots.write(run)
    clock[0] += apart - 0.01
    assert not snapshots.due()
    clock[0] += 0.02
    assert snapshots.due()
