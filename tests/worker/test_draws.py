"""What a journal tells of draws that an engine had no time to tell of."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.jobs.lifecycle import Drawn
from worker.draws import JOURNAL_NAME, Draws

LINE: dict[str, Any] = {"mechanism": "gaussian", "sampling": "poisson", "q": 0.1, "sigma": 1.0, "count": 1}


def append(folder: Path, *lines: dict[str, Any], torn: str = "") -> None:
    with (folder / JOURNAL_NAME).open("a") as journal:
        journal.write("".join(json.dumps(one) + "\n" for one in lines) + torn)


def counts(drawn: list[Drawn]) -> dict[float, int]:
    return {one.sigma: one.count for one in drawn}


def test_no_journal_is_no_draw(tmp_path: Path) -> None:
    assert Draws(tmp_path, []).so_far() == []


def test_every_attempt_on_this_machine_counts(tmp_path: Path) -> None:
    append(tmp_path, LINE, LINE)
    draws = Draws(tmp_path, [LINE | {"count": 1}])  # the ledger was one below
    append(tmp_path, LINE, LINE | {"sigma": 2.0, "count": 3})
    assert counts(draws.so_far()) == {1.0: 3, 2.0: 3}


def test_what_another_machine_drew_comes_before(tmp_path: Path) -> None:
    draws = Draws(tmp_path, [LINE | {"count": 5}])
    append(tmp_path, LINE)
    assert counts(draws.so_far()) == {1.0: 6}


@pytest.mark.parametrize("torn", ['{"mechanism": "gau', "[1]", '{"mechanism": "gaussian"}'])
def test_a_torn_line_counts_as_one_more(tmp_path: Path, torn: str) -> None:
    draws = Draws(tmp_path, [])
    append(tmp_path, LINE, torn=torn)
    assert counts(draws.so_far()) == {1.0: 2}
