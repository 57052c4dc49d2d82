"""What a score needs where texts and pictures find each other: answers are two embeddings side by side. Knows no model.

Labels of rows tell equal captions and equal pictures. A text is right for a picture where some row has both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.contrastive import FIRST_LOG_SCALE, contrastive_losses, mean_cosine, nearest, ranks, sides, told_apart
from engine.errors import InvalidData
from engine.evaluate import Figures, Labels, rounded, wilson
from engine.ports import Answers, Batch
from engine.rows import Rows

_CLEAR_LEAD = 0.05  # of a cosine: what rounding alone does to a sound file stays below
_COMPARED = 1024
_SHOWN = 8


class Retrieval:
    """What is right for a picture are the captions of all its rows, and for a text the pictures of all of its."""

    metrics: ClassVar[tuple[str, ...]] = ("recall_at_10", "recall_at_1", "recall_at_5")
    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    labels: tuple[str, ...] = ()

    @classmethod
    def check(cls, rows: Rows) -> None:
        """Refuse training rows that leave nothing to tell apart."""
        if len(rows) < 2:
            raise InvalidData("there is a single training pair", remedy="give at least two: each is told from others")

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Half the cross-entropy from text to picture and half that back, of each pair of the batch, (batch,)."""
        text, image = sides(outputs[:, :-1])
        to_image, to_text = contrastive_losses(text, image, outputs[0, -1], batch["labels"])
        return (to_image + to_text) / 2

    def items(self, batch: Batch) -> int:
        """Pairs."""
        return len(batch["labels"])

    def answers(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Both embeddings, (batch, 2d)."""
        return outputs[:, :-1]

    def mean_loss(self, answers: Answers, labels: Labels) -> float:
        """The loss with the rows of blocks of 1,024 as negatives, at a temperature of .07: so epochs compare alike."""
        total, alike = 0.0, told_apart(labels)
        for start in range(0, len(answers), _COMPARED):
            rows = slice(start, start + _COMPARED)
            text, image = sides(torch.from_numpy(answers[rows]))
            scale = torch.tensor(FIRST_LOG_SCALE).exp()
            to_image, to_text = contrastive_losses(text, image, scale, torch.from_numpy(alike[rows]))
            total += float((to_image + to_text).sum()) / 2
        return total / max(1, len(answers))

    def figures(self, metric: str, answers: Answers, labels: Labels) -> Figures:
        """(n, 1): whether one of the picture's captions is among its first k of all different texts."""
        text, image = sides(answers)
        places = ranks(image, text, told_apart(labels)[:, ::-1])
        return (places < int(metric.removeprefix("recall_at_"))).astype(np.float64)[:, None]

    def same(self, first: Answers, second: Answers) -> npt.NDArray[np.bool_]:
        """Whether the picture finds the same text first, (n,)."""
        alike: npt.NDArray[np.bool_] = _found(first)[0] == _found(second)[0]
        return alike

    def contradicted(self, expected: Answers, exported: Answers) -> tuple[int, int]:
        """(pictures that find another text first, pictures) among those whose first text leads clearly."""
        found, leads = _found(expected)
        clear = leads >= _CLEAR_LEAD
        return int((found != _found(exported)[0])[clear].sum()), int(clear.sum())

    def quality(self, reference: Answers, exported: Answers, labels: Labels) -> Mapping[str, Any]:
        """Recall at 1, 5 and 10 both ways among all different texts or pictures, the file's with its interval; and what
        would show a collapse."""
        alike, found = told_apart(labels), {}
        for way, first in (("image_to_text", 1), ("text_to_image", 0)):
            places = {
                name: ranks(sides(one)[first], sides(one)[1 - first], alike[:, [first, 1 - first]])
                for name, one in (("reference", reference), ("exported", exported))
            }
            found[way] = {
                f"recall_at_{k}": {
                    **{name: rounded(float((one < k).mean())) for name, one in places.items()},
                    "ci95": _ends(places["exported"] < k),
                }
                for k in (1, 5, 10)
            }
        return {**found, "mean_cosine_between_images": rounded(mean_cosine(sides(exported)[1]))}

    def said(self, answers: Sequence[float]) -> Mapping[str, Any]:
        """How near the pair is, and the first numbers of both embeddings."""
        text, image = sides(np.asarray(answers, np.float64)[None])
        return {
            "cosine": round(float((text * image).sum()), 4) + 0.0,
            "text_embeds": [round(float(x), 4) + 0.0 for x in text[0, :_SHOWN]],
            "image_embeds": [round(float(x), 4) + 0.0 for x in image[0, :_SHOWN]],
        }

    def row_answers(self, answers: Answers, labels: Labels) -> Sequence[Mapping[str, Any]]:
        """The place, from 1, of the right text among all different ones, and the row of the text that is found."""
        text, image = sides(answers)
        places = ranks(image, text, told_apart(labels)[:, ::-1])
        found = _found(answers)[0]
        return [{"rank": rank + 1, "found": row} for rank, row in zip(places.tolist(), found.tolist(), strict=True)]


def _ends(hits: npt.NDArray[np.bool_]) -> list[float]:
    return [rounded(end) for end in wilson(int(hits.sum()), len(hits))]


def _found(answers: Answers) -> tuple[Labels, npt.NDArray[np.float64]]:
    text, image = sides(answers)
    return nearest(image, text)
