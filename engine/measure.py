"""`python -m engine.measure REQUEST.json`: what a fresh process finds in an exported file. Knows not how it was made.

It gets a package's folder, raw rows and the untouched architecture; it never sees the training process's modules. It
writes `answers.npy` (rows, k) and `measured.json` beside the request.
"""

import ctypes
import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from client.artifact import Package
from engine.data import Source, read_rows
from engine.ports import Answers, Payload

GOLDEN = 20
_BATCH = 32
_WARM = 3
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Request:
    """Paths, and the ids of the rows to answer, in order.

    `reference`: the untouched architecture in the Hugging Face layout. `rounds` and `seconds` bound the race, whichever
    comes first, but for the first 8 rounds.
    """

    package: str
    reference: str
    sources: list[str]
    ids: list[str]
    rounds: int = 60
    seconds: float = 20.0
    with_texts: bool = False

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))


def raw_payloads(sources: Sequence[str], ids: Sequence[str]) -> list[Payload]:
    """The payloads of some ids straight from the data files, unprocessed."""
    opened = [Source.open(Path(path)) for path in sources]
    rows = read_rows([(source, "") for source in opened], sorted({label for one in opened for label in one.labels}))
    wanted, found = set(ids), {}
    for number, one in enumerate(rows.ids.tolist()):
        if one in wanted and one not in found:
            found[one] = rows.payloads[number]
    return [found[one] for one in ids]


def answers_of(package: Package, payloads: Sequence[Payload]) -> Answers:
    """Answers in the order of the payloads; batches hold rows of like length, so little of them is padding."""
    order = sorted(range(len(payloads)), key=lambda i: len(payloads[i]))
    answers = package.answers([payloads[i] for i in order], batch_size=_BATCH)
    restored = np.empty_like(answers)
    restored[order] = answers
    return restored


def spread(payloads: Sequence[Payload], count: int) -> list[int]:
    """Row numbers that stand for the rows' lengths: evenly spaced among them in order of length."""
    order = sorted(range(len(payloads)), key=lambda i: len(payloads[i]))
    return [order[int(i)] for i in np.linspace(0, len(order) - 1, min(count, len(order))).round()]


def race(
    first: Callable[[int], Any], second: Callable[[int], Any], inputs: int, rounds: int, seconds: float
) -> Mapping[str, list[float]]:
    """Seconds of two functions on inputs in turn, one of each a round, the order swapped from round to round."""
    for number in range(_WARM):
        first(number % inputs)
        second(number % inputs)
    times: dict[str, list[float]] = {"reference": [], "exported": []}
    began = time.perf_counter()
    for number in range(rounds):
        pair = [("reference", first), ("exported", second)]
        for name, act in pair if number % 2 == 0 else reversed(pair):
            start = time.perf_counter()
            act(number % inputs)
            times[name].append(time.perf_counter() - start)
        if number >= 7 and time.perf_counter() - began > seconds:
            break
    return times


def _race(package: Package, folder: Path, payloads: Sequence[Payload], request: Request) -> Mapping[str, list[float]]:
    """The untouched architecture in PyTorch fp32 against the file: batch 1, one thread, rows of every length."""
    torch.set_num_threads(1)
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32).eval()
    feeds = [package.feeds([payloads[i]]) for i in spread(payloads, 32)]
    tensors = [{name: torch.from_numpy(value) for name, value in feed.items()} for feed in feeds]
    order = np.random.default_rng(0).permutation(len(feeds))

    @torch.inference_mode()
    def reference(number: int) -> Any:
        return model(**tensors[order[number]])

    return race(
        reference, lambda number: package.answer(feeds[order[number]]), len(feeds), request.rounds, request.seconds
    )


def measure(request: Request, out: Path) -> None:
    """Answer every row, time the race, and write both down."""
    package = Package(Path(request.package), threads=1)
    payloads = raw_payloads(request.sources, request.ids)
    np.save(out / "answers.npy", answers_of(package, payloads))
    golden = spread(payloads, GOLDEN)
    answers = [package.answers([payloads[i]], batch_size=1)[0] for i in golden]
    content = {
        "golden": [{"row": i, "answers": [float(x) for x in one]} for i, one in zip(golden, answers, strict=True)],
        "sha256": [_hash(one) for one in payloads],
        "texts": [str(one) for one in payloads] if request.with_texts and isinstance(payloads[0], str) else None,
        "seconds": _race(package, Path(request.reference), payloads, request),
    }
    (out / "measured.json").write_text(json.dumps(content))


def _hash(payload: Payload) -> str:
    return hashlib.sha256(payload.encode() if isinstance(payload, str) else payload).hexdigest()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(path: Path) -> None:
    """Measure what a request file asks for."""
    _die_with_parent()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measure(Request(**json.loads(path.read_text())), path.parent)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
