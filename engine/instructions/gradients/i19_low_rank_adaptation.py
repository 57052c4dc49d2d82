"""Instruction 19. Knows no architecture: what is adapted are the linear layers of the pretrained part."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor, nn

from engine.adapters import fuse
from engine.errors import Fault, InvalidData
from engine.guard import PRIVATE
from engine.instruction import Instruction
from engine.lazy import peft
from engine.ports import device_of
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_PROBED_ROWS = 8


class LowRankAdaptation(Instruction):
    """Freezes the model and trains low-rank updates of its linear layers, merged into the weights before the export.

    Sound: the second factor starts at zero, so training starts from the base itself; a fresh head is trained whole and
    never adapted, since a low-rank update of random weights teaches nothing; an output layer that shares its weights
    with the embedding is left alone. Merging is in fp32, and every weight may learn again afterwards: a later recovery
    or distillation would otherwise train nothing without a word.

    Refuses: a model trained from scratch, which has nothing worth freezing; dropout in a private run (37, 40); DoRA
    under 37; fake quantisation (49), whose rounding would sit on the frozen weights and not on the merged ones; a layer
    name that the model lacks; a rank beyond a layer's width.

    Effect: within 1 to 2 points of full training, with a hundredth of the optimizer state. `trainable_fraction` is the
    share of weights that learn, `merge_error` the largest change of an answer by merging.
    """

    number = 19
    band = "gradients"
    title = "Low-rank adaptation"
    source = (
        "Hu et al. 2021 (arXiv 2106.09685); Liu et al. 2024 (arXiv 2402.09353); Kalajdzievski 2023 (arXiv 2312.03732)"
    )
    metric = "trainable_fraction"
    tasks = frozenset({"text_classification", "causal_lm"})
    name: Literal["low_rank_adaptation"] = "low_rank_adaptation"

    variant: Literal["lora", "dora", "rslora"] = Field(
        default="lora", description="dora learns magnitudes apart; rslora scales by the root of the rank"
    )
    rank: int = Field(default=8, ge=1, le=256, description="columns of the first factor")
    alpha: float = Field(default=16.0, gt=0, le=4096, description="the update is scaled by alpha over rank")
    dropout: float = Field(default=0.0, ge=0, le=0.5, description="on what goes into the update, while training")
    targets: tuple[str, ...] | None = Field(
        default=None, max_length=64, strict=False, description="ends of layer names; null: every linear layer"
    )
    train_head: bool = Field(default=True, description="train the fresh head whole")
    keep_adapter: bool = Field(default=True, description="hand over the adapter too, as artifact `adapter`")

    @property
    def provides(self) -> frozenset[str]:
        """What learns are adapters: they take ten times the rate of whole weights."""
        return frozenset({"adapters"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """Rounding belongs on the merged weights."""
        return {"fake_quantized": "rounding while training would sit on the frozen weights, not on the merged ones"}

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """A net from scratch has nothing worth freezing."""
        if "pretrained" not in facts and spec.task in self.tasks:
            yield Fault("", "not_pretrained", "a model trained from scratch has nothing worth freezing", "drop 19")
        if self.dropout and PRIVATE in facts:
            detail = "a draw of dropout hangs on a row's place, so one record would change what others add to a sum"
            yield Fault("/dropout", "private_dropout", detail, "set it to 0, or leave it out")
        if self.variant == "dora" and "per_example_gradients" in facts:
            detail = "the gradients of single examples of DoRA's magnitudes are not known here"
            yield Fault("/variant", "no_own_gradients", detail, "set it to lora or rslora")
        if spec.export.format == "peft" and not self.keep_adapter:
            yield Fault("/keep_adapter", "missing_need", "peft ships the adapter, which is not kept", "set it to true")
        if spec.export.format == "peft" and spec.task == "text_classification" and not self.train_head:
            detail = "the fresh head is frozen as it was drawn, and an adapter ships what was trained alone"
            yield Fault("/train_head", "missing_need", detail, "set it to true, or choose onnx as export.format")

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Freeze, and put an adapter beside every chosen layer."""
        chosen = self._chosen(model)
        config = peft().LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=chosen,
            modules_to_save=[name for name, _ in _head(model)] if self.train_head else None,
            use_dora=self.variant == "dora",
            use_rslora=self.variant == "rslora",
        )
        with warnings.catch_warnings():
            # PEFT asks transformers for a name that is about to go.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            adapted: nn.Module = peft().get_peft_model(model, config)
        fuse(adapted)
        learning = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
        total = sum(one.numel() for one in model.parameters())
        run.state(self.name).update(learning=learning, total=total)
        return adapted

    def trained(self, run: Run, model: nn.Module) -> nn.Module:
        """Merge, and let every weight learn again."""
        before = _probe(run, model)
        if self.keep_adapter:
            config = model.peft_config["default"].to_dict()  # type: ignore[index,union-attr]  # PEFT's model
            weights = {
                name: one.detach().cpu().clone() for name, one in peft().get_peft_model_state_dict(model).items()
            }
            run.state(self.name).update(weights=weights, config=_scrubbed(config, run.spec.base_model))
        merge: Any = model.merge_and_unload  # PEFT's model has it
        merged: nn.Module = merge(safe_merge=True)
        for weight in merged.parameters():
            weight.requires_grad_(True)
        run.state(self.name)["merge_error"] = float((_probe(run, merged) - before).abs().max())
        return merged

    def report(self, run: Run) -> Mapping[str, float]:
        """What learned, and what merging changed."""
        state = run.state(self.name)
        merged = {"merge_error": state["merge_error"]} if "merge_error" in state else {}
        return {"trainable_fraction": state["learning"] / state["total"], "trainable": state["learning"], **merged}

    def artifacts(self, run: Run, folder: Path) -> Mapping[str, Path]:
        """The adapter by itself, as PEFT loads it beside its base."""
        state = run.state(self.name)
        if "weights" not in state:
            return {}
        weights = {name: one.contiguous() for name, one in sorted(state["weights"].items())}
        (folder / "adapter_model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
        (folder / "adapter_config.json").write_text(json.dumps(state["config"], indent=1, sort_keys=True))
        return {"adapter": folder}

    def _chosen(self, model: nn.Module) -> list[str]:
        """Names of the layers to adapt.

        Raises:
            InvalidData: a target that no layer ends in, or a rank that is wider than a layer.
        """
        linear = dict(_linear(model))
        wanted = self.targets or tuple(linear)
        ends = tuple(f".{end}" for end in wanted)
        chosen = [name for name in linear if f".{name}".endswith(ends)]
        lost = [end for end in wanted if not any(f".{name}".endswith(f".{end}") for name in linear)]
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        if lost or not chosen:
            raise InvalidData(
                f"low_rank_adaptation: no layer matches {', '.join(lost) or 'anything'}",
                remedy=f"this model's linear layers end in: {known}",
            )
        narrow = [name for name in chosen if self.rank > min(linear[name].weight.shape)]
        if narrow:
            raise InvalidData(
                f"low_rank_adaptation: rank {self.rank} is beyond the width of {narrow[0]}",
                remedy=f"set rank to at most {min(min(linear[name].weight.shape) for name in chosen)}",
            )
        return chosen


def _scrubbed(config: Mapping[str, Any], base: str) -> dict[str, Any]:
    """What PEFT needs to load the adapter, with the base by its name: a path of this machine is nobody's business."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return {**json.loads(json.dumps(plain, default=str)), "base_model_name_or_path": base}


def _head(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts beside the pretrained one, such as `classifier`; not an output layer that is part of pretraining."""
    prefix = getattr(model, "base_model_prefix", "")
    output = _output(model)
    for name, part in model.named_children():
        if name != prefix and part is not output and any(True for _ in part.parameters()):
            yield name, part


def _output(model: nn.Module) -> nn.Module | None:
    """The layer that turns hidden states into tokens, where there is one."""
    find: Any = getattr(model, "get_output_embeddings", lambda: None)
    output: nn.Module | None = find()
    return output


def _linear(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of the pretrained part, but for the output layer."""
    apart = {id(module) for _, part in _head(model) for module in part.modules()}
    output = _output(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not output and id(module) not in apart:
            yield name, module


@torch.no_grad()
def _probe(run: Run, model: nn.Module) -> Tensor:
    """Answers on a few training rows."""
    rows = range(min(_PROBED_ROWS, len(run.data.train)))
    batch = run.task.collate([run.data.examples["train"][i] for i in rows], [0 for _ in rows])
    batch = {name: value.to(device_of(model)) for name, value in batch.items()}
    model.eval()
    answers: Any = run.task.answers(run.task.forward(model, batch), batch)
    return Tensor.float(answers)
