"""Whether an example's loss is its own: no draws in a forward pass, and no word of the others. Knows no noise.

Clipping bounds what one record adds. It bounds nothing where one more record changes what the others add: a draw of
dropout belongs to a place in the batch, and whoever comes first moves all behind to other places and so to other draws.
"""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from engine.errors import Fault, InvalidPlan
from engine.ports import Payload, device_of

if TYPE_CHECKING:  # a run holds a plan of instructions, which ask here: a circle of types only
    from engine.run import Run

_ROUNDING = 2e-3  # of an answer: other paddings are sums in another order; what is mixed moves it by far more
_REMEDY = "choose another base model, such as the task's default"


def draw_nothing(model: nn.Module) -> None:
    """Set every probability to drop to zero: of dropout modules, and what modules and their configurations hold."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for name, value in list(getattr(holder, "__dict__", {}).items()):
                if "drop" in name and isinstance(value, float):
                    setattr(holder, name, 0.0)


@contextmanager
def drawing_nothing(model: nn.Module) -> Iterator[None]:
    """Within, whoever draws from a generator of PyTorch or of Python is found out, whatever module or function it is.

    Raises:
        InvalidPlan: at the end, where a generator moved.
    """
    before = _states(model)
    yield
    if _states(model) != before:
        detail = "the model draws random numbers in its forward pass, so one record changes what others add to the sum"
        raise InvalidPlan([Fault("/model", "draws_in_the_model", detail, _REMEDY)])


def check_apart(run: "Run", model: nn.Module) -> None:
    """See by texts made here that an example's answer is the same alone, beside a long one, and again after it.

    Raises:
        InvalidPlan: where it is not, or the model draws.
    """
    task, device, was_training = run.task, device_of(model), model.training
    both = task.encode([_text(run, 4), _text(run, run.spec.training.max_length)])
    answers = []
    model.train()
    for examples in (both[:1], both, both[:1]):
        batch = {name: one.to(device) for name, one in task.collate(examples, [0] * len(examples)).items()}
        with torch.no_grad(), drawing_nothing(model):
            answers.append(task.answers(task.forward(model, batch), batch)[0].float())
    model.train(was_training)
    alone, *others = answers
    moved = max(float((other - alone).abs().max()) for other in others)
    if not moved <= _ROUNDING * max(1.0, float(alone.abs().max())):
        detail = f"what the model says of an example moves by {moved:.2g} with what it is beside, or what came before"
        raise InvalidPlan([Fault("/model", "mixes_examples", detail, _REMEDY)])


def _text(run: "Run", words: int) -> Payload:
    text = " ".join(["word"] * words)
    if not run.data.train.chat:
        return text
    return json.dumps([{"role": "user", "content": "word"}, {"role": "assistant", "content": text}])


def _states(model: nn.Module) -> list[object]:
    """Of every generator that a model may draw from; no device is waited for."""
    device, states = device_of(model), [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [random.getstate(), *(state.numpy().tobytes() for state in states)]
