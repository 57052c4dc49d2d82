"""The maths of clients: who holds which rows, how an update is clipped, how few are too few. Knows no run."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import Fault
from engine.rows import CLIENTS, CLIENTS_BY, UNGROUPED

FEWEST = 20.0
"""Clients that a round must expect: with fewer the noise drowns their sum."""
MEASURED = "100 clients lost 7.5 points of accuracy at epsilon 1 (docs/article.md, 40)"


def clients_in(groups: npt.NDArray[np.str_] | None) -> dict[str, npt.NDArray[np.int64]]:
    """Row numbers by client, in the order of the clients' names; rows without a client belong to nobody."""
    if groups is None or not len(groups):
        return {}
    names, which = np.unique(groups, return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(names)))
    parts = np.split(order.astype(np.int64), ends[:-1])
    return {str(name): rows for name, rows in zip(names.tolist(), parts, strict=True) if name}


def clipped(update: Sequence[Tensor], bound: float) -> list[Tensor]:
    """An update scaled down to an L2 norm of at most `bound`, all tensors as one vector; zero where it is not finite.

    The norm is summed in fp64.
    """
    squared = torch.stack([one.double().square().sum() for one in update]).sum()
    norm = float(squared.sqrt())
    if not np.isfinite(norm):
        return [torch.zeros_like(one) for one in update]
    factor = 1.0 if norm <= bound else bound / norm
    return [one * factor for one in update]


def too_few(clients: int, rate: float) -> Fault | None:
    """Why so many clients, drawn at this rate, cannot be aggregated privately; None where they can."""
    expected = clients * rate
    if expected >= FEWEST:
        return None
    detail = (
        f"{clients} clients drawn at rate {rate:g} make {expected:g} a round, and the noise would drown their sum"
        f": even {MEASURED}"
    )
    remedy = "use dp_sgd (37), whose unit is a record, or rows of many hundreds of clients"
    return Fault("", "too_few_clients", detail, remedy)


def counted(facts: Iterable[str]) -> int | None:
    """How many clients somebody counted in the file of the training rows."""
    return next((int(fact.removeprefix(CLIENTS)) for fact in facts if fact.startswith(CLIENTS)), None)


def client_faults(facts: frozenset[str], field: str | None, claimed: int | None, rate: float) -> Iterator[Fault]:
    """What is wrong with the clients of a run: nobody names them, another field does, or they are too few.

    Args:
        facts: those of the run's data.
        field: the column that should name them, where the request says so.
        claimed: the nominal number of clients, where the request says so.
        rate: with which each is drawn.
    """
    present = counted(facts)
    if UNGROUPED in facts and present is None:  # files of held-out rows need not name any
        detail = "no field of the data set names the client of a row"
        yield Fault("/client_field", "no_clients", detail, "upload it with group_column, the field of the client")
    named = [fact.removeprefix(CLIENTS_BY) for fact in facts if fact.startswith(CLIENTS_BY)]
    if field is not None and named and field not in named:
        detail = f"the rows are grouped by {named[0]}, not by {field}"
        remedy = f"upload the data set with group_column {field}, or leave client_field out"
        yield Fault("/client_field", "other_field", detail, remedy)
    if claimed is not None and present is not None and claimed < present:
        detail = f"the data set has {present} clients, more than the {claimed} that delta is measured against"
        yield Fault("/clients", "more_clients", detail, f"send {present} or more, or leave clients out")
    known = [number for number in (present, claimed) if number is not None]
    if known and (fault := too_few(min(known), rate)) is not None:
        yield fault


def scope_faults(scope: str | None, task: str, adapters: bool) -> Iterator[Fault]:
    """What is wrong with a scope: adapters that are not there, or would be left alone, or are all that could train."""
    if scope == "lora" and not adapters:
        yield Fault("/scope", "missing_need", "there are no adapters to train", "add low_rank_adaptation (19)")
    elif task == "causal_lm" and not adapters:
        detail = "a language model has no head of its own, and noise on all its weights would drown what clients say"
        yield Fault("", "missing_need", detail, "add low_rank_adaptation (19)")
    if adapters and scope in {"head", "bias"}:
        detail = f"scope {scope} would leave the adapters as they are"
        yield Fault("/scope", "idle_adapters", detail, "leave scope out, or low_rank_adaptation (19)")
