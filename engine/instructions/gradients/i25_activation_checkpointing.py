"""Instruction 25. Knows no architecture: a repeated block is a list of modules of one class."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.dropout import cheap_draws
from engine.errors import InvalidData
from engine.instruction import TEXT_TASKS, Instruction
from engine.ports import device_of
from engine.run import Run

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm
_PROBED_ROWS = 32


class ActivationCheckpointing(Instruction):
    """Forgets the inner activations of each block and computes them again in the backward pass: memory for time.

    Sound: gradients are equal, not close. The recomputation starts from the random state of the block's forward pass
    and draws its dropout in the same way, which the contexts of the forward pass alone would not bring about: the
    backward pass runs outside of them. The non-reentrant form keeps gradients of frozen embeddings and composes with
    the precision contexts.

    Refuses: nets for pictures, since their batch norm would update its statistics twice; a model without a repeated
    block; dp_sgd (37), whose sums need the very activations that are forgotten; fake quantisation (49), which would
    take its ranges twice.

    Effect: none on accuracy. `saved_activation_bytes` is what forward keeps of some training rows, and
    `saved_activation_bytes_without` what it would keep; a step costs about a third more time.
    """

    number = 25
    band = "gradients"
    title = "Activation checkpointing"
    source = "Chen et al. 2016 (arXiv 1604.06174)"
    metric = "saved_activation_bytes"
    tasks = TEXT_TASKS
    name: Literal["activation_checkpointing"] = "activation_checkpointing"

    every: int = Field(default=1, ge=1, le=16, description="every n-th block is checkpointed")

    @property
    def excludes(self) -> Mapping[str, str]:
        """Whoever reads what is forgotten here, and blocks that are no pure function of their inputs."""
        return {
            "per_example_gradients": "the clipped sum is formed from activations, which checkpointing forgets",
            "fake_quantized": "a rounded block takes its ranges from what it sees, and would see everything twice",
        }

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Wrap every n-th repeated block without batch norm."""
        chosen = [block for number, block in enumerate(_blocks(model)) if number % self.every == 0]
        if not chosen:
            raise InvalidData(
                "activation_checkpointing found no repeated block to checkpoint in this model",
                remedy="leave activation_checkpointing (25) out",
            )
        for block in chosen:
            block.forward = _Checkpointed(block.forward)
        return model

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Count what forward keeps, once, on some training rows."""
        state = run.state(self.name)
        if "kept" not in state:
            state["kept"] = [_kept_bytes(run, forget) for forget in (True, False)]

    def trained(self, run: Run, model: nn.Module) -> nn.Module:
        """Unwrap."""
        for block in _wrapped(model):
            del block.forward
        return model

    def report(self, run: Run) -> Mapping[str, float]:
        """Bytes with and without."""
        kept = run.state(self.name).get("kept")
        return {"saved_activation_bytes": kept[0], "saved_activation_bytes_without": kept[1]} if kept else {}


class _Checkpointed:
    """A block's forward pass, forgotten but for its inputs while training."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.forgets = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block."""
        if not self.forgets or not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        device = next(one.device for one in args if isinstance(one, Tensor))
        return checkpoint(
            self.forward,
            *args,
            use_reentrant=False,
            # The first of the two is around the forward pass, which the loop's own contexts surround already.
            context_fn=lambda: (nullcontext(), cheap_draws(device)),
            **kwargs,
        )


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The members of every list of two or more modules of one class, outermost lists only, none with batch norm."""
    inside: set[int] = set()
    for module in model.modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or id(module) in inside:
            continue
        members = list(module)
        if len(members) < 2 or len({type(one) for one in members}) > 1:
            continue
        inside.update(id(one) for one in module.modules())
        for member in members:
            if not any(isinstance(one, _BATCH_NORMS) for one in member.modules()):
                yield member


def _wrapped(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(vars(module).get("forward"), _Checkpointed)]


def _kept_bytes(run: Run, forget: bool) -> float:
    """What the forward pass keeps for backward: the storages of saved tensors and of checkpointed inputs, once each."""
    batch = run.data.first_batch(_PROBED_ROWS, device_of(run.model))
    weights = {one.untyped_storage().data_ptr() for one in run.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    averages = [(one, one.clone()) for one in run.model.buffers()]  # batch norm's, which a probe must not move
    alive: list[Tensor] = []  # a freed storage's address would be given again, and two counted as one
    run.model.train()
    with _counted(run.model, forget, alive), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = run.task.losses(run.task.forward(run.model, batch), batch)
    for tensor in alive:
        keep(tensor)
    del losses
    for one, before in averages:
        one.copy_(before)
    return float(sum(kept.values()))


@contextmanager
def _counted(model: nn.Module, forget: bool, inputs: list[Tensor]) -> Iterator[None]:
    """Checkpointing on or off, and the tensors that go into checkpointed blocks kept in `inputs`."""
    blocks = _wrapped(model)
    hooks = []
    for block in blocks:
        vars(block)["forward"].forgets = forget
        if forget:
            hooks.append(
                block.register_forward_pre_hook(
                    lambda _, args: inputs.extend(one for one in args if isinstance(one, Tensor))
                )
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for block in blocks:
            vars(block)["forward"].forgets = True
