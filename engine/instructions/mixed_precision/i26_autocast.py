"""Instruction 26. Knows nothing of the scaler that half precision needs beside it."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from engine.dropout import cheap_draws
from engine.errors import EngineError
from engine.halves import frozen_in
from engine.instruction import Instruction
from engine.ports import Batch, device_of
from engine.run import Run

_CONVOLUTION: Callable[..., Any] = nn.functional.conv2d
_PROBED_ROWS = 16
_PROBED_PAIRS = 3


class Autocast(Instruction):
    """Runs matrix products in bf16 (or fp16) and keeps sensitive operations and the weights in fp32.

    Sound: forward and loss lie inside, backward and step outside; the context is entered anew for each forward pass,
    since it keeps cast copies of the weights that learn. Those that do not are cast once. PyTorch only warns where it
    cannot cast, so the context checks that it is on. The figures of the receipt are taken outside of it. On a processor
    convolutions stay in fp32, since their bf16 weight gradients are unsound there.

    Refuses: fp16 without 28, since its small gradients become zero; fp16 with 27, whose weights may overflow it. On a
    processor fp16 runs with a warning: it is many times slower than fp32 there.

    Effect: none on accuracy. `step_time_ratio` is the time of forward and backward over that in fp32, alternating after
    the first epoch on some training rows.
    """

    number = 26
    band = "mixed_precision"
    title = "Autocast"
    source = "Micikevicius et al. 2017 (arXiv 1710.03740); Kalamkar et al. 2019 (arXiv 1905.12322)"
    metric = "step_time_ratio"
    name: Literal["autocast"] = "autocast"

    dtype: Literal["bfloat16", "float16"] = Field(default="bfloat16", description="the format of the matrix products")

    @property
    def provides(self) -> frozenset[str]:
        """Half precision is told apart, since it needs a scaler."""
        return frozenset({"autocast", "fp16_autocast"} if self.dtype == "float16" else {"autocast"})

    @property
    def needs(self) -> Mapping[str, str]:
        """A scaler for half precision."""
        if self.dtype == "bfloat16":
            return {}
        return {"loss_scaling": "half precision underflows without dynamic_loss_scaling (28); bfloat16 needs none"}

    @property
    def excludes(self) -> Mapping[str, str]:
        """Two half formats in one product."""
        if self.dtype == "bfloat16":
            return {}
        return {"bf16_weights": "bf16 weights that are cast to fp16 overflow at 65,504; set autocast.dtype to bfloat16"}

    def context(self, run: Run) -> AbstractContextManager[Any]:
        """A fresh cast cache for one forward pass."""
        device = device_of(run.model).type
        state = run.state(self.name)
        if device == "cpu" and self.dtype == "float16" and not state.get("warned"):
            state["warned"] = True
            run.warn(
                "slow_half_precision", "fp16 products are many times slower than fp32 on a processor; use bfloat16"
            )
        return _casting(run, device, self._torch_dtype)

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Probe both precisions once, on the model and the device that train: the delivery changes both."""
        if not epoch and any(weight.requires_grad for weight in run.model.parameters()):
            run.state(self.name)["step_time_ratio"] = self._step_time_ratio(run)

    def report(self, run: Run) -> Mapping[str, float]:
        """What the probe found."""
        state = run.state(self.name)
        return {"step_time_ratio": state["step_time_ratio"]} if "step_time_ratio" in state else {}

    @property
    def _torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float16

    def _step_time_ratio(self, run: Run) -> float:
        """The median of ratios of neighbouring passes; weights, gradients and generators stay as they are."""
        device = device_of(run.model)
        batch = run.data.first_batch(_PROBED_ROWS, device)
        was_training = run.model.training
        run.model.eval()  # no dropout draws, no batch statistics moved
        ratios = []
        for round_number in range(1 + _PROBED_PAIRS):
            cast = _pass_seconds(run, batch, _casting(run, device.type, self._torch_dtype))
            plain = _pass_seconds(run, batch, nullcontext())
            if round_number:  # the first one warms up
                ratios.append(cast / plain)
        run.model.train(was_training)
        return statistics.median(ratios)


class _ConvolutionsInFp32(TorchFunctionMode):
    """Runs convolutions in fp32 inside an autocast context of a processor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Uncast the inputs of a convolution; leave everything else alone."""
        if func is not _CONVOLUTION:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            return func(*(one.float() if isinstance(one, Tensor) else one for one in args), **(kwargs or {}))


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


@contextmanager
def _casting(run: Run, device: str, dtype: torch.dtype) -> Iterator[None]:
    """Autocast that is on, or an error.

    On a processor convolutions stay in fp32: the bf16 weight gradient of small ones (torch 2.13 with oneDNN) holds
    memory that nobody wrote, now and then huge or not a number. `tests` reproduce it.

    Raises:
        EngineError: where PyTorch turned itself off.
    """
    apart = _ConvolutionsInFp32() if device == "cpu" and _convolves(run.model) else nullcontext()
    learning = {id(weight) for group in run.optimizer.param_groups for weight in group["params"]}
    with torch.autocast(device, dtype=dtype, cache_enabled=True), apart, frozen_in(run.model, dtype, learning):
        if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) != dtype:
            raise EngineError(f"this {device} device cannot cast to {dtype}", remedy="leave autocast (26) out")
        yield


def _pass_seconds(run: Run, batch: Batch, context: AbstractContextManager[Any]) -> float:
    """Seconds of one forward and backward pass; `.grad` is left alone."""
    weights: list[Tensor] = [weight for weight in run.model.parameters() if weight.requires_grad]
    started = time.perf_counter()
    with cheap_draws(weights[0].device), context:
        loss = run.task.losses(run.task.forward(run.model, batch), batch).sum()
    torch.autograd.grad(loss, weights, allow_unused=True)[0]
    if weights[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
