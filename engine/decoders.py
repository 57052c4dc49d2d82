"""Decoders as bases of language models: which architectures are served, and a GGUF file as a folder of safetensors.

Reading a GGUF file costs some ten seconds of processor time, so it is done once and kept. Knows no task.
"""

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from engine.gguf_weights import model_of

# Architectures whose head is one product over the last states, with nothing behind it: `engine.token_loss` relies on
# that. Each was read in transformers.
DECODERS = frozenset({"llama", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3"})


def is_decoder(folder: Path) -> bool:
    """Whether a folder holds a language model of an architecture that is served."""
    if _gguf_in(folder) is not None:
        return True
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") in DECODERS


def config_of(folder: Path) -> PreTrainedConfig:
    """The configuration of a folder's model, also where it stands in a GGUF file; no code of the folder is run."""
    file = _gguf_in(folder)
    if file is not None:
        return copy.deepcopy(_gguf_config(file))
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config


@cache
def _gguf_config(file: Path) -> PreTrainedConfig:
    """Read once a process: it takes seconds."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    return config


def _gguf_in(folder: Path) -> Path | None:
    if (folder / "config.json").is_file():
        return None
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def cache_dir() -> Path:
    """Where converted bases are kept: FIFTYTWO_CACHE_DIR, else in the data folder, else in the user's cache."""
    if own := os.environ.get("FIFTYTWO_CACHE_DIR"):
        return Path(own)
    if data := os.environ.get("FIFTYTWO_DATA_DIR"):
        return Path(data) / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fiftytwo"


def converted(folder: Path, told: Callable[[], None] = lambda: None) -> Path:
    """A folder in the Hugging Face layout with what a GGUF file in `folder` holds, in fp32; made on first use.

    It appears whole or not at all; of two processes that make it at once the first wins. `told` is called before it is
    made, since that takes a while.
    """
    file = _gguf_in(folder)
    if file is None:
        return folder
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    place = cache_dir() / "models" / f"{file.stem}-{digest[:12]}"
    if not place.is_dir():
        told()
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".converting-") as scratch:
            made = Path(scratch) / "model"
            convert(file, made)
            try:
                made.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
    return place


def convert(file: Path, out: Path) -> None:
    """Write a GGUF file's model, tokenizer and chat template into `out`, synced to the disk.

    Raises:
        InvalidData: for a model that is not of the Llama family.
    """
    model: Any = model_of(file, config_of(file.parent))
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out)
    for name in ("config.json", "generation_config.json"):  # equal files, whichever version wrote them
        path = out / name
        content = json.loads(path.read_text())
        content.pop("transformers_version", None)
        path.write_text(json.dumps(content, indent=2))
    for path in out.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
