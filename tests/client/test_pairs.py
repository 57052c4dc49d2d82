"""A package of pairs, on a tiny model whose embeddings can be worked out by hand."""

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from client.artifact import Package
from client.cli import main
from client.errors import BadUsage, ExitCode

WORDS = {"[PAD]": 0, "[UNK]": 1, "light": 2, "dark": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts are [lights, darks] and pictures [mean, 1 - mean] of the pixels."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    table = np.zeros((4, 2), np.float32)
    table[2, 0] = table[3, 1] = 1
    constants: dict[str, np.ndarray] = {
        "table": table,
        "last": np.array([2], np.int64),
        "tokens": np.array([1], np.int64),
        "inner": np.array([1, 2, 3], np.int64),
        "end": np.array([1], np.int64),
        "one": np.array(1, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["text_embeds"], keepdims=0),
        helper.make_node("ReduceMean", ["pixel_values", "inner"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "end"], ["light"]),
        helper.make_node("Sub", ["one", "light"], ["dark"]),
        helper.make_node("Concat", ["light", "dark"], ["image_embeds"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["pictures", 1, 8, 8]),
    ]
    outputs = [
        helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["pictures", 2]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    config = {"task": "text_image_pairs", "max_length": 6, "preprocess": [], "pad_token_id": 0, "logit_scale": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "labels.json").write_text("[]")
    processor = {"image_mode": "L", "size": {"height": 8, "width": 8}, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def grey(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), level).save(stream, "PNG")
    return stream.getvalue()


def test_answers_are_both_embeddings_side_by_side(folder: Path) -> None:
    answers = Package(folder).answers([("light light dark", grey(255)), ("dark", grey(0))])
    np.testing.assert_allclose(answers, [[2, 1, 1, 0], [0, 1, 0, 1]], atol=1e-6)
    with pytest.raises(BadUsage, match="texts with pictures"):
        Package(folder).answers(["light"])


def test_texts_are_ranked_for_each_picture(folder: Path) -> None:
    found = Package(folder).rank([grey(255), grey(51)], ["light", "dark", "light"])
    assert [one.label for one in found] == ["light", "dark"]
    share = 1 / (1 + np.exp(-np.exp(2.0)))
    assert found[0].scores == pytest.approx({"light": share, "dark": 1 - share})


def test_the_command_takes_files_as_pictures_and_words_as_texts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    white = tmp_path / "white.png"
    white.write_bytes(grey(255))
    assert main(["predict", str(folder), str(white), "light", "dark", "--json"]) == ExitCode.OK
    (answer,) = json.loads(capsys.readouterr().out)
    assert (answer["input"], answer["label"]) == (str(white), "light")
    assert set(answer["scores"]) == {"light", "dark"}


@pytest.mark.parametrize("words", [["light", "dark"], ["PICTURE"]])
def test_the_command_says_what_it_takes(
    folder: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    white = tmp_path / "white.png"
    white.write_bytes(grey(255))
    given = [str(white) if word == "PICTURE" else word for word in words]
    assert main(["predict", str(folder), *given]) == ExitCode.REFUSED
    assert "PICTURE... TEXT..." in capsys.readouterr().err


def test_a_model_of_pairs_gives_no_labels_and_one_of_labels_ranks_nothing(folder: Path, text_folder: Path) -> None:
    with pytest.raises(BadUsage, match="no labels"):
        Package(folder).predict(["light"])
    with pytest.raises(BadUsage, match="ranked"):
        Package(text_folder).rank([grey(0)], ["hello"])
