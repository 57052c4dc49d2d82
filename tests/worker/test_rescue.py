"""Rounds go on whatever goes wrong in one of them, until they are stopped."""

import threading

from sqlalchemy.exc import OperationalError

from worker.rescue import Rounds


def test_no_error_ends_the_rounds() -> None:
    errors = iter([OperationalError("", {}, Exception("away")), RuntimeError("a fault")])
    third = threading.Event()

    def look() -> None:
        for error in errors:
            raise error
        third.set()

    rounds = Rounds("looks", look, 0.001)
    rounds.start()
    assert third.wait(20)
    rounds.stop()
    third.clear()
    assert not third.wait(0.05)
