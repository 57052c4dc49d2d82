"""One label for a picture. Knows residual nets from a configuration; knows no instruction."""

import copy
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig, ResNetForImageClassification

from engine.errors import InvalidData
from engine.models import Base
from engine.ports import Batch, Cost, Example, Payload, Samples
from engine.rows import Rows
from engine.tasks.classification import Classification

_GREY_MODES = {"1", "L", "LA", "I", "I;16", "F"}
_LOOKED_AT = 256


class _Exportable(nn.Module):
    """The net as a function of one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def _config(name: str, channels: int, classes: int) -> ResNetConfig:
    """`resnet-18` is the net of He et al. 2016; `resnet-small` has half of its widths and three of its stages."""
    small: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [2, 2, 2]}
    eighteen: dict[str, Any] = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    return ResNetConfig(
        num_channels=channels,
        layer_type="basic",
        downsample_in_first_stage=False,
        id2label={index: str(index) for index in range(classes)},
        **(small if name == "resnet-small" else eighteen),
    )


class ImageClassification(Classification):
    """A residual net trained from scratch at the pictures' own size."""

    name: ClassVar[str] = "image_classification"
    default_model: ClassVar[str] = "resnet-small"
    pretrained: bool = False

    def __init__(
        self,
        base: Base,
        labels: Sequence[str],
        size: tuple[int, int],
        mode: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.base = base
        self.labels = tuple(labels)
        self.size = size
        self.mode = mode
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.config = _config(base.name, len(self.mean), len(labels))

    @classmethod
    def open(cls, base: Base, labels: Sequence[str], rows: Rows, max_length: int) -> "ImageClassification":
        """Take size, channels and pixel statistics from the first training pictures."""
        train = rows.where("train")
        pictures = [Image.open(io.BytesIO(_bytes(train.payloads[i]))) for i in range(min(_LOOKED_AT, len(train)))]
        if not pictures:
            raise InvalidData("there is no training picture", remedy="give the training split at least one row a class")
        (width, height), _ = Counter(picture.size for picture in pictures).most_common(1)[0]
        if base.name == "resnet-small" and not (min(width, height) >= 8 and max(width, height) <= 64):
            raise InvalidData(
                f"resnet-small takes pictures of 8 to 64 pixels; these are {width} x {height}",
                remedy="choose resnet-18, or resize the pictures",
            )
        mode = "L" if all(picture.mode in _GREY_MODES for picture in pictures) else "RGB"
        scaled = np.stack([_pixels(picture, mode, (height, width)) for picture in pictures]) / 255.0
        mean, std = scaled.mean(axis=(0, 2, 3)), scaled.std(axis=(0, 2, 3))
        return cls(
            base,
            labels,
            (height, width),
            mode,
            [round(float(m), 6) for m in mean],
            [round(max(float(s), 1e-3), 6) for s in std],
        )

    @classmethod
    def cost(cls, base: Base, max_length: int) -> Cost:
        """For a colour picture of 32 pixels, counted on the meta device."""
        with torch.device("meta"):
            model = ResNetForImageClassification(_config(base.name, 3, 10)).eval()
            picture = torch.empty(1, 3, 32, 32)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            model(pixel_values=picture)
        operations = float(counted.get_total_flops())
        return Cost(sum(weight.numel() for weight in model.parameters()), operations, int(operations / 100))

    def build(self) -> nn.Module:
        """A fresh net in fp32."""
        return ResNetForImageClassification(copy.deepcopy(self.config))

    def encode(self, payloads: Sequence[Payload]) -> list[Example]:
        """Decoded pixels (channels, height, width) uint8, resized where the size differs."""
        return [_pixels(Image.open(io.BytesIO(_bytes(payload))), self.mode, self.size) for payload in payloads]

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """1 a picture, (n,): all cost the same."""
        return np.ones(len(examples), dtype=np.int64)

    def collate(self, examples: Sequence[Example], labels: Sequence[int]) -> Batch:
        """`pixel_values` (batch, channels, height, width) fp32, normalised; `labels` (batch,) int64."""
        shape = (len(self.mean), 1, 1)
        pixels = torch.from_numpy(
            np.stack(examples) if examples else np.zeros((0, len(self.mean), *self.size), np.uint8)
        )
        mean, std = torch.tensor(self.mean).view(shape), torch.tensor(self.std).view(shape)
        return {
            "pixel_values": (pixels.float() / 255.0 - mean) / std,
            "labels": torch.tensor(labels, dtype=torch.int64),
        }

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = model(pixel_values=batch["pixel_values"]).logits
        return logits

    def exportable(self, model: nn.Module) -> nn.Module:
        """The net in evaluation mode."""
        return _Exportable(model).eval()

    def samples(self, payloads: Sequence[Payload]) -> Samples:
        """Two pictures; the batch is free."""
        batch = self.collate(self.encode(payloads), [0] * len(payloads))
        return Samples({"pixel_values": batch["pixel_values"]}, {"pixel_values": {0: "batch"}})

    def describe(self, folder: Path, model: nn.Module, preprocess: Sequence[Mapping[str, Any]]) -> None:
        """config.json, labels.json and preprocessor_config.json."""
        config = json.loads(self.config.to_json_string(use_diff=True))
        own = {"task": self.name, "max_length": None, "preprocess": list(preprocess)}
        named = {"id2label": dict(enumerate(self.labels)), "label2id": {name: i for i, name in enumerate(self.labels)}}
        processor = {
            "do_resize": True,
            "size": {"height": self.size[0], "width": self.size[1]},
            "resample": int(Image.Resampling.BILINEAR),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "image_mode": self.mode,
        }
        (folder / "config.json").write_text(json.dumps({**config, **named, **own}, indent=2))
        (folder / "labels.json").write_text(json.dumps(list(self.labels), ensure_ascii=False, indent=2))
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))


def _bytes(payload: Payload) -> bytes:
    if isinstance(payload, str):
        raise TypeError("a picture comes as bytes")
    return payload


def _pixels(picture: Image.Image, mode: str, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(channels, height, width) uint8."""
    converted = picture.convert(mode)
    if converted.size != (size[1], size[0]):
        converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()
