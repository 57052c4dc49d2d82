"""`python -m engine.measure REQUEST.json`: what a fresh process finds in an exported file. Knows not how it was made.

It gets a package's folder, raw rows and the untouched architecture; it never sees the training process's modules. It
writes `answers.npy` (rows, k) and `measured.json` beside the request.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import transformers
from torch import nn

from client.artifact import Feeds, Package
from engine.adapter_reader import AdaptedClassifier, adapted_decoder
from engine.archive import SHAPES, load_checkpoint
from engine.data import Source, read_rows
from engine.exporters.gguf import load_gguf
from engine.instruction import Exported
from engine.language_reader import LanguageReader
from engine.orphans import die_with
from engine.pair_encoder import PairEncoder
from engine.ports import Answers, Payload, content_of, size_of, text_of

GOLDEN = 20
CONTINUED = 40
"""So many test rows, of every length, a language model goes on from where every row's answer is wanted."""
_BATCH = 32
_WARM = 3
_OURS: Mapping[str, Any] = {"PairEncoder": PairEncoder}  # architectures that transformers lacks

Act: TypeAlias = Callable[[int], Any]


@dataclass(frozen=True)
class Request:
    """Paths, and the ids of the rows to answer, in order.

    `reference`: the untouched architecture in the Hugging Face layout. `rounds` and `seconds` bound the race, whichever
    comes first, but for the first `least` rounds. `threads`: of what PyTorch answers; the race has one.
    """

    package: str
    reference: str
    sources: list[str]
    ids: list[str]
    rounds: int = 60
    least: int = 12
    seconds: float = 20.0
    with_texts: bool = False
    format: str = "onnx"
    threads: int = 1
    with_answers: bool = False

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


class Asked(Exported, Protocol):
    """A package of rows with one answer each."""

    def feeds(self, inputs: Sequence[Payload], /) -> Feeds:
        """What the model is fed for one batch, by name."""

    def answer(self, feeds: Feeds, /) -> Answers:
        """The answers of one batch, (rows, k)."""


def answers_of(package: Asked, payloads: Sequence[Payload]) -> Answers:
    """Answers in the order of the payloads; batches hold rows of like length, so little of them is padding."""
    order = sorted(range(len(payloads)), key=lambda i: size_of(payloads[i]))
    answers = package.answers([payloads[i] for i in order], batch_size=_BATCH)
    restored = np.empty_like(answers)
    restored[order] = answers
    return restored


def spread(payloads: Sequence[Payload], count: int) -> list[int]:
    """Row numbers that stand for the rows' lengths: evenly spaced among them in order of length."""
    order = sorted(range(len(payloads)), key=lambda i: size_of(payloads[i]))
    return [order[int(i)] for i in np.linspace(0, len(order) - 1, min(count, len(order))).round()]


def race(
    first: Callable[[int], Any], second: Callable[[int], Any], inputs: int, rounds: int, least: int, seconds: float
) -> Mapping[str, list[float]]:
    """Seconds of two functions on inputs in turn, one of each a round, the order swapped from round to round."""
    for number in range(_WARM):
        first(number % inputs)
        second(number % inputs)
    times: dict[str, list[float]] = {"reference": [], "exported": []}
    began = time.perf_counter()
    for number in range(max(rounds, least)):
        pair = [("reference", first), ("exported", second)]
        for name, act in pair if number % 2 == 0 else reversed(pair):
            start = time.perf_counter()
            act(number % inputs)
            times[name].append(time.perf_counter() - start)
        if number + 1 >= least and time.perf_counter() - began > seconds:
            break
    return times


def _untouched(folder: Path) -> Any:
    """The reference in PyTorch fp32; of a parent that was pruned, in the shapes beside it."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = _OURS.get(architecture) or getattr(transformers, architecture)
    if (folder / SHAPES).is_file():
        return load_checkpoint(folder, kind(kind.config_class.from_pretrained(folder))).eval()
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


class Reader(Protocol):
    """A package of one format, loaded by a process that knows no more than its files."""

    @property
    def exported(self) -> Exported:
        """The same, as auditors see it."""

    def answers(self, payloads: Sequence[Payload], /) -> Answers:
        """(n, k) of raw rows, in their order."""

    def golden(self, payloads: Sequence[Payload]) -> Mapping[str, Any]:
        """`golden`, the answers by which a stranger knows the model again, and what they rest on."""

    def continued(self, payloads: Sequence[Payload]) -> Sequence[Mapping[str, Any]]:
        """How the file goes on from a part of each row; nothing of a file that does not speak."""

    def contestants(self, untouched: nn.Module, payloads: Sequence[Payload]) -> tuple[Act, Act]:
        """The untouched model and the file on one row each, by the row's number."""


