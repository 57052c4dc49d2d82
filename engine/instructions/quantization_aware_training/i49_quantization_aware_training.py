"""Instruction 49: rounding in the forward pass. Knows when; how a value is rounded is `engine.quantization`'s."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import nn

from engine.errors import Fault
from engine.instruction import ALL_TASKS, Instruction
from engine.integer_modules import export_integers
from engine.ports import device_of
from engine.quantization import Activation, Setting
from engine.quantized import QuantizedConv2d, QuantizedEmbedding, QuantizedLinear, ranges_of, setting_of, wrap
from engine.run import Run
from engine.validate import forget_best

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec


class QuantizationAwareTraining(Instruction):
    """Trains with the rounding of the exported integers in the forward pass, so the file computes what was trained.

    Sound: weights stay fp32 and are rounded anew in each pass, symmetric for each output channel (an embedding: each
    row); the gradient passes straight through, and is zero outside the range. Zero points are whole numbers. Padding
    does not widen a range. Ranges come to rest before the end, so the last steps train what ships. Training and file
    use the same levels and the same fixed ranges: with the batch's own (`activation: dynamic`) an answer would depend
    on its neighbours. A batch norm behind a convolution is folded into the step of each channel at the export, which
    leaves the levels as they were trained. The rounding stays on after the training, so that auditors see it.

    Refuses: ranges that freeze before the rounding starts; fewer than 8 bits for dynamic activations, which ONNX
    cannot hold. Below 8 bits the receipt says that the file stores 8.

    Effect: MiniLM to .254 of its fp32 bytes and .28 of PyTorch's latency (batch 1, 64 tokens, one thread). At 8 bits
    expect no gain in accuracy over 47; the gain is at 4 bits and less. It costs more processor time.
    """

    number = 49
    band = "quantization_aware_training"
    title = "Quantisation-aware training"
    source = "Jacob et al. 2018 (1712.05877) section 3; Bengio et al. 2013 (1308.3432)"
    metric = "quantized_metric_loss"
    # A language model ships as a Hugging Face folder, which holds no integers: see its format gguf.
    tasks = ALL_TASKS - {"causal_lm"}
    name: Literal["quantization_aware_training"] = "quantization_aware_training"

    weight_bits: int = Field(default=8, ge=2, le=8, description="bits of a weight in training; the file stores 8")
    activation_bits: int = Field(default=8, ge=4, le=8, description="bits of an input to a layer")
    activation: Activation = Field(
        default="static", description="ranges fixed by training, or dynamic: of each batch, so answers depend on it"
    )
    start: float = Field(
        default=0.0, ge=0, le=0.9, allow_inf_nan=False, description="share of the steps before rounding"
    )
    freeze_at: float = Field(
        default=0.8, gt=0, le=1, allow_inf_nan=False, description="share of the steps after which ranges rest"
    )
    # Not strict: a request's list arrives as one, which a strict tuple refuses.
    keep: list[str] = Field(
        default=["classifier", "pooler"],
        max_length=1000,
        strict=False,
        description="modules left in fp32, by name or its last part",
    )

    @property
    def provides(self) -> frozenset[str]:
        """The rounding, and ranges that were read off training rows."""
        own = {"reads_training_rows"} if self.activation == "static" else {"dynamic_activations"}
        return frozenset({"fake_quantized", *own})

    @property
    def after(self) -> frozenset[str]:
        """Widths come first: cutting afterwards would undo what was trained."""
        return frozenset({"resized", "adapters"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """One number format at a time."""
        return {
            "post_training_quantization": "the model is rounded in training already",
            "float8_training": "both put another number format into the same products",
        }

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Ranges must move while the model rounds; ONNX has dynamic ranges of 8 bits alone."""
        if self.freeze_at <= self.start:
            detail = f"ranges freeze at {self.freeze_at:g} of the steps, rounding starts at {self.start:g}"
            yield Fault("/freeze_at", "frozen_too_early", detail, "let freeze_at be above start")
        if self.activation == "dynamic" and self.activation_bits < 8:
            detail = "dynamic activations have 8 bits in the exported file"
            yield Fault(
                "/activation_bits", "no_such_format", detail, "set activation_bits to 8, or activation to static"
            )

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Fit the model with rounding layers, where the run stands."""
        setting = Setting(self.weight_bits, self.activation_bits, self.activation)
        clock = run.clock
        self._tell(setting, clock.step / clock.total if clock.total else 0.0)
        examples = run.task.encode(run.data.sample_payloads())
        batch = run.task.collate(examples, [0] * len(examples))
        batch = {name: value.to(device_of(model)) for name, value in batch.items()}
        wrap(model, setting, self.keep, lambda probed: run.task.forward(probed, batch))
        if not clock.step:
            self._warn(run)
        return model

    def after_step(self, run: Run) -> None:
        """Start to round and let the ranges rest when it is time; widen them where 51 does not move them."""
        setting = setting_of(run.model)
        if setting is None:
            return
        rounded = setting.active
        self._tell(setting, (run.clock.step + 1) / run.clock.total)
        if setting.active and not rounded:
            forget_best(run)  # scored without rounding, and never learned to bear it
        if setting.observing and "tracked_ranges" not in run.plan.facts:
            for one in ranges_of(run.model).values():
                one.move(keep=1.0, widen=True)

    def exporter(self, run: Run, model: nn.Module, folder: Path) -> Path:
        """The integers as ONNX."""
        return export_integers(run.task, model, run.data.sample_payloads(), folder / "model.onnx")

    def report(self, run: Run) -> Mapping[str, float]:
        """What the integers cost, and how many layers have them."""
        layers = sum(
            isinstance(one, QuantizedLinear | QuantizedConv2d | QuantizedEmbedding) for one in run.model.modules()
        )
        measured = run.state("measured")
        return {"quantized_metric_loss": measured.get("metric_loss", 0.0), "quantized_layers": float(layers)}

    def _tell(self, setting: Setting, progress: float) -> None:
        setting.active = progress >= self.start
        setting.observing = self.activation == "static" and progress <= self.freeze_at

    def _warn(self, run: Run) -> None:
        if self.weight_bits < 8 or self.activation_bits < 8:
            detail = (
                f"trained at {self.weight_bits} bits a weight and {self.activation_bits} an input; the file stores 8"
            )
            run.warn("stored_in_eight_bits", detail)
        if self.activation == "dynamic":
            run.warn(
                "batch_dependent", "activation ranges are dynamic: a row's answer depends on its batch and padding"
            )
