"""Exports against the eager model, and the file that every tool called sound while it read the mask as the ids."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from engine import export
from engine.errors import WrongExport
from engine.export import check_samples, export_onnx, file_answers
from engine.inference import eager_answers
from engine.ports import Payload, Samples
from engine.tasks.text_classification import TextClassification
from tests.engine.tiny import LABELS, tiny_bert, tiny_image_rows, tiny_image_task, tiny_task, tiny_texts


class OneTensorTwice(TextClassification):
    """The mistake itself: ids and mask are one object."""

    def samples(self, payloads: Sequence[Payload]) -> Samples:
        sound = super().samples(payloads)
        both = sound.inputs["attention_mask"]
        return Samples({"input_ids": both, "attention_mask": both}, sound.dynamic)


def ends(texts: Sequence[str]) -> list[Payload]:
    return [min(texts, key=len), max(texts, key=len)]


def test_a_text_model_answers_alike_padded_and_alone(tmp_path: Path) -> None:
    task, texts = tiny_task(tmp_path / "base"), tiny_texts(12)[0]
    model = task.build()
    path = export_onnx(task, model, ends(texts), tmp_path / "model.onnx")
    expected = eager_answers(task, model, task.encode(texts))
    for size in (1, 5, 12):
        assert np.abs(file_answers(task, path, texts, size) - expected).max() < 1e-4
    graph = onnx.load(path).graph
    shapes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim] for one in graph.input
    }
    assert shapes == {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
    assert [one.name for one in graph.output] == ["logits"]


def test_a_picture_model_answers_alike(tmp_path: Path) -> None:
    rows = tiny_image_rows(8)
    task = tiny_image_task(rows)
    model = task.build()
    path = export_onnx(task, model, rows.payloads[:2], tmp_path / "model.onnx")
    expected = eager_answers(task, model, task.encode(rows.payloads))
    assert np.abs(file_answers(task, path, rows.payloads, 8) - expected).max() < 1e-4


def test_equal_weights_give_equal_bytes_without_a_trace_of_the_machine(tmp_path: Path) -> None:
    task, texts = tiny_task(tmp_path / "base"), tiny_texts(6)[0]
    torch.manual_seed(4)
    model = task.build()
    first = export_onnx(task, model, ends(texts), tmp_path / "first.onnx").read_bytes()
    again = task.build()
    again.load_state_dict(model.state_dict())
    second = export_onnx(task, again, ends(texts[:3]), tmp_path / "second.onnx").read_bytes()
    assert first == second
    assert str(Path(export.__file__).parent).encode() not in first
    assert b"stack_trace" not in first


def test_one_tensor_for_two_inputs_is_refused(tmp_path: Path) -> None:
    task = OneTensorTwice(tiny_bert(tmp_path / "base"), LABELS, 32)
    with pytest.raises(WrongExport, match="input_ids and attention_mask share memory"):
        export_onnx(task, task.build(), ends(tiny_texts(6)[0]), tmp_path / "model.onnx")


def test_tensors_that_share_storage_are_refused() -> None:
    whole = torch.zeros(4, 6)
    with pytest.raises(WrongExport, match="share memory"):
        check_samples(Samples({"a": whole[:2], "b": whole[2:]}, {}))
    check_samples(Samples({"a": whole[:2].clone(), "b": whole[2:].clone()}, {}))


def test_a_file_that_reads_the_mask_as_the_ids_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With the look at the samples out of the way, the comparison with the eager model must find it: the file itself
    # loads, has the right names, shapes and bytes, and agrees with whatever is made from it.
    monkeypatch.setattr(export, "check_samples", lambda samples: None)
    base = tiny_bert(tmp_path / "base")
    task = OneTensorTwice(base, LABELS, 32)
    model, texts = task.build(), tiny_texts(20)[0]
    with pytest.raises(WrongExport, match="differ from the trained model's"):
        export_onnx(task, model, ends(texts), tmp_path / "model.onnx")
    wrong = file_answers(TextClassification(base, LABELS, 32), tmp_path / "model.onnx", texts, 1)
    lengths = [len(example) for example in task.encode(texts)]
    by_length = {length: wrong[i] for i, length in enumerate(lengths)}
    assert all(np.allclose(wrong[i], by_length[length], atol=1e-5) for i, length in enumerate(lengths))


class Renamed(TextClassification):
    """Calls its inputs something else at the export than afterwards."""

    calls = 0

    def samples(self, payloads: Sequence[Payload]) -> Samples:
        sound = super().samples(payloads)
        self.calls += 1
        if self.calls > 1:
            return sound
        names: Mapping[str, str] = {"input_ids": "tokens", "attention_mask": "mask"}
        inputs = {names[name]: value for name, value in sound.inputs.items()}
        return Samples(inputs, {names[name]: axes for name, axes in sound.dynamic.items()})

    def exportable(self, model: nn.Module) -> nn.Module:
        inner = super().exportable(model)

        class Other(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, tokens: Tensor, mask: Tensor) -> Any:
                return self.inner(tokens, mask)

        return Other().eval()


def test_other_names_are_refused(tmp_path: Path) -> None:
    task = Renamed(tiny_bert(tmp_path / "base"), LABELS, 32)
    with pytest.raises(WrongExport, match=r"should take \['input_ids', 'attention_mask'\]"):
        export_onnx(task, task.build(), ends(tiny_texts(6)[0]), tmp_path / "model.onnx")
