"""The file of integers against the model that rounds: same arithmetic, and integers where they belong."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from engine.export import file_answers
from engine.inference import eager_answers
from engine.integer_modules import converted, export_integers
from engine.ports import Payload, Task
from engine.quantization import Inputs, Setting
from engine.quantized import QuantizedLinear, in_float, plain_state, ranges_of, wrap
from tests.engine.tiny import tiny_image_rows, tiny_image_task, tiny_task, tiny_texts


def calibrated(task: Task, payloads: list[Payload], activation: Inputs = "static", bits: int = 8) -> nn.Module:
    """A rounding model whose ranges hold these rows, with answers that differ from row to row."""
    torch.manual_seed(0)
    model, examples = task.build(), task.encode(payloads)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    for _ in range(3 if any(isinstance(one, nn.BatchNorm2d) for one in model.modules()) else 0):
        task.forward(model.train(), task.collate(examples, [0] * len(examples)))
    setting = Setting(activation=activation, activation_bits=bits)
    batch = task.collate(examples[:2], [0, 0])
    wrap(model, setting, ["classifier"], lambda probed: task.forward(probed, batch))
    setting.active, setting.calibrating = False, True
    eager_answers(task, model, examples)
    setting.active, setting.calibrating = True, False
    for one in ranges_of(model).values():
        one.move(keep=0.0)
    return model.eval()


def texts(count: int) -> list[Payload]:
    return list(tiny_texts(count)[0])


@pytest.mark.parametrize("bits", [4, 8])
def test_the_file_answers_as_the_rounding_model(tmp_path: Path, bits: int) -> None:
    task, payloads = tiny_task(tmp_path / "base"), texts(200)
    model = calibrated(task, payloads, bits=bits)
    path = export_integers(task, model, payloads[:2], tmp_path / "model.onnx")
    expected = eager_answers(task, model, task.encode(payloads))
    found = file_answers(task, path, payloads, 1)
    activation_step = max(float(one.high - one.low) for one in ranges_of(model).values()) / (2**bits - 1)
    assert np.abs(found - expected).max() <= activation_step
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995
    with in_float(model):
        assert np.abs(eager_answers(task, model, task.encode(payloads)) - expected).max() > 1e-3, "nothing was rounded"


def test_static_answers_do_not_depend_on_the_neighbours(tmp_path: Path) -> None:
    task, payloads = tiny_task(tmp_path / "base"), texts(40)
    path = export_integers(task, calibrated(task, payloads), payloads[:2], tmp_path / "model.onnx")
    alone, together = (file_answers(task, path, payloads, size) for size in (1, 40))
    assert np.abs(alone - together).max() < 1e-5


def test_a_dynamic_file_answers_as_its_model_row_by_row(tmp_path: Path) -> None:
    task, payloads = tiny_task(tmp_path / "base"), texts(40)
    model = calibrated(task, payloads, activation="dynamic")
    path = export_integers(task, model, payloads[:2], tmp_path / "model.onnx")
    expected = eager_answers(task, model, task.encode(payloads), batch_size=1)
    found = file_answers(task, path, payloads, 1)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= {node.op_type for node in onnx.load(path).graph.node}


def test_weights_and_tables_are_integers_within_half_a_step(tmp_path: Path) -> None:
    task, payloads = tiny_task(tmp_path / "base"), texts(20)
    model = calibrated(task, payloads)
    path = export_integers(task, model, payloads[:2], tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    integers = [value for value in stored.values() if value.dtype == np.int8]
    plain = plain_state(model)
    matrices = {name: value.numpy() for name, value in plain.items() if value.ndim == 2 and "classifier" not in name}
    assert sum(value.size for value in integers) == sum(value.size for value in matrices.values())
    largest_float = max(value.size for value in stored.values() if value.dtype == np.float32)
    assert largest_float < 200, "a weight is left in fp32"
    word = matrices["bert.embeddings.word_embeddings.weight"]
    levels = next(value for value in integers if value.shape == word.shape)
    step = np.abs(word).max(axis=1, keepdims=True) / 127
    assert (np.abs(levels * step - word) <= step * 0.5001).all()
    assert not (np.abs((levels + 1) * step - word) <= step * 0.5001).all()


def test_readers_of_one_tensor_share_one_range(tmp_path: Path) -> None:
    task, payloads = tiny_task(tmp_path / "base"), texts(4)
    layer = calibrated(task, payloads).get_submodule("bert.encoder.layer.0.attention.self")
    query, key, value = (layer.get_submodule(name) for name in ("query", "key", "value"))
    assert isinstance(query, QuantizedLinear)
    assert query.inputs is key.inputs is value.inputs


def test_a_batch_norm_is_folded_and_the_levels_stay(tmp_path: Path) -> None:
    rows = tiny_image_rows(40)
    task = tiny_image_task(rows)
    payloads = list(rows.payloads)
    model = calibrated(task, payloads)
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[0].weight[0] = -0.7  # a negative factor turns the sign of a channel's step, not its levels
    expected = eager_answers(task, model, task.encode(payloads))
    whole = converted(model)
    assert not any(isinstance(one, nn.BatchNorm2d) for one in whole.modules())
    assert np.abs(eager_answers(task, whole, task.encode(payloads)) - expected).max() < 0.02 * np.abs(expected).max()
    path = export_integers(task, model, payloads[:2], tmp_path / "model.onnx")
    found = file_answers(task, path, payloads, 8)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95
    assert path.stat().st_size < 0.3 * sum(one.numel() * 4 for one in model.parameters())


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    task, payloads = tiny_task(tmp_path / "base"), texts(12)
    first, second = (
        export_integers(task, calibrated(task, payloads), payloads[:2], tmp_path / f"{name}.onnx").read_bytes()
        for name in "ab"
    )
    assert first == second
