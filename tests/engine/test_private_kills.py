"""Fault 14: a private run that is killed ten times counts every draw that was made, and its epsilon never falls."""

import multiprocessing
import signal
from pathlib import Path

from engine.accounting import PrivacyEvent, epsilon
from engine.journal import FILENAME, Journal
from tests.engine.private_attempt import CHOICE, SPY, Moment, attempt

DELTA = 1e-5


def test_14_ten_kills_hide_no_draw(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.private_attempt"])
    spent = 0.0
    endings: list[tuple[Moment, int]] = [("drawn", 1), ("noted", 1), ("drawn", 3), ("noted", 2), ("drawn", 2)] * 2
    for moment, at in [*endings, ("never", 0)]:
        process = context.Process(target=attempt, args=(tmp_path, moment, at))
        process.start()
        process.join(120)
        assert process.exitcode == (0 if moment == "never" else -signal.SIGKILL)
        journal, made = Journal(tmp_path / FILENAME), (tmp_path / SPY).stat().st_size
        assert journal.count >= made
        now = epsilon(journal.drawn(), DELTA)
        draw = PrivacyEvent(q=journal.drawn()[0].q, sigma=1.0, count=made)
        assert now >= max(spent, epsilon([draw], DELTA))
        spent = now
    assert journal.count == CHOICE["steps"], "all attempts together drew what was planned"
    assert journal.count - made == 4, "what was noted and not drawn counts too"
