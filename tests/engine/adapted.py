"""Models with PEFT's adapters, whose update is not zero as it would be before the first step."""

from typing import Any

import peft
from torch import nn

from engine.adapters import fuse


def adapted(model: nn.Module, *, fused: bool, **config: Any) -> Any:
    """The model with adapters as `peft.LoraConfig` takes them, computing in one go where `fused`."""
    made: Any = peft.get_peft_model(model, peft.LoraConfig(**config))
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    if fused:
        fuse(made)
    return made
