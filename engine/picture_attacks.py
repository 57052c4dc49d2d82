"""Attacks on pictures: a search by the eager model's losses, judged by the file that ships. Knows no instruction.

What is right differs from task to task and stands in a judge: a picture of a class is right where its class wins, one
of a pair where no other text comes before its own among those of all test rows.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from engine.attacks import Ball, Losses, apgd, ascent, pgd, pixel_scale, square, still
from engine.contrastive import MOST_LOG_SCALE, ranks, right_for, sides, told_apart
from engine.inference import eager_answers
from engine.instruction import Exported
from engine.ports import Pair, Payload, device_of
from engine.quantized import in_float
from engine.randomness import derive
from engine.run import Run

_BATCH = 64
_STEPS = {"pgd20": 20, "apgd_ce": 50}
Numbers = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Room:
    """How far a pixel may move, of 0 to 1; the answers that a search without gradients asks for; the draws."""

    epsilon: float
    max_queries: int
    seed: int


class Judge(Protocol):
    """What is right of the pictures of some test rows, by number."""

    def pixels(self, row: int) -> Pixels:
        """The picture of a row, (channels, height, width)."""

    def payload(self, row: int, file: bytes) -> Payload:
        """The row with another picture."""

    def right(self, rows: Numbers, payloads: Sequence[Payload]) -> npt.NDArray[np.bool_]:
        """Whether the file answers payloads that stand for these rows rightly, each read alone, (n,)."""

    def losses(self, rows: Numbers) -> tuple[Tensor, Losses]:
        """The rows' pictures as the eager model takes them, and what a search makes as large as it can."""


