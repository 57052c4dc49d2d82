"""Instruction 12. Knows language models only through the task's batches: token ids, targets, positions."""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from engine.errors import InvalidData
from engine.instruction import Instruction, Window
from engine.packed_attention import BY_DOCUMENT, attend, can_go_by_document
from engine.ports import Batch, device_of
from engine.run import Run
from engine.token_loss import IGNORED

_LEAK = 1e-4  # nats a token: rounding in another order of sums stays below, a neighbour that is seen far above
_PROBED = 5


class SequencePacking(Instruction):
    """Puts several documents into one row, so that nearly every computed token is a real one.

    Sound: documents do not see each other: positions start again with each, the model runs without a cache, and the
    first token of a document is no target of the one before it. On a processor each document attends by itself, so no
    score between two is ever computed. Whether a model honours all that is probed on real rows before the first step,
    against each document alone; where it does not, an explicit mask takes its place. Rows are filled best-fit, in
    windows, so that the order stays random between them. `training.batch_size` rows make one batch.

    Refuses: a model whose documents leak either way; private training (37), whose unit is one document and not one row.

    Effect: none on quality at equal tokens; the share of computed tokens that are real is `fill`. `leak` is the largest
    difference of a token's loss to that of its document alone.
    """

    number = 12
    band = "preprocessing"
    title = "Sequence packing"
    source = "Krell et al. 2021 (arXiv 2107.02027); Ding et al. 2024 (arXiv 2404.10830)"
    metric = "fill"
    tasks = frozenset({"causal_lm"})
    name: Literal["sequence_packing"] = "sequence_packing"

    length: int | None = Field(
        default=None,
        ge=32,
        le=32768,
        description="tokens a row, and of the longest part of a document; null: training.max_length",
    )
    strategy: Literal["best_fit", "in_order"] = Field(
        default="best_fit", description="in_order opens a new row where the next document does not fit"
    )
    window: int = Field(default=2000, ge=100, le=100_000, description="documents that are packed together")

    @property
    def provides(self) -> frozenset[str]:
        """Rows hold several documents."""
        return frozenset({"packed"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """A private step clips the gradient of one record."""
        return {"differential_privacy": "a packed row holds several documents, and privacy is of each one"}

    @property
    def decides(self) -> Mapping[str, int]:
        """How long a row is, and so how long a part of a document may be."""
        return {} if self.length is None else {"max_length": self.length}

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Find a way in which the documents of a row do not see each other.

        Raises:
            InvalidData: there is none for this model.
        """
        state = run.state(self.name)
        if can_go_by_document(model):
            attended = attend(model, BY_DOCUMENT)
            leak = _leak(run, model, masked=False, end_to_end=True)
            if leak <= _LEAK:
                state.update(masked=False, leak=leak, attended=attended)
                return model
            attend(model, attended)
        state.update(_kept_apart(run, model))
        return model

    def trained(self, run: Run, model: nn.Module) -> nn.Module:
        """Attend as before."""
        before = run.state(self.name).get("attended")
        if before is not None:
            attend(model, before)
        return model

    def grouping(self, run: Run, ids: Iterator[int], epoch: int) -> Iterator[Window]:
        """Batches of the documents of `batch_size` rows, row by row."""
        rows = self._rows(run, ids)
        while together := tuple(islice(rows, run.spec.training.batch_size)):
            yield Window((tuple(chain.from_iterable(together)),))

    def batch(self, run: Run, batch: Batch, row_ids: Sequence[int], epoch: int) -> Batch:
        """Lay the documents of a chunk behind one another."""
        state = run.state(self.name)
        if "masked" not in state:  # a model that trains on, when it attends as before again
            state.update(_kept_apart(run, run.model))
        sizes = _row_sizes(batch, run.spec.training.max_length)
        state["real"] = state.get("real", 0) + sum(sizes)
        state["rows"] = state.get("rows", 0) + len(sizes)
        state["documents"] = state.get("documents", 0) + len(row_ids)
        # Documents that attend by themselves need no rows: end to end, there is nothing to pad.
        return _packed(batch, [sum(sizes)] if "attended" in state else sizes, masked=state["masked"])

    def report(self, run: Run) -> Mapping[str, float]:
        """How full the rows were, how many documents they held, and the probe's figure."""
        state = run.state(self.name)
        if not state.get("rows"):
            return {"leak": state["leak"]} if "leak" in state else {}
        length = run.spec.training.max_length
        return {
            "fill": state["real"] / (state["rows"] * length),
            "documents_per_row": state["documents"] / state["rows"],
            "leak": state["leak"],
        }

    def _rows(self, run: Run, ids: Iterator[int]) -> Iterator[tuple[int, ...]]:
        lengths, room = run.data.lengths("train").tolist(), run.spec.training.max_length
        while together := list(islice(ids, self.window)):
            yield from (
                best_fit(together, lengths, room) if self.strategy == "best_fit" else in_order(together, lengths, room)
            )


def best_fit(ids: Sequence[int], lengths: Sequence[int], room: int) -> list[tuple[int, ...]]:
    """Rows of at most `room` tokens: the longest document first, each into the fullest row that still takes it.

    The rows stand in the order of their first document in `ids`, so that a window's order stays as random as it came.
    """
    place = {number: at for at, number in enumerate(ids)}
    left: list[tuple[int, int]] = []  # (room left, row), in order of room
    rows: list[list[int]] = []
    for number in sorted(ids, key=lambda one: (-lengths[one], place[one])):
        at = bisect.bisect_left(left, (lengths[number], -1))
        if at == len(left):
            rows.append([])
            space, row = room, len(rows) - 1
        else:
            space, row = left.pop(at)
        rows[row].append(number)
        bisect.insort(left, (space - lengths[number], row))
    ordered = [tuple(sorted(row, key=place.__getitem__)) for row in rows]
    return sorted(ordered, key=lambda row: place[row[0]])


def in_order(ids: Sequence[int], lengths: Sequence[int], room: int) -> list[tuple[int, ...]]:
    """Rows of at most `room` tokens in the order given."""
    rows: list[tuple[int, ...]] = []
    row: list[int] = []
    used = 0
    for number in ids:
        if row and used + lengths[number] > room:
            rows.append(tuple(row))
            row, used = [], 0
        row.append(number)
        used += lengths[number]
    return [*rows, tuple(row)] if row else rows


def _row_sizes(batch: Batch, room: int) -> list[int]:
    """Tokens of the rows that the documents of a batch fill in their order: never more rows than they came in."""
    lengths: list[int] = batch["attention_mask"].sum(1).tolist()
    return [sum(lengths[one] for one in row) for row in in_order(range(len(lengths)), lengths, room)]


def _packed(batch: Batch, sizes: Sequence[int], *, masked: bool) -> Batch:
    """Rows of `sizes` real tokens, (rows, longest): positions start again, and no document's first token is a target.

    Behind a row stands padding, each token of it a document of its own, or with `masked` all of it one.
    """
    real = batch["attention_mask"].bool()
    documents, places = (torch.arange(size, device=real.device) for size in real.shape)
    labels, target_bytes = batch["labels"].clone(), batch["target_bytes"].clone()
    labels[:, 0], target_bytes[:, 0] = IGNORED, 0

    def laid(values: Tensor, padding: int = 0) -> Tensor:
        return pad_sequence(values[real].split(list(sizes)), batch_first=True, padding_value=padding)

    return {
        "input_ids": laid(batch["input_ids"]),
        "attention_mask": _blocks(laid(documents[:, None].expand_as(real), -1)) if masked else laid(real.long()),
        "labels": laid(labels, IGNORED),
        "target_bytes": laid(target_bytes),
        "position_ids": laid(places.expand_as(real)),
    }


def _blocks(documents: Tensor) -> Tensor:
    """An additive causal mask (rows, 1, length, length) within documents; `documents` (rows, length): a token is of."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    seen = (documents[:, :, None] == documents[:, None]) & causal
    mask = torch.zeros(seen.shape, device=documents.device)
    return mask.masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def _kept_apart(run: Run, model: nn.Module) -> dict[str, Any]:
    """Whether a model needs a mask so that documents do not see each other, and by how much they do then.

    Raises:
        InvalidData: they do either way.
    """
    for masked in (False, True):
        leak = _leak(run, model, masked=masked, end_to_end=False)
        if leak <= _LEAK:
            return {"masked": masked, "leak": leak}
    raise InvalidData(
        f"this model's attention mixes packed documents: a token's loss moves by {leak:.2g}",
        remedy="choose length_bucketing (11) instead of sequence_packing (12)",
    )


@torch.no_grad()
def _leak(run: Run, model: nn.Module, *, masked: bool, end_to_end: bool) -> float:
    """The largest difference of a token's loss in a row, `end_to_end`, or in one of two rows to that in its document.

    As the batches are laid, though fuller: a row takes whatever it is given.
    """
    examples = run.data.examples["train"]
    chosen = [examples[i] for i in range(min(_PROBED, len(examples)))]
    was_training, device = model.training, device_of(model)
    model.eval()

    def losses(some: Sequence[object], *, pack: bool) -> Tensor:
        batch = run.task.collate(some, [0] * len(some))  # type: ignore[arg-type]  # examples of this very task
        batch = {name: value.to(device) for name, value in batch.items()}
        if pack:
            lengths = batch["attention_mask"].sum(1).tolist()
            first = sum(lengths) if end_to_end else sum(lengths[: -(-len(lengths) // 2)])
            batch = _packed(batch, [one for one in (first, sum(lengths) - first) if one], masked=masked)
        return run.task.forward(model, batch)[batch["labels"][:, 1:] != IGNORED]

    alone = torch.cat([losses([one], pack=False) for one in chosen])
    together = losses(chosen, pack=True)
    model.train(was_training)
    return float((alone - together).abs().max()) if len(alone) == len(together) else float("inf")
