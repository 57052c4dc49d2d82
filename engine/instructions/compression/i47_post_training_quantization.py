"""Instruction 47: integers without training. Knows what is calibrated on; how values are rounded is the engine's."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from engine.errors import Fault, InvalidData
from engine.four_bit import export_four_bit
from engine.inference import eager_answers
from engine.instruction import ALL_TASKS, COMPRESSES, TEXT_TASKS, Instruction
from engine.integer_modules import export_integers
from engine.quantization import Setting
from engine.quantized import QuantizedEmbedding, QuantizedLinear, ranges_of, unknown, wrap
from engine.randomness import generator
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_BATCH = 16
_CONVOLVED = frozenset({"image_classification", "text_image_pairs"})


class PostTrainingQuantization(Instruction):
    """Turns the trained model into integers without training: static or dynamic INT8, or 4-bit weights in blocks.

    Sound: weights are symmetric with a step for each output channel, embeddings included, which are half of a small
    encoder; activations are affine with a whole-number zero point, over ranges read off training rows alone, without
    padding and in evaluation mode. Static ranges are the default: with dynamic ones a row's answer depends on its batch
    and padding. The model hands on rounds as the file does, so the file is held against the very same arithmetic, and
    figures of loss are against the model before it.

    Refuses: fewer training rows than `calibration_rows`; blocks that do not divide a width; for pictures 4 bits and
    dynamic ranges.

    Effect: MiniLM to .254 of its fp32 bytes and .28 of PyTorch's latency (batch 1, 64 tokens, one thread); pictures of
    28 pixels to a quarter of the bytes at the latency of fp32 ONNX.
    """

    number = 47
    band = "compression"
    title = "Post-training quantisation"
    source = "Jacob et al. 2018 (1712.05877) section 2; ONNX Runtime's quantization guide for 4 bits"
    metric = "bytes_ratio"
    tasks = ALL_TASKS - {"causal_lm"}
    unserved: ClassVar[Mapping[str, str]] = {
        "causal_lm": "it ships as a Hugging Face folder, which holds no integers; for 8 bits set export.format to "
        "gguf, with number q8_0"
    }
    kinds = COMPRESSES
    name: Literal["post_training_quantization"] = "post_training_quantization"

    scheme: Literal["static_int8", "dynamic_int8", "weight_int4", "embedding_int4"] = Field(
        default="static_int8",
        description="8 bits with fixed or each batch's ranges; 4-bit weights; 4-bit embeddings, static 8 bits else",
    )
    calibration_rows: int = Field(default=64, ge=16, le=4096, description="training rows that ranges are read off")
    range: Literal["minmax", "percentile"] = Field(
        default="minmax", description="ranges are the rows' extremes, or the mean of the percentiles of their batches"
    )
    percentile: float = Field(
        default=99.99, gt=90, le=100, allow_inf_nan=False, description="upper end in percent; percentile only"
    )
    block_size: Literal[16, 32, 64, 128, 256] = Field(default=32, description="4-bit weights that share a step")
    keep: list[str] = Field(
        default=[], max_length=1000, strict=False, description="modules left in fp32, by name or its last part"
    )

    @property
    def provides(self) -> frozenset[str]:
        """Integers, and perhaps ranges that were read off training rows."""
        return frozenset({"quantized", "reads_training_rows"} if self._calibrates else {"quantized"})

    @property
    def after(self) -> frozenset[str]:
        """The number format comes last."""
        return frozenset({"resized", "resized_after_training", "mask", "trimmed_vocabulary", "bit_widths"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """One number format at a time."""
        return {"quantization_aware_training": "the model is rounded in training already"}

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Convolutions have neither a 4-bit form in ONNX Runtime nor ranges of each batch."""
        if "int4" in self.scheme and spec.task not in TEXT_TASKS:
            yield Fault("/scheme", "no_such_format", f"{self.scheme} does not serve {spec.task}", "choose static_int8")
        if self.scheme == "dynamic_int8" and spec.task in _CONVOLVED:
            detail = f"{self.scheme} does not serve {spec.task}: convolutions need ranges that are fixed"
            yield Fault("/scheme", "no_such_format", detail, "choose static_int8, and give rows to calibrate on")

    def compress(self, run: Run, model: nn.Module) -> nn.Module:
        """Fit the model with rounding layers and calibrate them.

        Raises:
            InvalidData: where training rows are too few, or a layer is no multiple of a block wide.
        """
        setting = self._setting()
        examples = run.data.examples["train"]
        if self._calibrates and len(examples) < self.calibration_rows:
            detail = f"{len(examples)} training rows are fewer than the {self.calibration_rows} to calibrate on"
            raise InvalidData(detail, remedy="lower calibration_rows, or choose dynamic_int8")
        shown = run.data.examples[run.data.traced]
        if lost := unknown(model, self.keep):
            run.warn("nothing_kept", f"keep names no module: {', '.join(lost[:5])}")
        probe = run.task.collate([shown[0], shown[len(shown) - 1]], [0, 0])
        wrap(model, setting, self.keep, lambda probed: run.task.forward(probed, probe))
        self._check_blocks(model)
        if self._calibrates:
            self._calibrate(run, model, setting)
        if self.scheme == "dynamic_int8":
            run.warn(
                "batch_dependent", "activation ranges are dynamic: a row's answer depends on its batch and padding"
            )
        return model

    def exporter(self, run: Run, model: nn.Module, folder: Path) -> Path:
        """The integers as ONNX."""
        path, payloads = folder / "model.onnx", run.data.sample_payloads()
        if self.scheme == "weight_int4":
            return export_four_bit(run.task, model, payloads, path, what="all", block=self.block_size)
        if self.scheme == "embedding_int4":
            return export_four_bit(run.task, model, payloads, path, what="embeddings", block=self.block_size)
        return export_integers(run.task, model, payloads, path)

    def report(self, run: Run) -> Mapping[str, float]:
        """What the file weighs, and what it lost."""
        effects: Mapping[str, float] = run.state("measured")
        return effects

    @property
    def _calibrates(self) -> bool:
        return self.scheme in {"static_int8", "embedding_int4"}

    def _setting(self) -> Setting:
        percentile = self.percentile if self.range == "percentile" else None
        if self.scheme == "weight_int4":
            return Setting(activation="float", linear_block=self.block_size, embedding_block=self.block_size)
        if self.scheme == "embedding_int4":
            return Setting(embedding_block=self.block_size, percentile=percentile)
        return Setting(activation="static" if self.scheme == "static_int8" else "dynamic", percentile=percentile)

    def _check_blocks(self, model: nn.Module) -> None:
        if "int4" not in self.scheme:
            return
        kinds = QuantizedEmbedding if self.scheme == "embedding_int4" else (QuantizedEmbedding, QuantizedLinear)
        for name, module in model.named_modules():
            if isinstance(module, kinds) and module.weight.shape[1] % self.block_size:
                detail = f"{name} is {module.weight.shape[1]} wide, no multiple of blocks of {self.block_size}"
                raise InvalidData(
                    detail, remedy="choose a smaller block_size, or round_to 32 in structured_pruning (45)"
                )

    def _calibrate(self, run: Run, model: nn.Module, setting: Setting) -> None:
        """Read the ranges off a fixed draw of training rows, in evaluation mode."""
        examples = run.data.examples["train"]
        drawn = generator(run.spec.training.seed, self.name).permutation(len(examples))[: self.calibration_rows]
        order = np.sort(drawn).tolist()
        setting.active, setting.calibrating = False, True
        for number, start in enumerate(range(0, len(order), _BATCH)):
            batch = [examples[i] for i in order[start : start + _BATCH]]
            eager_answers(run.task, model, batch, _BATCH)
            for one in ranges_of(model).values():
                one.move(keep=number / (number + 1), widen=self.range == "minmax")
        setting.active, setting.calibrating = True, False
