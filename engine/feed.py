"""Brings the batches of a window to the model's device. Knows no instruction."""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from engine.instruction import Window
from engine.ports import Batch, device_of
from engine.run import Run

_AHEAD = 4


@dataclass(frozen=True)
class Chunk:
    """One batch, the numbers of its training rows, and how many tokens they have in it, padding not counted."""

    batch: Batch
    rows: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Fed:
    """A window whose batches are made, and what its losses are divided by: the window's own number, or its items."""

    chunks: Sequence[Chunk]
    divisor: float


def fed(run: Run, windows: Iterable[Window]) -> Iterator[Fed]:
    """The windows with their batches on the device of the model.

    For an accelerator a thread collates and pins ahead of the step; on a processor it would only take cores from it.
    """
    device = device_of(run.model)
    if device.type == "cpu":
        yield from (_collated(run, window) for window in windows)
        return
    for made in _ahead(_pinned(_collated(run, window)) for window in windows):
        yield Fed([replace(chunk, batch=_moved(chunk.batch, device)) for chunk in made.chunks], made.divisor)


def _collated(run: Run, window: Window) -> Fed:
    examples, labels = run.data.examples["train"], run.data.train.labels
    batches = [
        _chunk(run.task.collate([examples[i] for i in chunk], [int(labels[i]) for i in chunk]), chunk)
        for chunk in window.chunks
        if chunk
    ]
    # Counted before the batches move: an accelerator would have to be waited for.
    return Fed(batches, window.divisor or sum(run.task.items(chunk.batch) for chunk in batches))


def _chunk(batch: Batch, rows: tuple[int, ...]) -> Chunk:
    mask = batch.get("attention_mask")
    return Chunk(batch, rows, int(mask.sum()) if mask is not None else 0)


def _pinned(made: Fed) -> Fed:
    return Fed(
        [replace(one, batch={name: value.pin_memory() for name, value in one.batch.items()}) for one in made.chunks],
        made.divisor,
    )


def _moved(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _ahead(windows: Iterable[Fed]) -> Iterator[Fed]:
    """The same windows, made by a thread up to a few ahead; its error is raised here."""
    made: queue.Queue[Fed | BaseException | None] = queue.Queue(_AHEAD)
    left = threading.Event()

    def put(item: Fed | BaseException | None) -> bool:
        while not left.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            if all(put(window) for window in windows):
                put(None)
        except BaseException as error:  # handed to the reader, whatever it is
            put(error)

    thread = threading.Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        thread.join()
