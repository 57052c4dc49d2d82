"""What a language model's answers mean: nats, target tokens and bytes of each row (n, 3). Knows no model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.evaluate import Figures, Labels, interval, rounded
from engine.ports import Answers, Batch
from engine.token_loss import IGNORED

_MOST_NATS_APART = 0.25  # a token: 8-bit weights move a sound file's likelihood by a tenth of this


class Likelihood:
    """The likelihood of each row's targets.

    Outputs are the losses of tokens (parts, length - 1); `rows` of a batch tells which row a part is of, where a row
    has several.
    """

    metrics: ClassVar[tuple[str, ...]] = ("bits_per_byte",)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The sum over the targets of each row, (batch,), fp32."""
        return _by_row(outputs.sum(dim=1)[:, None], batch)[:, 0]

    def items(self, batch: Batch) -> int:
        """Target tokens."""
        return int(_targets(batch).sum())

    def answers(self, outputs: Tensor, batch: Batch) -> Tensor:
        """(batch, 3): nats, target tokens and their bytes."""
        sizes = batch["target_bytes"][:, 1:].sum(dim=1)
        columns = [outputs.sum(dim=1).float(), _targets(batch).sum(dim=1).float(), sizes.float()]
        return _by_row(torch.stack(columns, dim=1), batch)

    def mean_loss(self, answers: Answers, labels: Labels) -> float:
        """Nats a target token."""
        nats, tokens = (float(answers[:, column].sum(dtype=np.float64)) for column in (0, 1))
        return nats / max(1.0, tokens)

    def figures(self, metric: str, answers: Answers, labels: Labels) -> Figures:
        """(n, 2): nats and bytes."""
        return answers[:, [0, 2]].astype(np.float64)

    def same(self, first: Answers, second: Answers) -> npt.NDArray[np.bool_] | None:
        """None: two likelihoods are never the same answer, only nearer or farther."""
        return None

    def contradicted(self, expected: Answers, exported: Answers) -> tuple[int, int]:
        """(rows whose likelihood a token is another one, rows with targets)."""
        tokens = expected[:, 1]
        apart = np.abs(exported[:, 0] - expected[:, 0]) > _MOST_NATS_APART * np.maximum(1.0, tokens)
        return int((apart & (tokens > 0)).sum()), int((tokens > 0).sum())

    def quality(self, reference: Answers, exported: Answers, labels: Labels) -> Mapping[str, Any]:
        """Perplexity a token of this model's tokenizer, the file's with its interval, and what the scores rest on."""
        found = {"reference": reference, "exported": exported}
        perplexity: dict[str, Any] = {name: rounded(_perplexity(one[:, :2])) for name, one in found.items()}
        # Of nats a token, which few rows widen evenly: a perplexity's own interval would reach below 1.
        ends = interval(exported[:, :2].astype(np.float64), _nats_a_token)
        perplexity["ci95"] = [rounded(_power(max(0.0, end))) for end in ends]
        tokens, sizes = (int(exported[:, column].sum(dtype=np.float64)) for column in (1, 2))
        return {"perplexity": perplexity, "target_tokens": tokens, "target_bytes": sizes}

    def said(self, answers: Sequence[float]) -> Mapping[str, Any]:
        """How likely a row is to the model."""
        nats, tokens, sizes = answers
        return {"nats": round(float(nats), 4), "target_tokens": int(tokens), "target_bytes": int(sizes)}

    def row_answers(self, answers: Answers, labels: Labels) -> Sequence[Mapping[str, Any]]:
        """The bits and the bytes of the targets."""
        return [
            {"bits": round(nats / float(np.log(2)), 4), "bytes": int(sizes)}
            for nats, _, sizes in answers.astype(np.float64).tolist()
        ]


def _perplexity(rows: npt.NDArray[Any]) -> float:
    return _power(_nats_a_token(rows))


def _nats_a_token(rows: npt.NDArray[Any]) -> float:
    """Of (n, 2): nats and target tokens of each row."""
    nats, tokens = rows.sum(axis=0, dtype=np.float64)
    return float(nats / max(1.0, tokens))


def _power(nats: float) -> float:
    return float(np.exp(min(700.0, nats)))


def _targets(batch: Batch) -> Tensor:
    return batch["labels"][:, 1:] != IGNORED


def _by_row(values: Tensor, batch: Batch) -> Tensor:
    """Sums over the parts of each row: (parts, k) to (rows, k)."""
    rows = batch.get("rows")
    if rows is None:
        return values
    return values.new_zeros((int(rows[-1]) + 1, values.shape[1])).index_add(0, rows, values)
