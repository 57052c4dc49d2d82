"""The page of a GPU tells the card, the rows that were measured, and those that were not."""

import json

from benchmarks.gpu import BENCHMARKS, PAGE, RECORD
from benchmarks.gpu_page import page


def test_the_page_is_that_of_its_record() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    drawn = page(record, BENCHMARKS, steps=32)
    assert drawn == PAGE.read_text(encoding="utf-8"), "run `python -m benchmarks.gpu --page`"


def test_a_row_is_told_by_its_median_and_the_others_as_missing() -> None:
    first, *others = BENCHMARKS
    machine = dict.fromkeys(("card", "memory", "CUDA", "Python", "torch", "transformers", "accelerate"), "x")
    values = {line.figure: [1.0, 2.0, 3.0, 4.0, 5.0, 60.0] for line in first.lines}
    record = {
        "machine": machine | {"commit": "abc", "day": "today"},
        "rows": {first.name: {"seconds": 1, "values": values}},
    }
    drawn = page(record, BENCHMARKS, steps=2)
    assert f"| {first.what} | ratio | 3.50 | 1.00 to 60.0 |" in drawn
    assert all(f"{one.what}" in drawn.partition("Not measured there yet: ")[2] for one in others)