class ClassJudge:
    """Pictures of classes."""

    def __init__(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        self._run, self._exported, self._eager = run, exported, eager

    def pixels(self, row: int) -> Pixels:
        """Of the example."""
        found: Pixels = self._run.data.examples["test"][row]
        return found

    def payload(self, row: int, file: bytes) -> Payload:
        """The file."""
        return file

    def right(self, rows: Numbers, payloads: Sequence[Payload]) -> npt.NDArray[np.bool_]:
        """Where the row's class wins."""
        answers = self._exported.answers(payloads, batch_size=1)
        found: npt.NDArray[np.bool_] = answers.argmax(axis=1) == self._run.data.test.labels[rows]
        return found

    def losses(self, rows: Numbers) -> tuple[Tensor, Losses]:
        """The task's own."""
        task, labels = self._run.task, self._run.data.test.labels[rows]
        batch = task.collate([self.pixels(int(row)) for row in rows], labels.tolist())
        batch = {name: one.to(device_of(self._eager)) for name, one in batch.items()}

        def losses(pixels: Tensor) -> Tensor:
            changed = {**batch, "pixel_values": pixels}
            return task.losses(task.forward(self._eager, changed), changed)

        return batch["pixel_values"], losses


class PairJudge:
    """Pictures that find their text among those of all test rows; texts are left as they are."""

    def __init__(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        self._run, self._exported, self._eager = run, exported, eager
        test = run.data.test
        self._alike = told_apart(test.labels)[:, ::-1]
        self._texts = sides(exported.answers(list(test.payloads), batch_size=_BATCH))[0]
        with in_float(eager):
            own = sides(eager_answers(run.task, eager, run.data.examples["test"]))[0]
        self._sought = torch.from_numpy(own).to(device_of(eager))

    def pixels(self, row: int) -> Pixels:
        """The second part of the example."""
        found: Pixels = self._run.data.examples["test"][row][1]
        return found

    def payload(self, row: int, file: bytes) -> Payload:
        """The row's own text with the file."""
        pair = self._run.data.test.payloads[row]
        assert isinstance(pair, Pair)
        return pair._replace(image=file)

    def right(self, rows: Numbers, payloads: Sequence[Payload]) -> npt.NDArray[np.bool_]:
        """Where no other text is as near as the nearest of the captions of the row's picture."""
        images = sides(self._exported.answers(payloads, batch_size=1))[1]
        first: npt.NDArray[np.bool_] = ranks(images, self._texts, self._alike, self._alike[rows, 0]) == 0
        return first

    def losses(self, rows: Numbers) -> tuple[Tensor, Losses]:
        """Cross-entropy of each picture over all texts."""
        batch = self._run.task.collate([self._run.data.examples["test"][int(row)] for row in rows], [0] * len(rows))
        batch = {name: one.to(device_of(self._eager)) for name, one in batch.items()}
        scale = self._eager.get_parameter("logit_scale").detach().float().clamp(max=MOST_LOG_SCALE).exp()
        right = torch.from_numpy(right_for(self._alike[rows, 0], self._alike)).to(scale.device)
        read = {name: batch[name][:1] for name in ("input_ids", "attention_mask")}  # one text: its tower is not asked

        def losses(pixels: Tensor) -> Tensor:
            scores = scale * self._eager(**read, pixel_values=pixels).image_embeds.float() @ self._sought.T
            found: Tensor = scores.logsumexp(dim=1) - scores.masked_fill(~right, -torch.inf).logsumexp(dim=1)
            return found

        return batch["pixel_values"], losses


JUDGES: Mapping[str, Callable[[Run, Exported, nn.Module], Judge]] = {
    "image_classification": ClassJudge,
    "text_image_pairs": PairJudge,
}
"""By task."""


def attacked(
    run: Run, eager: nn.Module, judge: Judge, attack: str, room: Room, rows: Numbers
) -> tuple[list[Payload | None], list[int]]:
    """Attack rows that are right; for each the changed payload that fools the file, or None, and what was asked."""
    found: list[Payload | None] = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        with in_float(eager), still(eager):
            pictures = _searched(run, eager, judge, attack, room, part)
        payloads = [judge.payload(int(row), png(one)) for row, one in zip(part, pictures, strict=True)]
        held = judge.right(part, payloads)
        found += [None if right else one for one, right in zip(payloads, held, strict=True)]
    asked = room.max_queries if attack == "square" else _STEPS[attack] + 1
    return found, [asked] * len(rows)


def _searched(run: Run, eager: nn.Module, judge: Judge, attack: str, room: Room, rows: Numbers) -> list[Pixels]:
    """The worst pictures that a search finds, on the grid of 8 bits that a file can hold."""
    device = device_of(eager)
    mean, std = pixel_scale(run.task)
    ball = Ball.of(mean, std, room.epsilon, device)
    origin, losses = judge.losses(rows)
    draws = torch.Generator().manual_seed(derive(room.seed, attack))
    if attack != "square" and not _has_gradient(losses, origin):
        run.warn("no_gradient", f"the model gives no gradient for {attack}: it was attacked without (square) instead")
        attack = "square"
    if attack == "square":
        worst = square(losses, origin, ball, queries=room.max_queries, generator=draws)
    elif attack == "apgd_ce":
        worst = apgd(losses, origin, ball, steps=_STEPS[attack], generator=draws)
    else:
        worst = pgd(losses, origin, ball, steps=_STEPS[attack], step=2.5 / _STEPS[attack], generator=draws)
    spread = torch.tensor(std, device=device).view(-1, 1, 1)
    change = ((worst - origin) * spread * 255).cpu().numpy()
    return [on_grid(judge.pixels(int(row)), change[number], room.epsilon) for number, row in enumerate(rows)]


def _has_gradient(losses: Losses, origin: Tensor) -> bool:
    """Whether most pictures have a gradient at all; a loss that is detached has none."""
    try:
        gradient = ascent(losses, origin)[1]
    except RuntimeError:  # autograd's word for a graph that does not reach the picture
        return False
    return bool((gradient.flatten(1).abs().amax(dim=1) > 0).float().mean() > 0.5)


def on_grid(original: Pixels, change: npt.NDArray[np.floating], epsilon: float) -> Pixels:
    """The original with a change in levels of 8 bits rounded, and no level further away than `epsilon`."""
    most = np.floor(epsilon * 255 + 1e-6)
    levels = original.astype(np.float64) + np.clip(np.rint(change), -most, most)
    found: Pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return found


def png(pixels: Pixels) -> bytes:
    """(channels, height, width) uint8 as a file, without loss."""
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(stream, format="PNG")
    return stream.getvalue()
