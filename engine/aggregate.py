"""The kind of job `aggregate`: one round of client updates, clipped, summed, noised once, divided by a public number.

One file is in memory at a time. An update counts as its whole vector, all tensors jointly; one that is not finite
counts as zero, which is no further from any other update than the bound. The sum is made in the order of the files'
names, which are hashes, so who uploaded first changes nothing. Knows neither clients nor how files came here.
"""

import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.linalg.blas import daxpy

from client import canonical_json
from engine.accounting import PrivacyBudget, PrivacyEvent, accountant, epsilon, quoted
from engine.archive import entry, land
from engine.errors import BudgetExhausted, InvalidData
from engine.events import FileWritten, Finished, PhaseStarted, PrivacyDrawn, Sink, now
from engine.handover import finished
from engine.interrupt import Interrupt, StopRequested
from engine.journal import FILENAME, Journal
from engine.noise import privatise, source
from engine.tensorfile import (
    MOST_DIMENSIONS,
    MOST_LENGTH,
    Layout,
    Reader,
    Unreadable,
    Values,
    as_floats,
    layout_of,
    packed,
    read_layout,
)

AGGREGATE = "aggregate.safetensors"
WEIGHTS = "model.safetensors"
UPDATES, BASE = "updates", "base"
"""Where in the run's folder the clients' files lie, and the file that weights are measured from."""
# Values at a time: beyond 10,000 OpenBLAS starts threads, of numpy and of SciPy apart, which wait for each other.
_BLOCK = 9_600


