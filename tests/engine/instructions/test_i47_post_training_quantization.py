"""47: each scheme's file against the model before it, and what its figures must show."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from engine.errors import InvalidData, InvalidPlan
from engine.events import Listed, Warned
from engine.export import file_answers
from engine.inference import eager_answers
from engine.plan import Plan
from engine.quantized import in_float, plain_state, ranges_of
from engine.run import Run
from engine.spec import Spec
from tests.engine.runs import tiny_run, trained
from tests.engine.tiny import tiny_text_rows
from tests.engine.tiny_run import begun

KEPT = ["query", "token_type_embeddings"]
SCHEMES = ["static_int8", "dynamic_int8", "embedding_int4", "weight_int4"]


@cache
def learned() -> dict[str, torch.Tensor]:
    """The weights after the training, which no scheme has a part in."""
    with TemporaryDirectory() as folder:
        run = trained(tiny_run(Path(folder), (), tiny_text_rows(200), epochs=8), Path(folder))
        return dict(run.model.state_dict())


def compressed(folder: Path, **parameters: Any) -> Run:
    """A trained run after the fold."""
    choice = {"name": "post_training_quantization", "calibration_rows": 32, **parameters}
    run = begun(tiny_run(folder, [choice], tiny_text_rows(200), epochs=8))
    run.model.load_state_dict(learned())
    run.model = run.plan.instructions[0].compress(run, run.model)
    run.model.eval()
    return run


def exported(run: Run, folder: Path) -> Path:
    return run.plan.slot("exporter").exporter(run, run.model, folder)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """For each scheme: bytes of the file, and logits of float model, rounding model and file on the training rows."""
    found = {}
    for scheme in SCHEMES:
        folder = tmp_path_factory.mktemp(scheme)
        run = compressed(folder, scheme=scheme, keep=KEPT if scheme == "weight_int4" else [])
        path, examples = exported(run, folder), run.data.examples["train"]
        with in_float(run.model):
            plain = eager_answers(run.task, run.model, examples, 1)
        found[scheme] = {
            "bytes": path.stat().st_size,
            "stored": [numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer],
            "state": {name: value.numpy() for name, value in plain_state(run.model).items()},
            "float": plain,
            "rounded": eager_answers(run.task, run.model, examples, 1),
            "file": file_answers(run.task, path, list(run.data.train.payloads), 1),
        }
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_file_answers_as_the_rounding_model(answers: dict[str, dict[str, Any]], scheme: str) -> None:
    one = answers[scheme]
    assert (one["file"].argmax(1) == one["rounded"].argmax(1)).mean() >= 0.98
    error = np.abs(one["file"] - one["rounded"]).mean()
    assert error < 0.05 * np.abs(one["rounded"]).mean()
    assert error < np.abs(one["rounded"] - one["float"]).mean() or scheme == "dynamic_int8"


def test_eight_bits_stay_nearer_to_float_than_four(answers: dict[str, dict[str, Any]]) -> None:
    error = {scheme: float(np.abs(one["file"] - one["float"]).mean()) for scheme, one in answers.items()}
    assert error["static_int8"] < error["embedding_int4"] < error["weight_int4"]
    assert answers["weight_int4"]["bytes"] < answers["static_int8"]["bytes"]
    assert (answers["static_int8"]["file"].argmax(1) == answers["static_int8"]["float"].argmax(1)).mean() > 0.95


def test_ranges_come_from_training_rows_in_evaluation_mode(tmp_path: Path) -> None:
    run = compressed(tmp_path)
    seen: list[bool] = []
    run.model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    ranges = {name: (float(one.low), float(one.high)) for name, one in ranges_of(run.model).items()}
    assert all(low < high for low, high in ranges.values())
    eager_answers(run.task, run.model, run.data.examples["test"])
    assert ranges == {name: (float(one.low), float(one.high)) for name, one in ranges_of(run.model).items()}
    assert seen
    assert not any(seen)


def test_a_percentile_gives_narrower_ranges(tmp_path: Path) -> None:
    wide = ranges_of(compressed(tmp_path / "a").model)
    narrow = ranges_of(compressed(tmp_path / "b", range="percentile", percentile=99.0).model)
    assert all(float(narrow[name].high - narrow[name].low) < float(one.high - one.low) for name, one in wide.items())


def test_weights_in_the_file_err_by_half_a_step_and_a_shifted_zero_point_does_not(tmp_path: Path) -> None:
    run = compressed(tmp_path)
    graph = onnx.load(exported(run, tmp_path)).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    pairs = {(node.input[0], node.input[1]) for node in graph.node if node.op_type == "DequantizeLinear"}
    weights = [value.numpy() for name, value in plain_state(run.model).items() if name.endswith("dense.weight")]
    checked = 0
    for levels, step in ((stored[a], stored[b]) for a, b in pairs if a in stored and stored[a].ndim == 2):
        for weight in (one for one in weights if one.shape == levels.shape[::-1]):
            if np.allclose(np.abs(weight).max(axis=1) / 127, step, rtol=1e-5):
                assert (np.abs(levels.T * step[:, None] - weight) <= step[:, None] * 0.5001).all()
                assert not (np.abs((levels.T + 1.0) * step[:, None] - weight) <= step[:, None] * 0.5001).all()
                checked += 1
    assert checked == len(weights)


def test_what_is_kept_stays_in_fp32(tmp_path: Path) -> None:
    run = compressed(tmp_path, keep=["layer.0", "embeddings"])
    kinds = {name: type(one) for name, one in run.model.named_modules()}
    assert kinds["bert.encoder.layer.0.intermediate.dense"] is nn.Linear
    assert kinds["bert.embeddings.word_embeddings"] is nn.Embedding
    assert kinds["bert.encoder.layer.1.intermediate.dense"] is not nn.Linear


def test_what_is_kept_stays_in_fp32_in_a_file_of_four_bits(answers: dict[str, dict[str, Any]]) -> None:
    stored, state = answers["weight_int4"]["stored"], answers["weight_int4"]["state"]

    def in_full(name: str) -> list[bool]:
        weights = [value for found, value in state.items() if found.endswith(f"{name}.weight")]
        return [any(np.array_equal(one, way) for one in stored for way in (weight, weight.T)) for weight in weights]

    assert all(in_full(name) == [True] * count for name, count in (("query", 2), ("token_type_embeddings", 1)))
    assert all(in_full(name) == [False] * count for name, count in (("key", 2), ("word_embeddings", 1)))


def test_too_few_rows_and_blocks_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="fewer than the 4096"):
        compressed(tmp_path / "a", calibration_rows=4096)
    with pytest.raises(InvalidData, match="no multiple of blocks of 64"):
        compressed(tmp_path / "b", scheme="weight_int4", block_size=64)
    run = compressed(tmp_path / "c", scheme="embedding_int4", block_size=64, keep=["embeddings", "clasifier"])
    assert isinstance(run.sink, Listed)
    assert [one.detail for one in run.sink.events if isinstance(one, Warned)] == ["keep names no module: clasifier"]


@pytest.mark.parametrize("scheme", ["weight_int4", "embedding_int4", "dynamic_int8"])
def test_pictures_have_neither_four_bits_nor_dynamic_ranges(scheme: str) -> None:
    choice = {"name": "post_training_quantization", "scheme": scheme}
    spec = Spec.model_validate({"task": "image_classification", "dataset": "none", "instructions": [choice]})
    with pytest.raises(InvalidPlan, match="does not serve image_classification"):
        Plan.of(spec)
