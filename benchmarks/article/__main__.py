"""`python -m benchmarks.article [--only N]... [--quick]`: measure the article's ten, write docs/article.md.

With --only the other sections stay as they are. A quick run measures one seed of a tiny case and only prints: the page
holds whole runs alone.
"""

import argparse
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import torch
import transformers

from benchmarks.article import compression, gradients, privacy, records, words
from benchmarks.article.section import NotAtHand, Section, table, text
from benchmarks.machine import commit, processor
from benchmarks.texts import ROOT

SECTIONS: dict[int, Section] = {
    one.number: one
    for module in (records, words, gradients, privacy, compression)
    for one in sorted(module.SECTIONS, key=lambda section: section.number)
}
ORDER = sorted(SECTIONS)
PAGE = ROOT / "docs" / "article.md"
SEEDS = (1, 2, 3)
_HEAD = """# The article's ten instructions, measured

<!-- Written by `python -m benchmarks.article`; do not edit. -->

For each of the ten: what the article says, what is wrong in its code, what ours does instead, and its effect on a small
case. Every figure is a mean over three seeds with Student's 95 % interval; with so few seeds it is wide, and the
interval of a share may leave 0 to 1. The cases are small enough for one core, so they show the direction of an effect
and where the article's way breaks, not the size that it has on large models. Where the article's way is a row of a
table, it was rebuilt here with the faults that are listed and no others. `python -m benchmarks.article` measures all of
it again.
"""


def main(words_given: Sequence[str] | None = None) -> int:
    """Measure the chosen sections."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.article", description="Measure the article's ten.")
    parser.add_argument("--only", action="append", type=int, choices=ORDER, help="this instruction; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one seed of a tiny case: does it run")
    given = parser.parse_args(words_given)
    logging.getLogger().setLevel(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    kept = sections_of(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
    for number in given.only or ORDER:
        try:
            written = measured(SECTIONS[number], quick=given.quick)
        except NotAtHand as error:
            print(f"{number}: {error}; its section stays as it is", file=sys.stderr)
            continue
        print(written, flush=True)
        kept[number] = written
        if not given.quick:
            PAGE.write_text(page(kept), encoding="utf-8")
    return 0


def measured(section: Section, *, quick: bool) -> str:
    """The section with figures of this machine."""
    began = time.process_time()
    found = [section.measure(seed, quick) for seed in (SEEDS[:1] if quick else SEEDS)]
    seconds = time.process_time() - began
    made = (
        f"{len(found)} seeds, {seconds:.0f} processor seconds on {processor()}, torch {torch.__version__},"
        f" commit {commit(ROOT)}, {datetime.now(UTC):%d %B %Y}."
    )
    return text(section, f"{table(found)}\n\n{made}")


def sections_of(written: str) -> dict[int, str]:
    """The sections of a page by number."""
    parts = re.split(r"(?m)^(?=## \d+\. )", written)[1:]
    return {int(part[3:].split(".", 1)[0]): part.rstrip() + "\n" for part in parts}


def page(sections: Mapping[int, str]) -> str:
    """The page, in the order of the numbers; an instruction without figures says so."""
    parts = [sections.get(number) or text(SECTIONS[number], "Not measured here.") for number in ORDER]
    return "\n".join([_HEAD, *parts])


if __name__ == "__main__":
    sys.exit(main())
