"""Features of an encoder's attention as a graph of their own, and what clean rows' are like. Knows no instruction.

The article averages weights over the batch and over padding and lets them grow with length. Here a text is read alone,
so nothing is padding; special tokens ask no questions; entropy is a share of the largest that a length allows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from client.artifact import Package
from client.attention import FILE, AttentionLaw, Matrix, features_of, length_terms, without_length
from engine.export import canonical, trace
from engine.lazy import sklearn_covariance
from engine.ports import Payload, Samples, Task

_TINY = 1e-12


class AttentionFeatures(nn.Module):
    """The encoder as a function from tokens to features (batch, k); a text begins and ends with a special token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Entropy a head, divergence of adjacent layers, entropy received a layer, and mass on the special tokens."""
        said = self.model(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True)
        weights = torch.stack(said.attentions, dim=1)  # (batch, layers, heads, queries, keys), rows sum to 1
        largest = attention_mask.sum(dim=1).float().log().view(-1, 1, 1)
        asked = weights[:, :, :, 1:-1]
        entropy = _entropy(asked).mean(dim=-1) / largest
        layers = asked.mean(dim=2)
        apart = _divergence(layers[:, :-1], layers[:, 1:]).mean(dim=-1)
        received = _entropy(layers.mean(dim=2)) / largest[..., 0]
        special = (layers[..., 0] + layers[..., -1]).mean(dim=-1)
        return torch.cat([entropy.flatten(1), apart, received, special], dim=1)


def _entropy(shares: Tensor) -> Tensor:
    """Of shares that sum to 1 along the last axis, in nats."""
    return -(shares * (shares + _TINY).log()).sum(dim=-1)


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen and Shannon's, along the last axis."""
    return _entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2


def export_attention(task: Task, model: nn.Module, payloads: Sequence[Payload], folder: Path) -> Path:
    """Write attention.onnx beside the model's own file; as large as an fp32 encoder."""
    task.exportable(model)  # attention in its plain form, which is the one that returns its weights
    samples = task.samples(payloads)
    own = Samples(samples.inputs, samples.dynamic, outputs=("features",))
    path = folder / FILE
    path.write_bytes(canonical(trace(AttentionFeatures(model).eval(), own)))
    return path


def fit_law(package: Package, texts: Sequence[Payload]) -> AttentionLaw:
    """What the features of clean training rows are like, with Ledoit and Wolf's covariance."""
    features, lengths = read_features(package, texts)
    terms = length_terms(lengths)
    slopes = _regressed(terms, features)
    # A short text has few words to average over, so its features spread more: without this the distance is a length.
    spread = _regressed(terms, np.abs(features - terms @ slopes))
    fitted = sklearn_covariance().LedoitWolf().fit(without_length(features, lengths, slopes, spread))
    return AttentionLaw(slopes, spread, fitted.location_, fitted.precision_)


def _regressed(terms: Matrix, values: Matrix) -> Matrix:
    """Least squares: coefficients (3, k)."""
    return np.asarray(np.linalg.lstsq(terms, values, rcond=None)[0], dtype=np.float64)


def read_features(package: Package, texts: Sequence[Payload]) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Features (rows, k) and lengths in tokens (rows,), each text read alone."""
    feeds = [package.feeds([str(text)]) for text in texts]
    rows = [features_of(package, one) for one in feeds]
    return np.stack(rows), np.array([one["input_ids"].shape[1] for one in feeds], dtype=np.int64)
