"""The journal counts every draw of every attempt, before it is made, and is never talked out of one."""

import errno
import os
from pathlib import Path

import pytest

from engine.accounting import PrivacyBudget, PrivacyEvent, epsilon
from engine.errors import BudgetExhausted, DiskFull
from engine.journal import FILENAME, Journal

DRAW = PrivacyEvent(q=0.1, sigma=1.5)
PLAN = DRAW.times(5)
NON_PRIVATE = PrivacyEvent(mechanism="none", sigma=0.0, sampling="none")


def test_each_draw_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / FILENAME
    first = Journal(path)
    for count in range(1, 4):
        first.append(DRAW, PLAN)
        assert Journal(path).count == first.count == count
    assert Journal(path).drawn() == [DRAW.times(3)]


def test_a_line_is_synced_before_the_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    Journal(tmp_path / FILENAME).append(DRAW, PLAN)
    assert synced[0] == (tmp_path / FILENAME).stat().st_size > 0
    assert len(synced) == 2, "the folder too, where the file is new"


def test_all_attempts_together_draw_what_was_planned(tmp_path: Path) -> None:
    path = tmp_path / FILENAME
    for _ in range(2):
        attempt = Journal(path)
        for _ in range(2):
            attempt.append(DRAW, PLAN)
    last = Journal(path)
    assert last.left(PLAN) == 1
    last.append(DRAW, PLAN)
    assert last.left(PLAN) == 0
    before = path.read_bytes()
    with pytest.raises(BudgetExhausted, match="all 5 draws"):
        last.append(DRAW, PLAN)
    assert path.read_bytes() == before


@pytest.mark.parametrize("torn", [b'{"mechanism": "gau', b"\xff\xfe", b"[]", b'{"q": 2}'])
def test_a_line_cut_short_counts_as_one_more(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / FILENAME
    Journal(path).append(DRAW, PLAN)
    path.write_bytes(path.read_bytes() + torn)
    again = Journal(path)
    assert again.count == 2
    again.append(DRAW, PLAN)
    assert Journal(path).count == 3, "and spoils no line behind it"


def test_a_full_disk_stops_the_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("os.fsync", full)
    one = Journal(tmp_path / FILENAME)
    with pytest.raises(DiskFull):
        one.append(DRAW, PLAN)
    assert one.count == 0


def test_what_another_machine_drew_is_known_from_the_record(tmp_path: Path) -> None:
    path = tmp_path / FILENAME
    Journal(path).append(DRAW, PLAN)
    assert Journal(path, PrivacyBudget(recorded=(DRAW.times(3),))).drawn() == [DRAW.times(3)]
    assert Journal(path, PrivacyBudget(recorded=(DRAW,))).drawn() == [DRAW], "not counted twice"
    assert Journal(None, PrivacyBudget(recorded=(DRAW.times(4),))).left(PLAN) == 1


def test_a_budget_that_does_not_reach_is_told_before_the_first_draw() -> None:
    delta = 1e-5
    whole = epsilon([PLAN], delta)
    assert Journal(None, PrivacyBudget(epsilon=whole, delta=delta)).left(PLAN) == 5
    with pytest.raises(BudgetExhausted) as refused:
        Journal(None, PrivacyBudget(epsilon=epsilon([DRAW.times(3)], delta), delta=delta)).left(PLAN)
    assert "3 steps fit" in refused.value.remedy
    spent = PrivacyBudget(epsilon=whole, delta=delta, spent=(DRAW.times(2),))
    with pytest.raises(BudgetExhausted):
        Journal(None, spent).left(PLAN)


def test_beside_a_job_without_privacy_nothing_fits() -> None:
    with pytest.raises(BudgetExhausted, match="budget of epsilon 8"):
        Journal(None, PrivacyBudget(epsilon=8.0, delta=1e-5, spent=(NON_PRIVATE,))).left(PLAN)
