"""The weights of a GGUF file of the Llama family, by the names that transformers gives them; `engine.exporters.gguf`
is the other direction.

transformers' own reader maps names anew for each of a model's modules and builds the model twice: that took twice as
long, with a bar of its own. Knows no tokenizer.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from engine.errors import InvalidData
from engine.lazy import gguf


def model_of(file: Path, config: PreTrainedConfig) -> nn.Module:
    """The file's model in fp32.

    Raises:
        InvalidData: for another architecture, and where a tensor of the model is missing.
    """
    if config.model_type != "llama":
        raise InvalidData(
            f"{file.name} holds a model of type {config.model_type}; GGUF is read for models of type llama",
            remedy="give the model as a folder with config.json and safetensors weights",
        )
    with torch.device("meta"):  # names and shapes; no weight is drawn that the file then overwrites
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    found = _weights(file, config, model)
    if config.tie_word_embeddings:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    if missing := sorted(set(model.state_dict()) - set(found)):
        raise InvalidData(f"{file.name} lacks {', '.join(missing[:5])}", remedy="give a whole model")
    model.load_state_dict(found, assign=True)
    model.tie_weights()  # type: ignore[operator]  # a method of every transformers model
    return model


def _weights(file: Path, config: PreTrainedConfig, model: nn.Module) -> dict[str, torch.Tensor]:
    library = gguf()
    names = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    ours = {names.get_name(name, try_suffixes=(".weight",)): name for name in model.state_dict()}
    found = {}
    for tensor in library.GGUFReader(file).tensors:
        if name := ours.get(tensor.name):
            values = library.dequantize(tensor.data, tensor.tensor_type)
            found[name] = torch.from_numpy(np.array(_halves(name, values, config), dtype=np.float32))
    return found


def _halves(name: str, values: npt.NDArray[np.float32], config: PreTrainedConfig) -> npt.NDArray[np.float32]:
    """Queries and keys from rotary pairs that lie beside one another to halves that lie behind one another."""
    heads: Mapping[str, int] = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = heads.get(name.split(".")[-2])
    if count is None:
        return values
    pairs = values.reshape(count, values.shape[0] // count // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
