"""The parts of the benchmarks that figures rest on: texts made by code, the load generator, the count of operations."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks import texts
from benchmarks.flops import training_flops
from benchmarks.load import Load, content_length, fire, request_bytes
from engine.models import find
from engine.tasks.text_classification import TextClassification


def test_made_texts_are_as_long_as_those_of_ag_news(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(texts, "AG_NEWS", texts.ROOT / "absent")
    rows = [row for row, _ in zip(texts._rows("train"), range(texts.TRAIN_ROWS), strict=False)]
    task = TextClassification(find("minilm-l6", None), ("a", "b"), 128)
    lengths = task.lengths(task.encode([text for text, _ in rows]))
    assert 49 <= lengths.mean() <= 52.5  # ag_news: 50.8
    assert np.abs(np.quantile(lengths, [0.05, 0.25, 0.5, 0.75]) - [32, 42, 50, 58]).max() <= 2
    assert len({label for _, label in rows}) == 4
    assert rows == [row for row, _ in zip(texts._rows("train"), range(texts.TRAIN_ROWS), strict=False)]


class Answering(socketserver.StreamRequestHandler):
    """Answers each request in some pieces until the client leaves."""

    status, pieces = "202 Accepted", 1

    def handle(self) -> None:
        while head := self._head():
            self.rfile.read(content_length(head))
            answer = f"HTTP/1.1 {self.status}\r\nContent-Length: 6\r\n\r\nanswer".encode()
            step = -(-len(answer) // self.pieces)
            for start in range(0, len(answer), step):
                self.wfile.write(answer[start : start + step])

    def _head(self) -> bytes:
        """The lines up to the empty one; nothing where the client has left."""
        lines = []
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            lines.append(line)
        return b"".join(lines)


@contextlib.contextmanager
def answering(status: str, pieces: int) -> Iterator[int]:
    """The port of a server that answers so."""
    handler = type("Handler", (Answering,), {"status": status, "pieces": pieces})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_load_counts_whole_answers(pieces: int) -> None:
    with answering("202 Accepted", pieces) as port:
        request = request_bytes("127.0.0.1", port, "/x", b"12345", {"Authorization": "Bearer k"})
        load = fire("127.0.0.1", port, request, 202, seconds=0.3, clients=4)
    assert len(load.latencies) > 4
    assert load.errors == 0
    assert load.seconds >= 0.3


def test_another_status_is_an_error() -> None:
    with answering("429 Too Many Requests", 1) as port:
        request = request_bytes("127.0.0.1", port, "/x", b"12345", {})
        load = fire("127.0.0.1", port, request, 202, seconds=0.1, clients=2)
    assert load.errors == len(load.latencies) > 0


def test_rates_and_percentiles() -> None:
    load = Load([0.001 * i for i in range(1, 101)], 0, 2.0)
    assert load.rate == 50
    assert load.p99 == pytest.approx(0.1, abs=0.002)
    assert request_bytes("h", 1, "/p", json.dumps({}).encode(), {}).startswith(b"POST /p HTTP/1.1\r\nHost: h:1\r\n")


def test_operations_are_those_that_pytorch_counts() -> None:
    """Oracle: PyTorch's own counter over one forward and backward pass with attention in the open."""
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    model = BertForSequenceClassification._from_config(config, attn_implementation="eager")
    lengths = np.array([7, 19, 12])
    ids = torch.randint(0, 50, (3, 19))
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    with counter:
        model(input_ids=ids).logits.sum().backward()
    counted = counter.get_total_flops()

    class Task:
        pass

    task = Task()
    task.config = config  # type: ignore[attr-defined]
    found = training_flops(task, lengths, [(0, 1, 2)])  # type: ignore[arg-type]
    assert found == pytest.approx(counted, rel=0.03)  # the head's products are left out
