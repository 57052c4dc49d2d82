"""One order for every sum of a training on an accelerator, so that equal jobs give equal bytes there too.

Where PyTorch is only to warn of sums without an order, it leaves attention its faster backward pass, whose order is
another each time. Where it is to insist, a model with an operation that has no such form cannot be trained at all. So
each model is asked once, by a pass over two rows. Knows no instruction.
"""

import torch

from engine.attacks import still
from engine.ports import device_of
from engine.randomness import settle_sums
from engine.run import Run

_PROBED_ROWS = 2
_NO_ORDER = "does not have a deterministic implementation"


def insist_on_order(run: Run) -> None:
    """Let PyTorch insist where `run.model` allows it, and warn where it does not; a processor has one order anyway."""
    weights = [weight for weight in run.model.parameters() if weight.requires_grad]
    if device_of(run.model).type == "cpu" or not weights:
        return
    torch.use_deterministic_algorithms(True)
    batch = run.data.first_batch(_PROBED_ROWS, weights[0].device)
    try:
        with still(run.model):
            losses = run.task.losses(run.task.forward(run.model, batch), batch)
        torch.autograd.grad(losses.sum(), weights, allow_unused=True)
    except RuntimeError as error:
        if _NO_ORDER not in str(error):
            raise
        settle_sums()
        operation = str(error).split()[0]
        detail = f"{operation} has no fixed order on this device: a run that is repeated may differ in its last digits"
        run.warn("not_repeatable", detail)
