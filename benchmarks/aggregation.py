"""Private aggregation: a round's updates through clip, sum and noise, against numpy that reads and adds the same files.

Both sides run in one process and are timed in processor seconds. The peer looks at no header, checks nothing, clips
nothing and draws no noise: it takes the values from where they lie and adds them up in the same precision. Memory is
what Python and numpy hold at the most during a round, which is an exact count.
"""

import os
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.training import seconds_of
from engine.aggregate import clipped_sum
from engine.allocator import keep_freed_memory
from engine.noise import privatise, source
from engine.tensorfile import Layout, Values, read_layout

SHAPES: Mapping[str, tuple[int, ...]] = {
    "first.weight": (896, 80),
    "first.bias": (80,),
    "second.weight": (80, 40),
    "second.bias": (40,),
}
VALUES = sum(int(np.prod(shape)) for shape in SHAPES.values())
UPDATES = 1000
FEWER = 100
BOUND, SIGMA = 1.0, 1.0


def write_updates(folder: Path, count: int) -> Path:
    """A folder with so many updates, each of another norm, about half of them beyond the bound."""
    folder.mkdir()
    drawn = np.random.default_rng(0)
    values = drawn.standard_normal(VALUES, dtype=np.float32) / np.float32(np.sqrt(VALUES))
    ends = np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1]
    for number, norm in enumerate(drawn.lognormal(0.0, 0.5, count)):
        parts = np.split(np.roll(values, number) * np.float32(norm), ends)
        tensors = {name: part.reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}
        save_file(tensors, folder / f"{number:04d}")
    return folder


def private_sum(updates: Path, layout: Layout) -> Values:
    """A round as the job of kind `aggregate` does it."""
    total = clipped_sum((updates / name for name in sorted(os.listdir(updates))), layout, BOUND)
    privatise([torch.from_numpy(total)], BOUND, SIGMA, float(UPDATES), source("os"))
    return total


def plain_sum(updates: Path, start: int) -> Values:
    """The sum of the values behind byte `start` of each file, by numpy alone."""
    total = np.zeros(VALUES)
    for name in sorted(os.listdir(updates)):
        total += np.fromfile(updates / name, dtype="<f4", offset=start)
    return total


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most that Python and numpy held at once for some work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """Write the updates, measure the memory once, and let both sides read the files in turn."""
    keep_freed_memory()
    torch.set_num_threads(setting.cores)
    folder = setting.scratch("aggregation")
    most, few = (40, 10) if setting.quick else (UPDATES, FEWER)
    many, fewer = write_updates(folder / "many", most), write_updates(folder / "fewer", few)
    layout = read_layout(next(many.iterdir()))
    start = min(one.start for one in layout.tensors.values())
    private_sum(fewer, layout)  # what is loaded or kept once is no growth
    growth = peak_bytes(lambda: private_sum(many, layout)) / peak_bytes(lambda: private_sum(fewer, layout))

    def pair(number: int) -> dict[str, float]:
        mine, theirs = in_turn(
            number,
            lambda: seconds_of(lambda: private_sum(many, layout)),
            lambda: seconds_of(lambda: plain_sum(many, start)),
        )
        return {"ratio": mine / theirs, "memory": growth, "ours": mine, "numpy": theirs}

    pair(0)
    yield pair


BENCHMARKS = (
    Benchmark(
        "aggregation",
        "private aggregation",
        f"{UPDATES:,} updates of {VALUES:,} values read, checked, clipped, summed and noised, over numpy reading and "
        f"adding the same files in fp64, processor time; the largest memory of a round over that of {FEWER} updates",
        (
            Line("ratio", 1.8, 1.2, more_is_better=False, unit="x"),
            Line("memory", 1.1, 1.1, more_is_better=False, unit="x", exact=True),
            Line("ours", unit="s"),
            Line("numpy", unit="s"),
        ),
        opened,
        30,
    ),
)
