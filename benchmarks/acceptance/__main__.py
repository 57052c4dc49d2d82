"""`python -m benchmarks.acceptance [--only NAME]... [--quick]`: walk the issue's lines, print them, write the page.

Starts the real service (`fiftytwo serve`: API, worker, broker) in a scratch folder on a free port and goes over HTTP
alone. With --only the page keeps the other sections as they are. A quick walk sends everything tiny and only prints.
Exit code 1: a line was missed.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.acceptance import (
    checking,
    experiment,
    language,
    openai_client,
    pairs,
    private,
    rounds,
    simulation,
    topics,
)
from benchmarks.acceptance.page import page, section, sections_of, shown
from benchmarks.acceptance.step import Finding, Step, Walked
from benchmarks.acceptance.walk import Walk
from benchmarks.article.section import NotAtHand
from benchmarks.machine import commit, cores, memory_gib, processor
from benchmarks.servers import service
from benchmarks.texts import ROOT
from client.errors import ClientError

STEPS: dict[str, Step] = {
    one.name: one
    for one in (
        language.STEP,
        pairs.STEP,
        *topics.STEPS,
        rounds.STEP,
        simulation.STEP,
        private.STEP,
        checking.STEP,
        openai_client.STEP,
        experiment.STEP,
    )
}
PAGE = ROOT / "docs" / "acceptance.md"


def main(words: Sequence[str] | None = None) -> int:
    """Walk the chosen steps."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.acceptance", description="Walk the issue's lines.")
    parser.add_argument("--only", action="append", choices=list(STEPS), help="this step; may be repeated")
    parser.add_argument("--quick", action="store_true", help="everything tiny: does it go through, not how well")
    given = parser.parse_args(words)
    logging.getLogger().setLevel(logging.WARNING)
    occasion = this_occasion()
    kept = sections_of(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
    held = True
    with (
        tempfile.TemporaryDirectory(prefix="fiftytwo-walk-") as folder,
        service(Path(folder) / "data") as server,
        server.client() as client,
    ):
        place = Walk(server, Path(folder), given.quick, client)
        for name in given.only or STEPS:
            walked = take(STEPS[name], place)
            held = held and walked.held
            if walked.absent and name in kept:
                continue
            kept[name] = section(walked, occasion)
            if not given.quick:
                PAGE.write_text(page(kept, list(STEPS.values())), encoding="utf-8")
    return 0 if held else 1


def take(step: Step, place: Walk, clock: Callable[[], float] = time.monotonic) -> Walked:
    """Walk a step and print each line as it comes; what breaks off on the way is a missed line."""
    print(f"{step.name}: {step.title}", flush=True)
    found: list[Finding] = []
    began = clock()

    def tell(one: Finding) -> None:
        nonlocal began
        now = clock()
        found.append(replace(one, seconds=now - began))
        began = now
        print(told(found[-1]), flush=True)

    try:
        for one in step.walk(place):
            tell(one)
    except NotAtHand as error:
        print(f"  not walked: {error}", flush=True)
        return Walked(step, tuple(found), str(error))
    except (ClientError, RuntimeError, LookupError) as error:  # the last: a field that an answer lacks
        lines = error.lines() if isinstance(error, ClientError) else [f"{type(error).__name__}: {error}"]
        tell(Finding("the step goes through to its end", None, {"it broke off": " ".join(lines)}, held=False))
    return Walked(step, tuple(found))


def told(one: Finding) -> str:
    """A finding in lines for the terminal."""
    figures = [f"    {name}: {shown(value)}" for name, value in one.came.items()]
    return "\n".join([f"  {'held' if one.held else 'MISSED'}: {one.asks} ({one.seconds:.0f} s)", *figures])


def this_occasion() -> str:
    """Day, commit and machine, in words."""
    machine = f"{processor()}, {cores()} cores, {memory_gib():.0f} GiB"
    return f"{datetime.now(UTC):%d %B %Y}, commit {commit(ROOT)}, {machine}"


if __name__ == "__main__":
    sys.exit(main())
