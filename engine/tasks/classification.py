"""What the tasks with one label a row share: their answers are logits (n, classes). Knows no model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.errors import InvalidData
from engine.evaluate import Figures, Labels, accuracy, class_figures, macro_f1, recalls, rounded
from engine.ports import Answers, Batch
from engine.rows import Rows

# A row speaks against the file where it answers otherwise though the model led by this many logits (odds of 1.6 to 1):
# what rounding alone does to a sound file stays far below.
_CLEAR_LEAD = 0.5


class Classification:
    """One label a row."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    labels: tuple[str, ...]

    @classmethod
    def check(cls, rows: Rows) -> None:
        """Refuse training rows that teach nothing."""
        if len(np.unique(rows.labels)) < 2:
            raise InvalidData("the training rows hold a single class", remedy="give rows of at least two classes")

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of each example in fp32, (batch,)."""
        return nn.functional.cross_entropy(outputs.float(), batch["labels"], reduction="none")

    def items(self, batch: Batch) -> int:
        """Rows."""
        return len(batch["labels"])

    def answers(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The logits."""
        return outputs

    def mean_loss(self, answers: Answers, labels: Labels) -> float:
        """Mean cross-entropy."""
        return float(self.losses(torch.from_numpy(answers), {"labels": torch.from_numpy(labels)}).mean())

    def figures(self, metric: str, answers: Answers, labels: Labels) -> Figures:
        """(n, 3): right or wrong, the class, the answered class."""
        return class_figures(labels, winners(answers))

    def same(self, first: Answers, second: Answers) -> npt.NDArray[np.bool_]:
        """Whether the same class wins, (n,)."""
        alike: npt.NDArray[np.bool_] = winners(first) == winners(second)
        return alike

    def contradicted(self, expected: Answers, exported: Answers) -> tuple[int, int]:
        """(rows that another class wins, rows) among those where the first leads clearly."""
        ordered = np.sort(expected, axis=1)
        clear = ordered[:, -1] - ordered[:, -2] >= _CLEAR_LEAD
        return int((~self.same(expected, exported))[clear].sum()), int(clear.sum())

    def quality(self, reference: Answers, exported: Answers, labels: Labels) -> Mapping[str, Any]:
        """Accuracy, macro-F1 and recall a class."""
        was, now = winners(reference), winners(exported)
        return {
            "accuracy": {"reference": rounded(accuracy(labels, was)), "exported": rounded(accuracy(labels, now))},
            "macro_f1": {"reference": rounded(macro_f1(labels, was)), "exported": rounded(macro_f1(labels, now))},
            "recall": {
                name: None if one is None else rounded(one)
                for name, one in zip(self.labels, recalls(labels, now, len(self.labels)), strict=True)
            },
        }

    def said(self, answers: Sequence[float]) -> Mapping[str, Any]:
        """The winning label, and the logits that it won by."""
        return {
            "label": self.labels[int(np.argmax(answers))],
            "logits": [round(float(x), 4) + 0.0 for x in answers],
        }

    def row_answers(self, answers: Answers, labels: Labels) -> Sequence[Mapping[str, Any]]:
        """The true label and the winning one."""
        return [
            {"label": self.labels[truth], "predicted": self.labels[said]}
            for truth, said in zip(labels.tolist(), winners(answers).tolist(), strict=True)
        ]


def winners(answers: Answers) -> Labels:
    """The winning class of each row, (n,)."""
    found: Labels = answers.argmax(axis=1).astype(np.int64)
    return found
