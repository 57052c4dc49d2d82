"""Draws docs/gpu.md: what was measured on a GPU, and what the tests hold there. Measures nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.benchmark import Benchmark, Result
from benchmarks.page import interval, number

NOTE = "<!-- Written by `python -m benchmarks.gpu`; do not edit. -->"


def page(record: Mapping[str, Any], benchmarks: Sequence[Benchmark], *, steps: int) -> str:
    """The page of a record: the machine, and of each row seconds and values."""
    about, kept = record["machine"], record["rows"]
    results = [Result(one, **kept[one.name]) for one in benchmarks if one.name in kept]
    missing = [one.what for one in benchmarks if one.name not in kept]
    made = ", ".join(f"{name} {about[name]}" for name in ("CUDA", "Python", "torch", "transformers", "accelerate"))
    rows = [
        f"| {one.benchmark.what if index == 0 else ''} | {line.figure} | {number(found.value, line.unit)} |"
        f" {interval(line, found)} |"
        for one in results
        for index, line in enumerate(one.benchmark.lines)
        for found in [one.median(line.figure)]
    ]
    paragraphs = [
        "# On a GPU",
        NOTE,
        f"One {about['card']} with {about['memory']}. {made}. Measured on {about['day']} at commit {about['commit']} by"
        " `python -m benchmarks.gpu`, in wall seconds; the raw values are in [gpu.json](gpu.json).",
        f"The two sides of a row take turns of {steps} batches; the interval is that of the median at 95 %. The"
        " processor that starts the kernels is shared with others, so the ratios say more than the rates, and where the"
        " interval of a ratio holds 1, neither side is shown to be the faster one.",
        "\n".join(["| what | figure | median | 95 % interval |", "| --- | --- | --- | --- |", *rows]),
        "\n".join(f"- **{one.benchmark.what}**: {one.benchmark.work}." for one in results),
        *([f"Not measured there yet: {'; '.join(missing)}."] if missing else []),
        _HOLDS,
    ]
    return "\n\n".join(paragraphs) + "\n"


_HOLDS = """## What holds there

`python -m pytest tests/gpu` holds of a GPU what `tests/engine` holds of a processor, and is left out where there is
none.

- A run that is repeated, or killed and resumed, gives the same weights byte for byte on the same card: sums have one
  order, attention's backward pass too. Another card, or a processor, gives other last digits.
- A snapshot of a GPU goes on on a processor and back.
- What ships is measured on the processor as ever, since that is where it will run."""