class TensorShape(BaseModel):
    """What one tensor of an update looks like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[Annotated[int, Field(strict=True, ge=0, le=MOST_LENGTH)], ...] = Field(max_length=MOST_DIMENSIONS)
    dtype: Literal["F64", "F32", "F16", "BF16"]


class Round(BaseModel):
    """The public numbers of a round: fixed before any update comes, and never worked out from what came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["aggregate"] = "aggregate"
    population: str
    round: str
    base: str | None = None
    format: Literal["delta", "weights"]
    clip_norm: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    noise_multiplier: float = Field(gt=0, le=1e4, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    expected_clients: int = Field(ge=1)
    min_clients: int = Field(ge=1)
    sampling_rate: float = Field(gt=0, le=1)

    @property
    def event(self) -> PrivacyEvent:
        """The one release that the round makes."""
        sampling: Literal["poisson", "none"] = "poisson" if self.sampling_rate < 1 else "none"
        return PrivacyEvent(q=self.sampling_rate, sigma=self.noise_multiplier, count=1, sampling=sampling)


class AggregateFile(Round):
    """The job file of `aggregate`: the updates lie in the run's folder under `updates`, and the base as `base`."""

    tensors: Mapping[str, TensorShape]
    privacy_budget: PrivacyBudget = PrivacyBudget()


def aggregate_updates(spec: AggregateFile, folder: Path, sink: Sink, *, job: str | None, interrupt: Interrupt) -> None:
    """Run one round; the aggregate and its receipt land in `folder`/outputs.

    A run that was lost before the noise was drawn begins anew; one that was lost after the result was whole hands over
    that very result; between the two the draw is spent and its result gone.

    Raises:
        InvalidData: too few clients, or a file that is no update.
        BudgetExhausted: the draw was made and its result was lost.
    """
    outputs = folder / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    sink.emit(PhaseStarted(phase="data"))
    layout = layout_of({name: one.model_dump() for name, one in spec.tensors.items()})
    journal = Journal(folder / FILENAME, spec.privacy_budget)
    landed = outputs / AGGREGATE
    if not landed.is_file():
        if not journal.left(spec.event):
            raise BudgetExhausted(
                "the noise of this round was drawn, and the run was lost before its result was stored",
                remedy="open another round: what this one spent stays in the ledger",
            )
        _release(spec, folder, layout, landed, journal, sink, interrupt)
    if interrupt.requested:  # heard while the result landed
        raise StopRequested
    sink.emit(PhaseStarted(phase="receipt"))
    signed = finished(_receipt(spec, landed, job), None, "", "")
    receipt = land(canonical_json.encode(signed), outputs / "receipt.json")
    for kind, path, media_type in (
        ("aggregate", landed, "application/octet-stream"),
        ("receipt", receipt, "application/json"),
    ):
        about = entry(path)
        sink.emit(
            FileWritten(
                kind=kind,
                filename=path.name,
                path=f"outputs/{path.name}",
                sha256=about.sha256,
                size_bytes=about.size_bytes,
                media_type=media_type,
            )
        )
    sink.emit(Finished(result={}))


def _release(
    spec: AggregateFile,
    folder: Path,
    layout: Layout,
    landed: Path,
    journal: Journal,
    sink: Sink,
    interrupt: Interrupt,
) -> None:
    """Sum, write the draw down, noise, and land the result: what is drawn is not dropped for a wish to stop."""
    updates = folder / UPDATES
    names = sorted(os.listdir(updates)) if updates.is_dir() else []
    if len(names) < spec.min_clients:
        # How many there are is as private as what they sent.
        raise InvalidData(
            f"fewer than {spec.min_clients} clients sent an update", remedy="open another round, and close it later"
        )
    base = base_values(folder / BASE, layout) if spec.format == "weights" else None
    sink.emit(PhaseStarted(phase="aggregate"))
    try:
        total = clipped_sum((updates / name for name in names), layout, spec.clip_norm, base)
    except Unreadable as error:
        raise InvalidData(f"an update cannot be read: {error}", remedy="open another round") from error
    with interrupt.at_boundaries():
        journal.append(spec.event, spec.event)
        sink.emit(PrivacyDrawn(step=1, draw=spec.event.to_json(), drawn=journal.count))
        sums = torch.from_numpy(total)
        privatise([sums], spec.clip_norm, spec.noise_multiplier, float(spec.expected_clients), source("os"))
        if base is not None:
            total += base
        land(packed(total, layout), landed)


def clipped_sum(files: Iterable[Path], layout: Layout, bound: float, base: Values | None = None) -> Values:
    """The sum of updates, each scaled down to an L2 norm of at most `bound`; (values,), float64.

    Args:
        files: safetensors files of this layout.
        layout: names, shapes and dtypes.
        bound: the clipping norm, over all tensors jointly.
        base: what the files' values are measured from; None: they are differences already.

    Raises:
        Unreadable: a file of another layout.
    """
    reader, total = Reader(layout), np.zeros(layout.count)
    parts = [slice(start, start + _BLOCK) for start in range(0, layout.count, _BLOCK)]
    with np.errstate(all="ignore"):
        for path in files:
            values = reader.read(path)
            if base is not None:
                values -= base
            norm = math.sqrt(sum(float(np.dot(values[part], values[part])) for part in parts))
            if math.isfinite(norm):
                factor = 1.0 if norm <= bound else bound / norm
                for part in parts:
                    # In place: one pass, and no copy of the values.
                    daxpy(values[part], total[part], a=factor)
    return total


def base_values(path: Path, layout: Layout) -> Values:
    """The values that a round starts from: of a safetensors file, or of the weights in a stored ZIP.

    Raises:
        InvalidData: where it does not hold these tensors.
    """
    try:
        found = read_layout(path, *weights_in(path))
    except Unreadable as error:
        raise InvalidData(f"the base cannot be read: {error}", remedy="name another base") from error
    if found.shapes() != layout.shapes():
        raise InvalidData("the base has other tensors than the round", remedy="open another round")
    values, at = np.empty(layout.count), 0
    with path.open("rb") as stream:
        for one in found.tensors.values():
            stream.seek(one.start)
            values[at : at + one.count] = as_floats(np.frombuffer(stream.read(one.size), np.uint8), one.dtype)
            at += one.count
    return values


def weights_in(path: Path) -> tuple[int, int | None]:
    """Where the safetensors file lies in `path`: the whole of it, or an entry of a stored ZIP, as [begin, end).

    Raises:
        Unreadable: where a ZIP has no such entry, or has compressed it.
    """
    if not zipfile.is_zipfile(path):
        return 0, None
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        if WEIGHTS not in archive.namelist():
            raise Unreadable(f"the archive holds no {WEIGHTS}")
        about = archive.getinfo(WEIGHTS)
        if about.compress_type != zipfile.ZIP_STORED:
            raise Unreadable("the weights are compressed in their archive")
        stream.seek(about.header_offset + 26)  # of the local header: lengths of name and of extra field
        lengths = stream.read(4)
    begin = about.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return begin, begin + about.file_size


def _receipt(spec: AggregateFile, landed: Path, job: str | None) -> dict[str, Any]:
    """What the round did, by its public numbers alone."""
    about = entry(landed)
    own, budget = [spec.event], spec.privacy_budget
    in_all = quoted(own, budget.spent, spec.delta, budget.order)
    return {
        "receipt_version": 1,
        "job": job,
        "created_at": now(),
        "inputs": {"population": spec.population, "round": spec.round, "expected_clients": spec.expected_clients},
        "privacy": {
            "mechanism": "dp_gradient_aggregation",
            "epsilon": _finite(epsilon(own, spec.delta)),
            "delta": spec.delta,
            "accountant": accountant(),
            "unit": "client",
            "relation": "add or remove one",
            "noise_multiplier": spec.noise_multiplier,
            "max_grad_norm": spec.clip_norm,
            "sampling_rate": spec.sampling_rate,
            "steps": 1,
            "sampling": spec.event.sampling,
            "noise_source": "os",
            "dataset_total_epsilon": _finite(in_all),
            "audited_lower_bound": None,
        },
        "warnings": [],
        "files": [{"path": about.path, "sha256": about.sha256, "size_bytes": about.size_bytes}],
        "signature": None,
    }


def _finite(value: float) -> float | None:
    return value if value < math.inf else None
