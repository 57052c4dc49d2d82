"""ZIPs and checkpoints: equal content gives equal bytes, and what is stored loads again."""

import hashlib
import os
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from engine.archive import entry, land, load_checkpoint, save_shapes, save_weights, zip_folder
from engine.inference import eager_answers
from engine.pruning import reshape, shapes_of
from engine.quantization import Setting
from engine.quantized import wrap
from tests.engine.tiny import tiny_task, tiny_texts


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    archives: list[Path] = []
    for name, order in (("first", "ba"), ("second", "ab")):
        folder = tmp_path / name
        folder.mkdir()
        for letter in order:
            (folder / letter).write_text(letter)
            os.utime(folder / letter, (1e9 * len(archives), 1e9))
        archives.append(zip_folder(folder, tmp_path / f"{name}.zip"))
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as stored:
        assert stored.namelist() == ["a", "b"]
        assert {one.compress_type for one in stored.infolist()} == {zipfile.ZIP_STORED}
        assert {one.date_time for one in stored.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_lands_whole_and_is_hashed(tmp_path: Path) -> None:
    path = land(b"content", tmp_path / "file")
    assert list(tmp_path.iterdir()) == [path]
    assert entry(path).sha256 == hashlib.sha256(b"content").hexdigest()


def test_a_rounding_model_is_stored_by_plain_names_and_loads(tmp_path: Path) -> None:
    task = tiny_task(tmp_path / "base")
    model = task.build().eval()
    examples = task.encode(tiny_texts(6)[0])
    expected = eager_answers(task, model, examples)
    batch = task.collate(examples, [0] * 6)
    wrapped = wrap(model, Setting(), ["classifier"], lambda probed: task.forward(probed, batch))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_weights(wrapped, folder)
    save_shapes(wrapped, task.build(), folder)
    task.describe(folder, wrapped, [])
    assert not (folder / "shapes.json").exists()
    stranger = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (eager_answers(task, stranger, examples) == expected).all()


def test_a_resized_model_loads_with_its_shapes(tmp_path: Path) -> None:
    task = tiny_task(tmp_path / "base")
    shapes = shapes_of(task.build())
    for part in ("intermediate.dense.weight", "intermediate.dense.bias"):
        shapes["tensors"][f"bert.encoder.layer.0.{part}"][0] = 24
    shapes["tensors"]["bert.encoder.layer.0.output.dense.weight"][1] = 24
    model = reshape(task.build(), shapes)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    save_weights(model, tmp_path)
    save_shapes(model, task.build(), tmp_path)
    loaded = load_checkpoint(tmp_path, task.build())
    examples = task.encode(tiny_texts(4)[0])
    assert (eager_answers(task, loaded, examples) == eager_answers(task, model, examples)).all()
