"""Which blocks of a trained model become its student, and a model of these alone. Knows no run and no task."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from engine.coupling import Unfit
from engine.pruning import blocks_in, encoder_of, set_blocks

# Decoders whose layers are all alike, so that a configuration with another number of them says everything.
EVEN_DECODERS = frozenset({"llama", "qwen2", "qwen3"})


def student_blocks(model: nn.Module, layers: int | None) -> dict[str, list[int]]:
    """By list of blocks the numbers of those that stay; `layers` of them in all, None: half.

    Of an encoder or a decoder they are spread evenly, the first and the last among them where there are two. Of a
    residual net the first of each stage stays, which changes width and size, and the others are spread over the stages.

    Raises:
        Unfit: where they are not fewer, or the model has none that could be left out.
    """
    name, depth = _stack(model)
    if depth:
        return {name: spread_blocks(depth, max(1, depth // 2) if layers is None else layers)}
    stages = {name: len(blocks_in(module)) for name, module in model.named_modules() if blocks_in(module)}
    if not stages:
        raise Unfit("layers", f"{type(model).__name__} has no layers that could be left out", "choose another model")
    return _of_stages(stages, layers)


def student(model: nn.Module, kept: Mapping[str, Sequence[int]]) -> nn.Module:
    """Keep these blocks alone, in place; the configuration says how many there are, where it can."""
    for name, numbers in kept.items():
        blocks: Any = model.get_submodule(name)  # a list of modules
        set_blocks(model, name, [blocks[number] for number in numbers])
        if _is_decoder(model):
            _number_layers(model, name, numbers)
    return model


def spread_blocks(depth: int, count: int) -> list[int]:
    """The numbers of `count` of `depth` blocks, evenly spread, the first and the last among them where there are two.

    Raises:
        Unfit: where these are not fewer.
    """
    if count >= depth:
        detail = f"a student of {count} layers is not smaller than its teacher of {depth}"
        raise Unfit("layers", detail, f"choose at most {depth - 1} layers" if depth > 1 else "choose another model")
    return [round(number * (depth - 1) / max(1, count - 1)) for number in range(count)]


def _of_stages(stages: Mapping[str, int], layers: int | None) -> dict[str, list[int]]:
    depth, least = sum(stages.values()), len(stages)
    if depth == least:
        detail = f"a residual net of one block in each of {least} stages has none that could be left out"
        raise Unfit("layers", detail, "choose another model")
    count = max(least, depth // 2) if layers is None else layers
    if count < least:
        detail = f"a residual net of {least} stages keeps a block of each, so {count} layers are too few"
        raise Unfit("layers", detail, f"choose {least} to {depth - 1} layers")
    if count >= depth:
        detail = f"a student of {count} layers is not smaller than its teacher of {depth}"
        raise Unfit("layers", detail, f"choose {least} to {depth - 1} layers")
    further = [(name, number) for name, blocks in stages.items() for number in range(1, blocks)]
    chosen = [further[place] for place in spread_blocks(len(further), count - least)]
    return {name: [0, *(number for stage, number in chosen if stage == name)] for name in stages}


def _stack(model: nn.Module) -> tuple[str, int]:
    """The name and the length of the one list of layers that a text runs through; ("", 0) where there is none.

    Raises:
        Unfit: for a decoder whose layers are not all alike.
    """
    config = getattr(model, "config", None)
    if not hasattr(config, "num_key_value_heads"):
        name, blocks = encoder_of(model)
        return name, len(blocks)
    if not _is_decoder(model):
        kind = getattr(config, "model_type", "this model")
        detail = f"the layers of {kind} are not all alike, so a configuration cannot say which of them were left out"
        raise Unfit("", detail, f"choose a base model of the kinds {', '.join(sorted(EVEN_DECODERS))}")
    inside: Any = model  # a method of every transformers model
    layers = inside.get_decoder().layers
    name = next(name for name, module in model.named_modules() if module is layers)
    return name, len(layers)


def _is_decoder(model: nn.Module) -> bool:
    return getattr(getattr(model, "config", None), "model_type", None) in EVEN_DECODERS


def _number_layers(model: nn.Module, name: str, kept: Sequence[int]) -> None:
    """Tell attention its new place, by which a cache finds it, and the configuration which kinds of layers are left."""
    config, layers = vars(model)["config"], model.get_submodule(name)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = [kinds[number] for number in kept]
    for number, layer in enumerate(layers.children()):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                vars(module)["layer_idx"] = number
