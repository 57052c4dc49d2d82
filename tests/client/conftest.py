"""Tiny models by code, for whatever reads a downloaded package."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from client.signature import ensure_key
from tests.client.receipts import write_receipt
from tests.client.stand_in_server import KEY, StandIn

WORDS = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "free": 4, "prize": 5, "hello": 6, "café": 7}
NORMALIZATION = {
    "name": "text_normalization",
    "parameters": {
        "form": "NFC",
        "repair": True,
        "strip_invisible": True,
        "keep_joiners": True,
        "whitespace": "collapse",
        "casefold": False,
    },
    "version": "ftfy 6.3.1",
}


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """A text model whose logits are [words, "free"s and "prize"s]: both are easy to count by hand."""
    folder = tmp_path / "text-model"
    folder.mkdir()
    table = np.zeros((len(WORDS), 2), dtype=np.float32)
    table[4:, 0] = 1
    table[4:6, 1] = 3
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["logits"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    constants: dict[str, np.ndarray] = {
        "table": table,
        "last": np.array([2], np.int64),
        "tokens": np.array([1], np.int64),
    }
    _save(folder, nodes, inputs, constants)
    config = {"task": "text_classification", "max_length": 6, "preprocess": [NORMALIZATION], "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "labels.json").write_text(json.dumps(["ham", "spam"]))
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=16, pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A picture model whose logits are [mean, 1 - mean] of the pixels."""
    folder = tmp_path / "image-model"
    folder.mkdir()
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values", "inner"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["light"]),
        helper.make_node("Sub", ["one", "light"], ["dark"]),
        helper.make_node("Concat", ["light", "dark"], ["logits"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 1, 8, 8])]
    constants: dict[str, np.ndarray] = {
        "inner": np.array([1, 2, 3], np.int64),
        "last": np.array([1], np.int64),
        "one": np.array(1, np.float32),
    }
    _save(folder, nodes, inputs, constants)
    (folder / "config.json").write_text(json.dumps({"task": "image_classification", "preprocess": []}))
    (folder / "labels.json").write_text(json.dumps(["light", "dark"]))
    processor = {"image_mode": "L", "size": {"height": 8, "width": 8}, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The private key of a server's receipts."""
    return ensure_key(tmp_path / "keys" / "receipt_key.pem")


@pytest.fixture
def signed(text_folder: Path, key: Path) -> Path:
    """A folder as a download leaves it: the package's files, its receipt, and the ZIP beside them."""
    write_receipt(text_folder, key)
    return text_folder


def _save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> None:
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")


@pytest.fixture
def package(text_folder: Path, tmp_path: Path) -> bytes:
    """The text model as the bytes of its ZIP."""
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(text_folder.iterdir()):
            target.write(path, path.name)
    return archive.read_bytes()


@pytest.fixture
def server(package: bytes) -> Iterator[StandIn]:
    """A running stand-in server."""
    stand_in = StandIn(package)
    stand_in.start()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def logged_in(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A server that the environment points at."""
    monkeypatch.setenv("FIFTYTWO_SERVER", server.url)
    monkeypatch.setenv("FIFTYTWO_KEY", KEY)
    return server
