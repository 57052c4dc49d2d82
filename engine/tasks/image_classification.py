"""One label for a picture. Knows residual nets from a configuration; knows no instruction."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig, ResNetForImageClassification

from engine.archive import load_checkpoint
from engine.errors import InvalidData
from engine.models import Base
from engine.pictures import Pictures, spread
from engine.ports import Batch, Cost, Example, Payload, Samples, image_of
from engine.resnets import resnet_config
from engine.rows import Rows
from engine.tasks.classification import Classification


class _Exportable(nn.Module):
    """The net as a function of one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class ImageClassification(Classification):
    """A residual net trained from scratch at the pictures' own size."""

    name: ClassVar[str] = "image_classification"
    default_model: ClassVar[str] = "resnet-small"
    pretrained: bool = False

    def __init__(self, base: Base, labels: Sequence[str], pictures: Pictures) -> None:
        self.base = base
        self.labels = tuple(labels)
        self.pictures = pictures
        self.config = resnet_config(base.name, pictures.channels, len(labels))

    @classmethod
    def open(cls, base: Base, labels: Sequence[str], rows: Rows, max_length: int) -> "ImageClassification":
        """Take size, channels and pixel statistics from training pictures."""
        train = rows.where("train")
        pictures = Pictures.of([image_of(train.payloads[i]) for i in spread(len(train))])
        height, width = pictures.size
        if base.name == "resnet-small" and not (min(width, height) >= 8 and max(width, height) <= 64):
            raise InvalidData(
                f"resnet-small takes pictures of 8 to 64 pixels; these are {width} x {height}",
                remedy="choose resnet-18, or resize the pictures",
            )
        return cls(base, labels, pictures)

    @classmethod
    def reopen(cls, folder: Path) -> "ImageClassification":
        """The task of a checkpoint's folder; `build` then gives its weights, in its own shapes."""
        about = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        size = (int(about["size"]["height"]), int(about["size"]["width"]))
        mean, std = tuple(about["image_mean"]), tuple(about["image_std"])
        task = cls(Base(folder.name, folder), labels, Pictures(size, about["image_mode"], mean, std, about["resample"]))
        task.config = ResNetConfig.from_pretrained(folder, num_labels=len(labels))
        return task

    @classmethod
    def cost(cls, base: Base, max_length: int) -> Cost:
        """For a colour picture of 32 pixels, counted on the meta device."""
        with torch.device("meta"):
            model = ResNetForImageClassification(resnet_config(base.name, 3, 10)).eval()
            picture = torch.empty(1, 3, 32, 32)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            model(pixel_values=picture)
        operations = float(counted.get_total_flops())
        return Cost(sum(weight.numel() for weight in model.parameters()), operations, int(operations / 100))

    def build(self) -> nn.Module:
        """A fresh net in fp32; of a checkpoint, its own."""
        fresh = ResNetForImageClassification(copy.deepcopy(self.config))
        return fresh if self.base.folder is None else load_checkpoint(self.base.folder, fresh)

    def encode(self, payloads: Sequence[Payload]) -> list[Example]:
        """Decoded pixels (channels, height, width) uint8, resized where the size differs."""
        return [self.pictures.pixels(image_of(payload)) for payload in payloads]

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """1 a picture, (n,): all cost the same."""
        return np.ones(len(examples), dtype=np.int64)

    def collate(self, examples: Sequence[Example], labels: Sequence[int]) -> Batch:
        """`pixel_values` (batch, channels, height, width) fp32, normalised; `labels` (batch,) int64."""
        return {
            "pixel_values": self.pictures.normalised(examples),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (batch, classes).

        Raises:
            InvalidData: in training, for one picture so small that batch norm sees one value of it a channel.
        """
        try:
            logits: Tensor = model(pixel_values=batch["pixel_values"]).logits
        except ValueError as error:
            if len(batch["pixel_values"]) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise InvalidData(
                "a batch of one picture of this size leaves batch norm nothing to vary",
                remedy="set training.batch_size to 2 at least, better 16 or more",
            ) from error
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
        (folder / "config.json").write_text(json.dumps({**config, **named, **own}, indent=2))
        (folder / "labels.json").write_text(json.dumps(list(self.labels), ensure_ascii=False, indent=2))
        (folder / "preprocessor_config.json").write_text(json.dumps(self.pictures.processor(), indent=2))
