"""Instruction 11: batches of similar length. Knows no model; lengths are tokens, as the task counts them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from engine.instruction import TEXT_TASKS, Instruction, Window
from engine.ports import Batch, device_of
from engine.randomness import generator
from engine.run import Run

Lengths = npt.NDArray[np.int64]
Batches = list[tuple[int, ...]]

_TENSOR_CORE_MULTIPLE = 8
_SKEW_WARNED = 1.5


class LengthBucketing(Instruction):
    """Forms batches from texts of similar length, so that less of each batch is padding.

    Sound: the rows of an epoch are the same, each once. The given order is cut into mega-batches of `window`
    batches, each sorted by tokens and cut, and the batches of the whole epoch are shuffled: no drift from long to
    short is left, and no epoch looks like another. A full sort would save one or two points more and always give
    the same batches. With a budget in tokens batches differ in rows; each is divided by the mean number of rows, so
    every row weighs the same. Lengths that predict the label make batches of one label: a warning says so where
    batches are more skewed than shuffled ones.

    Refuses: pictures; rows that are streamed from shards, since sorting needs every length first; private training,
    whose epsilon rests on rows that are drawn independently; with a budget in tokens, gradient accumulation.

    Effect: the padding of a batch falls to a few per cent, and the time of a step with it; the report has both figures
    for the data at hand, docs/benchmarks.md the speed with 26. Accuracy should not change; texts of one length gain
    nothing.
    """

    number = 11
    band = "preprocessing"
    title = "Length bucketing"
    source = "Khomenko et al. 2016, sequence bucketing; mega-batches as in fairseq and the transformers Trainer"
    metric = "padding_fraction"
    tasks = TEXT_TASKS
    name: Literal["length_bucketing"] = "length_bucketing"
    window: int = Field(default=50, ge=2, le=1000, description="batches that are sorted together")
    budget: Literal["rows", "tokens"] = Field(
        default="rows", description="what bounds a batch: training.batch_size rows, or max_tokens padded tokens"
    )
    max_tokens: int = Field(
        default=8192, ge=64, le=1_000_000, description='padded tokens a batch for budget "tokens"; one row always fits'
    )
    multiple_of: int | None = Field(
        default=None,
        ge=1,
        le=128,
        description="padded lengths are rounded up to it; null: 8 on a GPU, 1 on a processor",
    )
    longest_first: bool = Field(
        default=True, description="begin the run with its longest batch, so that memory fails at once or not at all"
    )

    @property
    def provides(self) -> frozenset[str]:
        """Batches hold rows of similar length."""
        return frozenset({"bucketed"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """Whatever needs rows to be drawn without a look at all of them, or batches of one size."""
        reasons = {
            "streamed_records": "sorting by length needs the length of every row before the first batch",
            "differential_privacy": "batches sorted by length are no independent draws, and epsilon rests on those",
        }
        if self.budget == "tokens":
            reasons["gradient_accumulation"] = (
                "a budget in tokens decides how much an optimizer step sees; raise max_tokens"
            )
        return reasons

    @property
    def idle(self) -> frozenset[str]:
        """Nothing is padded further where lengths are not rounded."""
        return frozenset({"batch"}) if self.multiple_of == 1 else frozenset()

    def grouping(self, run: Run, ids: Iterator[int], epoch: int) -> Iterator[Window]:
        """The windows of an epoch; a pure function of the order given, the lengths, the seed and the epoch."""
        lengths = run.data.lengths("train")
        run.state(self.name).update(longest=int(lengths.max()), ends=[int(lengths.argmin()), int(lengths.argmax())])
        batches = self._batches(run, list(ids), lengths, epoch)
        # A language model's items are its tokens, which such a budget has evened out already.
        even = self.budget == "tokens" and run.spec.task != "causal_lm"
        divisor = sum(map(len, batches)) / max(len(batches), 1) if even else None
        yield from (Window((batch,), divisor) for batch in batches)

    def batch(self, run: Run, batch: Batch, row_ids: Sequence[int], epoch: int) -> Batch:
        """Pad to the multiple, with what the task itself pads with, yet never beyond the longest training row."""
        width, multiple, state = batch["input_ids"].shape[1], self._multiple(run), run.state(self.name)
        wanted = min(-(-width // multiple) * multiple, state["longest"])
        if wanted <= width:
            return batch
        # The shortest row beside the longest is padded as far as any batch is.
        padding = run.task.collate([run.data.examples["train"][i] for i in state["ends"]], [0, 0])
        return {name: _padded(value, padding[name], width, wanted) for name, value in batch.items()}

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Say once where there was nothing to save, or where batches are skewed."""
        if epoch:
            return
        lengths, labels = run.data.lengths("train"), run.data.train.labels
        if lengths.min() == lengths.max():
            run.warn("one_length", f"every training row has {lengths[0]} tokens: bucketing saves nothing")
        if not run.task.labels:  # of pairs they say which rows are equal, and are no classes to be skewed
            return
        order = list(run.plan.slot("order").order(run, 0))
        skew = label_skew(self._batches(run, order, lengths, 0), labels)
        usual = label_skew(cut(order, run.spec.training.batch_size), labels)
        if skew > _SKEW_WARNED * usual:
            run.warn(
                "skewed_batches", f"length predicts the label: batches differ by {skew:.2f}, shuffled by {usual:.2f}"
            )

    def report(self, run: Run) -> Mapping[str, float]:
        """Padding of the first epoch with and without bucketing, and the share of tokens that is left to compute."""
        lengths, order = run.data.lengths("train"), list(run.plan.slot("order").order(run, 0))
        before = padded_tokens(cut(order, run.spec.training.batch_size), lengths)
        widths = padded_lengths(lengths, self._multiple(run))
        after = padded_tokens(self._batches(run, order, lengths, 0), widths)
        real = int(lengths[order].sum())
        return {
            "padding_fraction_before": 1 - real / before,
            "padding_fraction": 1 - real / after,
            "token_share": after / before,
        }

    def _batches(self, run: Run, order: list[int], lengths: Lengths, epoch: int) -> Batches:
        training = run.spec.training
        draw = generator(training.seed, self.name, epoch)
        widths = padded_lengths(lengths, self._multiple(run))
        tokens = self.max_tokens if self.budget == "tokens" else None
        lone = run.spec.task != "text_image_pairs"  # a pair alone has no wrong partner, nor a variance for batch norm
        batches = bucketed(order, widths, training.batch_size, self.window, draw, tokens=tokens, lone=lone)
        if self.longest_first and epoch == 0 and batches:
            batches.insert(0, batches.pop(int(np.argmax([_cost(batch, widths) for batch in batches]))))
        return batches

    def _multiple(self, run: Run) -> int:
        """Of the device that the run began on: another one that goes on with it, or delivers it, keeps the batches."""
        on_gpu = device_of(run.model).type == "cuda"
        found: int = run.state(self.name).setdefault(
            "multiple", self.multiple_of or (_TENSOR_CORE_MULTIPLE if on_gpu else 1)
        )
        return found


