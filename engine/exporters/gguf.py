"""Writes a decoder of the Llama family as GGUF, the file that llama.cpp and Ollama run, and reads it back.

Weights go by llama.cpp's names; the rows of queries and keys are put into its order of rotary halves; norms stay in
fp32. Tokens, merges, special ids and the chat template travel in the file's metadata.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from engine.errors import InvalidData
from engine.lazy import gguf
from engine.run import Run

FILE = "model.gguf"
_BLOCK = 32  # Q8_0 has one scale for so many weights of a row
_INSTEAD = "set export.format to safetensors"
_SPECIAL_IDS = ("bos", "eos", "pad", "unk")


def write_gguf(run: Run, model: nn.Module, folder: Path, *, number: str) -> Path:
    """Write model.gguf and a Modelfile into `folder`.

    Args:
        number: "F16" or "Q8_0", the format of matrices.

    Raises:
        InvalidData: for a model that is not of the Llama family, or of which llama.cpp would compute something else.
    """
    config = vars(model)["config"]
    _check(config)
    library = gguf()
    writer = library.GGUFWriter(folder / FILE, "llama")
    _about(writer, library, config, number)
    _tokens(writer, library, vars(run.task)["tokenizer"], config.vocab_size)
    names = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in sorted(model.state_dict().items()):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = _rotary(name, weight.detach().float().cpu().numpy(), config)
        kind = _kind(library, values, number)
        data = values if kind is library.GGMLQuantizationType.F32 else library.quants.quantize(values, kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # Ollama takes the chat template and the end of an answer out of the file itself.
    (folder / "Modelfile").write_text(f"FROM ./{FILE}\n")
    return folder / FILE


def _check(config: Any) -> None:
    scaling = config.rope_parameters.get("rope_type", "default") if config.model_type == "llama" else "default"
    if config.model_type != "llama":
        wrong = f"for models of type llama; this one is {config.model_type}"
    elif scaling != "default":
        wrong = f"without scaled rotary positions; this model has them of the kind {scaling}"
    elif config.attention_bias or config.mlp_bias:
        wrong = "for layers without biases; this model has some"
    else:
        return
    raise InvalidData(f"gguf is written {wrong}", remedy=_INSTEAD)


def load_gguf(folder: Path) -> nn.Module:
    """The model of a folder's GGUF in fp32, as transformers reads it."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    return model


write_f16 = partial(write_gguf, number="F16")
write_q8_0 = partial(write_gguf, number="Q8_0")


def _about(writer: Any, library: Any, config: Any, number: str) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_file_type(library.LlamaFileType.MOSTLY_F16 if number == "F16" else library.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_rope_dimension_count(width)
    if width * heads != config.hidden_size:  # which llama.cpp would take for granted
        writer.add_key_length(width)
        writer.add_value_length(width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_vocab_size(config.vocab_size)


def _tokens(writer: Any, library: Any, tokenizer: Any, size: int) -> None:
    """The vocabulary of a byte-level BPE tokenizer, padded to the size of the embedding."""
    described: Mapping[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    splitting = _splitting(described)
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    special = {one["id"] for one in described["added_tokens"] if one["special"]}
    added = {one["id"] for one in described["added_tokens"]}
    kinds = library.TokenType
    tokens, types = [], []
    for number in range(size):
        tokens.append(by_id.get(number, f"[PAD{number}]"))
        types.append(
            kinds.UNUSED
            if number not in by_id
            else kinds.CONTROL
            if number in special
            else kinds.USER_DEFINED
            if number in added
            else kinds.NORMAL
        )
    merges = described["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    for name in _SPECIAL_IDS:
        if (special_id := getattr(tokenizer, f"{name}_token_id", None)) is not None:
            getattr(writer, f"add_{name}_token_id")(int(special_id))
    whole = tokenizer.backend_tokenizer.encode("a").ids
    for name, outermost in (("bos", whole[0]), ("eos", whole[-1])):
        if outermost == getattr(tokenizer, f"{name}_token_id", None):  # else llama.cpp would leave it out
            getattr(writer, f"add_add_{name}_token")(True)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _splitting(described: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a text is split before the merges: as GPT-2 does it, perhaps digits one by one before.

    Raises:
        InvalidData: for any other tokenizer: llama.cpp would read other tokens than the model was trained on.
    """
    model, first = described["model"], described.get("pre_tokenizer") or {}
    parts = first.get("pretokenizers", [first])
    digits = bool(parts) and parts[0].get("type") == "Digits" and parts[0].get("individual_digits")
    rest = parts[1:] if digits else parts
    last = rest[0] if len(rest) == 1 else {}
    plain = last.get("type") == "ByteLevel" and last.get("use_regex", True) and not last.get("add_prefix_space", True)
    if model["type"] != "BPE" or model.get("byte_fallback") or described.get("normalizer") or not plain:
        kind = f"{model['type']} behind {' and '.join(str(one.get('type')) for one in parts)}"
        raise InvalidData(
            f"gguf is written for BPE tokenizers that split as GPT-2; this one is {kind}", remedy=_INSTEAD
        )
    return "smollm" if digits else "gpt-2"


def _rotary(name: str, values: npt.NDArray[np.float32], config: Any) -> npt.NDArray[np.float32]:
    """Queries and keys from halves that lie behind one another to pairs that lie beside one another, head by head."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = heads.get(name.split(".")[-2])
    if count is None:
        return values
    halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def _kind(library: Any, values: npt.NDArray[np.float32], number: str) -> Any:
    kinds = library.GGMLQuantizationType
    if values.ndim < 2:
        return kinds.F32
    return kinds.Q8_0 if number == "Q8_0" and values.shape[-1] % _BLOCK == 0 else kinds.F16