class RowReader:
    """A package of rows with one answer each; of ONNX, on one thread."""

    def __init__(self, package: Asked) -> None:
        self.exported = package

    def answers(self, payloads: Sequence[Payload]) -> Answers:
        """(n, k) in the order of the payloads."""
        return answers_of(self.exported, payloads)

    def golden(self, payloads: Sequence[Payload]) -> Mapping[str, Any]:
        """The answers to some rows of every length, each alone."""
        rows = spread(payloads, GOLDEN)
        answers = [self.exported.answers([payloads[i]], batch_size=1)[0] for i in rows]
        return {
            "golden": [{"row": i, "answers": [float(x) for x in one]} for i, one in zip(rows, answers, strict=True)]
        }

    def continued(self, payloads: Sequence[Payload]) -> Sequence[Mapping[str, Any]]:
        """Nothing: its answers are whole."""
        return [{}] * len(payloads)

    def contestants(self, untouched: nn.Module, payloads: Sequence[Payload]) -> tuple[Act, Act]:
        """Both on the same feeds."""
        feeds = [self.exported.feeds([one]) for one in payloads]
        tensors = [{name: torch.from_numpy(value) for name, value in feed.items()} for feed in feeds]

        @torch.inference_mode()
        def reference(number: int) -> Any:
            return untouched(**tensors[number])

        return reference, lambda number: self.exported.answer(feeds[number])


def _onnx(folder: Path) -> Reader:
    return RowReader(Package(folder, threads=1))


def _adapter(folder: Path) -> Reader:
    task = json.loads((folder / "config.json").read_text(encoding="utf-8"))["task"]
    if task == "causal_lm":
        return LanguageReader(folder, load=adapted_decoder)
    return RowReader(AdaptedClassifier(folder))


READERS: Mapping[str, Callable[[Path], Reader]] = {
    "onnx": _onnx,
    "safetensors": LanguageReader,
    "gguf": partial(LanguageReader, load=load_gguf),
    "gguf-q8_0": partial(LanguageReader, load=load_gguf),
    "peft": _adapter,
}


def _race(reader: Reader, payloads: Sequence[Payload], request: Request) -> Mapping[str, list[float]]:
    """The untouched architecture in PyTorch fp32 against the file: batch 1, one thread, rows of every length."""
    torch.set_num_threads(1)
    chosen = [payloads[i] for i in spread(payloads, 32)]
    first, second = reader.contestants(_untouched(Path(request.reference)), chosen)
    order = np.random.default_rng(0).permutation(len(chosen)).tolist()
    return race(
        lambda number: first(order[number]),
        lambda number: second(order[number]),
        len(chosen),
        request.rounds,
        request.least,
        request.seconds,
    )


def _continued(reader: Reader, payloads: Sequence[Payload]) -> dict[int, Mapping[str, Any]]:
    rows = spread(payloads, CONTINUED)
    return dict(zip(rows, reader.continued([payloads[i] for i in rows]), strict=True))


def measure(request: Request, out: Path) -> None:
    """Answer every row, time the race, and write both down."""
    torch.set_num_threads(request.threads)
    reader = READERS[request.format](Path(request.package))
    payloads = raw_payloads(request.sources, request.ids)
    np.save(out / "answers.npy", reader.answers(payloads))
    shown = request.with_texts and not isinstance(payloads[0], bytes)
    content = {
        **reader.golden(payloads),
        "sha256": [hashlib.sha256(content_of(one)).hexdigest() for one in payloads],
        "texts": [text_of(one) for one in payloads] if shown else None,
        "continued": _continued(reader, payloads) if request.with_answers else {},
        "seconds": _race(reader, payloads, request),
    }
    (out / "measured.json").write_text(json.dumps(content))


def main(path: Path) -> None:
    """Measure what a request file asks for."""
    die_with()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measure(Request(**json.loads(path.read_text())), path.parent)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