def bucketed(
    order: Sequence[int],
    widths: Lengths,
    rows: int,
    window: int,
    draw: np.random.Generator,
    tokens: int | None = None,
    *,
    lone: bool = True,
) -> Batches:
    """All rows of `order`, each once, in shuffled batches of similar width.

    Args:
        order: row numbers in the order given.
        widths: tokens of each row once padded, (all rows,).
        rows: rows a batch; with `tokens`, replaced by the number of mean rows that fit.
        window: batches that are sorted together.
        draw: shuffles the batches.
        tokens: the most padded tokens of a batch; a row beyond it is a batch of its own.
        lone: whether a batch may be a single row; where not, it joins its neighbour, whatever the bound.
    """
    width_of = widths.tolist()
    if tokens is not None and order:
        rows = max(1, int(tokens / widths[list(order)].mean()))
    batches: Batches = []
    for mega in cut(order, rows * window):
        descending = sorted(mega, key=width_of.__getitem__, reverse=True)
        batches += cut(descending, rows) if tokens is None else _cut_by_tokens(descending, width_of, tokens)
    batches = batches if lone else _accompanied(batches)
    return [batches[int(i)] for i in draw.permutation(len(batches))]


def _accompanied(batches: Batches) -> Batches:
    """The same rows, none alone in its batch unless there is no other."""
    found: Batches = []
    for batch in batches:
        if found and 1 in (len(batch), len(found[-1])):
            found[-1] += batch
        else:
            found.append(batch)
    return found


def cut(order: Sequence[int], rows: int) -> Batches:
    """Batches of `rows` in the order given; the last may be short."""
    return [tuple(order[start : start + rows]) for start in range(0, len(order), rows)]


def _cut_by_tokens(descending: Sequence[int], width_of: Sequence[int], tokens: int) -> Batches:
    """The first row of a batch is its widest, so it says how many fit."""
    batches, start = [], 0
    while start < len(descending):
        fits = max(1, tokens // width_of[descending[start]])
        batches.append(tuple(descending[start : start + fits]))
        start += fits
    return batches


def padded_lengths(lengths: Lengths, multiple: int) -> Lengths:
    """Lengths rounded up to a multiple, yet never beyond the longest: what the model takes ends there."""
    widths: Lengths = np.minimum(-(-lengths // multiple) * multiple, lengths.max(initial=0))
    return widths


def padded_tokens(batches: Batches, widths: Lengths) -> int:
    """Tokens that the batches hold once padded."""
    return sum(_cost(batch, widths) for batch in batches)


def label_skew(batches: Batches, labels: npt.NDArray[np.int64]) -> float:
    """Mean total-variation distance, 0 to 1, between the label shares of a batch and those of all batches."""
    classes = int(labels.max()) + 1
    counts = np.array([np.bincount(labels[list(batch)], minlength=classes) for batch in batches])
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.abs(shares - counts.sum(axis=0) / counts.sum()).sum(axis=1).mean() / 2)


def _cost(batch: Sequence[int], widths: Lengths) -> int:
    return len(batch) * int(widths[list(batch)].max())


def _padded(value: Tensor, padding: Tensor, width: int, wanted: int) -> Tensor:
    """`value` (batch, width) with the first row of `padding` (2, at least wanted) from there on behind each row."""
    if value.ndim != 2 or value.shape[1] != width:
        return value
    tail = padding[:1, width:wanted].to(value.device, value.dtype)
    return torch.cat([value, tail.expand(len(value), -1)], dim=1)
