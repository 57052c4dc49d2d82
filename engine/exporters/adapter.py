"""Ships an adapter by itself, in PEFT's layout: small, and nothing without its base. Knows no instruction by name.

Who trained it writes it; the base stands in its configuration by name, and is looked up by that when it is read back.
"""

import json
import warnings
from pathlib import Path

from torch import nn

from engine.errors import InvalidData
from engine.lazy import peft
from engine.models import Base, find, models_dir
from engine.run import Run

FILE, ABOUT = "adapter_model.safetensors", "adapter_config.json"


def write_adapter(run: Run, model: nn.Module, folder: Path) -> Path:
    """Write the adapter's two files into `folder`; the model itself, in which it is merged, stays behind.

    Raises:
        InvalidData: where the plan trained none.
    """
    for one in run.plan.instructions:
        if "adapters" in one.provides and "adapter" in one.artifacts(run, folder):
            return folder / FILE
    raise InvalidData("there is no adapter to ship", remedy="add low_rank_adaptation (19) with keep_adapter")


def base_of(folder: Path) -> Base:
    """The base model of an adapter's folder, by its name.

    Raises:
        InvalidData: where this machine does not have it.
    """
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return find(str(about["base_model_name_or_path"]), models_dir())


def with_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """An untouched base with the adapter of a folder beside its layers."""
    with warnings.catch_warnings():
        # PEFT asks transformers for a name that is about to go.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        adapted: nn.Module = peft().PeftModel.from_pretrained(model, folder)
    return adapted.eval()
