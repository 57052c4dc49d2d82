"""The small residual nets that are trained from scratch, as configurations. Knows no task."""

from typing import Any

from transformers import ResNetConfig


def resnet_config(name: str, channels: int, classes: int = 0) -> ResNetConfig:
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
