"""Writes a model as others load it by `from_pretrained`: one safetensors file in transformers' own names."""

from pathlib import Path

from torch import nn

from engine.run import Run


def write_hugging_face(run: Run, model: nn.Module, folder: Path) -> Path:
    """Write model.safetensors into `folder`; the task describes the rest.

    transformers writes it, since it knows which names a model has on disk: experts lie there one by one, and tied
    weights once.
    """
    model.save_pretrained(folder, max_shard_size="1000GB")  # type: ignore[operator]  # of every transformers model
    return folder / "model.safetensors"
