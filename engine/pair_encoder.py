"""A dual encoder of our own: a BERT for texts and a small residual net for pictures in one space. Knows no task.

Its towers and projections are named as those of transformers' CLIPModel, so that what is done to the one can be done to
the other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

from engine.contrastive import FIRST_LOG_SCALE

_HIDDEN, _DROPOUT = 512, 0.3


class Embedded(NamedTuple):
    """Both sides of some pairs, (batch, dimension) fp32 each, rows of length 1."""

    text_embeds: Tensor
    image_embeds: Tensor


@dataclass
class PairEncoderConfig:
    """The towers and the dimension of the space; None: the text tower's own, whose space is taken as it is."""

    text_config: BertConfig
    vision_config: ResNetConfig
    projection_dim: int | None = None

    @property
    def dimension(self) -> int:
        """Numbers of an embedding."""
        return self.projection_dim or int(self.text_config.hidden_size)

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "architectures": ["PairEncoder"],
            "model_type": "pair_encoder",
            "text_config": json.loads(self.text_config.to_json_string(use_diff=True)),
            "vision_config": json.loads(self.vision_config.to_json_string(use_diff=True)),
            "projection_dim": self.dimension,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "PairEncoderConfig":
        """Read what `to_json` wrote; further keys are left alone."""
        return cls(
            BertConfig.from_dict(content["text_config"]),
            ResNetConfig.from_dict(content["vision_config"]),
            int(content["projection_dim"]),
        )

    @classmethod
    def from_pretrained(cls, folder: Path) -> "PairEncoderConfig":
        """Read the configuration of a folder."""
        return cls.from_json(json.loads((folder / "config.json").read_text()))


class PairEncoder(nn.Module):
    """Mean-pooled BERT, residual net with a hidden layer behind it, and the log of an inverse temperature.

    A projection of the texts stands only where the space has another dimension than they: with a thousand pairs it
    learns the training captions by heart.

    Source: Radford et al. 2021 (2103.00020), section 2.3; Reimers and Gurevych 2019 (1908.10084) for the mean.
    """

    config_class = PairEncoderConfig

    def __init__(self, config: PairEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = BertModel(config.text_config, add_pooling_layer=False)
        self.vision_model = ResNetModel(config.vision_config)
        self.text_projection = _text_projection(config.text_config.hidden_size, config.dimension)
        self.visual_hidden = nn.Sequential(
            nn.Dropout(_DROPOUT), nn.Linear(list(config.vision_config.hidden_sizes or ())[-1], _HIDDEN), nn.ReLU()
        )
        self.visual_projection = nn.Linear(_HIDDEN, config.dimension, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_LOG_SCALE))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> Embedded:
        """Embed texts (batch, sequence) and pictures (batch, channels, height, width)."""
        return Embedded(self.text_embeds(input_ids, attention_mask), self.image_embeds(pixel_values))

    def text_embeds(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, dimension): the mean over the tokens that are no padding."""
        hidden = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return nn.functional.normalize(self.text_projection(mean).float(), dim=-1)

    def image_embeds(self, pixel_values: Tensor) -> Tensor:
        """(batch, dimension): the mean over the places of a picture, through the hidden layer."""
        features = self.vision_model(pixel_values=pixel_values).pooler_output.flatten(1)
        return nn.functional.normalize(self.visual_projection(self.visual_hidden(features)).float(), dim=-1)

    def save_pretrained(self, folder: Path) -> None:
        """config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config.to_json(), indent=2))
        state = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "PairEncoder":
        """What `save_pretrained` wrote, or a checkpoint whose shapes are those of its configuration."""
        model = cls(PairEncoderConfig.from_pretrained(folder))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.to(dtype)


def set_dimension(model: nn.Module, dimension: int) -> bool:
    """Give the space of a dual encoder so many dimensions; whether it had others, so that projections start afresh."""
    visual = model.get_submodule("visual_projection")
    assert isinstance(visual, nn.Linear)
    if visual.out_features == dimension:
        return False
    text, device = model.get_submodule("text_projection"), visual.weight.device
    config = vars(model)["config"]
    width = text.in_features if isinstance(text, nn.Linear) else int(config.text_config.hidden_size)
    fresh = _text_projection(width, dimension) if isinstance(model, PairEncoder) else _linear(width, dimension)
    model.set_submodule("text_projection", fresh.to(device))
    model.set_submodule("visual_projection", nn.Linear(visual.in_features, dimension, bias=False).to(device))
    config.projection_dim = dimension
    return True


def _text_projection(width: int, dimension: int) -> nn.Module:
    return nn.Identity() if width == dimension else _linear(width, dimension)


def _linear(width: int, dimension: int) -> nn.Linear:
    """A projection that leaves distances as they are, as far as the dimensions go."""
    linear = nn.Linear(width, dimension, bias=False)
    nn.init.orthogonal_(linear.weight)
    return linear
