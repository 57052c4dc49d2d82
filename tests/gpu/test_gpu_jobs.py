"""Whole jobs that train on a GPU: the file that ships agrees with its model, and what has no room fails as that."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.parents import image_parent, language_parent, receipt_of, run_job, text_parent
from tests.engine.tiny import tiny_bert, tiny_text_rows, write_rows

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::UserWarning")]

MODELS = "FIFTYTWO_MODELS_DIR"
JOBS: dict[str, tuple[Callable[..., Any], list[Any], float]] = {
    "text": (text_parent, [], 0.75),
    "text, pruned and rounded in training": (text_parent, [{"name": "structured_pruning", "ratio": 0.3}, 49, 51], 0.8),
    "text, pruned and rounded afterwards": (
        text_parent,
        [{"name": "structured_pruning", "recovery_steps": 40}, "post_training_quantization"],
        0.8,
    ),
    "text, distilled": (text_parent, [{"name": "knowledge_distillation", "steps": 60}], 0.8),
    "text, adapters": (text_parent, [19, 26], 0.5),
    "text, audited": (text_parent, [{"name": "membership_inference_audit", "references": 1}], 0.7),
    "text, private": (text_parent, [37], 0.0),
    "pictures": (image_parent, [36], 0.85),
    "pictures, pruned and rounded in training": (image_parent, [45, 49, 51], 0.8),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_whole_job_hands_over_a_file_that_agrees_with_its_model(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: torch.device
) -> None:
    """The delivery refuses a file that answers otherwise; the receipt says where it was trained."""
    parent, choices, least = JOBS[job]
    monkeypatch.setenv(MODELS, str(tmp_path / "models"))
    parent(tmp_path, choices)
    receipt = receipt_of(tmp_path / "train")
    assert receipt["quality"]["exported"]["value"] >= least
    if here.type == "cuda":
        assert receipt["environment"]["device"] == torch.cuda.get_device_name()


def test_a_language_model_trains_packed_adapters_and_hands_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS, str(tmp_path / "models"))
    language_parent(tmp_path, [12, 19])
    receipt = receipt_of(tmp_path / "train")
    effects = {one["number"]: one["effects"] for one in receipt["plan"]}
    assert effects[12]["documents_per_row"] > 1
    assert effects[12]["leak"] <= 1e-3
    assert effects[19]["merge_error"] < 1e-2
    assert receipt["quality"]["exported"]["value"] < receipt["quality"]["base"]["value"]
    assert (tmp_path / "train" / "outputs" / "adapter.zip").is_file()


def test_a_trained_model_is_compressed_where_training_is_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS, str(tmp_path / "models"))
    parent = text_parent(tmp_path)
    body = {"kind": "compress", "model": "job_parent", "parent": parent, "dataset": str(tmp_path / "ds_parent.parquet")}
    run_job({**body, "instructions": [{"name": "structured_pruning", "recovery_steps": 40}, 47]}, tmp_path / "small")
    receipt = receipt_of(tmp_path / "small")
    assert receipt["quality"]["exported"]["value"] >= 0.8
    assert receipt["size"]["ratio"] < 0.6


def test_a_run_that_finds_no_room_on_the_gpu_fails_with_that_reason(tmp_path: Path, cuda: torch.device) -> None:
    tiny_bert(tmp_path / "models" / "tiny-bert", hidden=256, layers=6)
    data = write_rows(tiny_text_rows(200), tmp_path / "ds_1.parquet", "text_classification")
    spec = {"task": "text_classification", "model": "tiny-bert", "dataset": str(data)}
    (tmp_path / "job.json").write_text(json.dumps({**spec, "training": {"batch_size": 64, "max_length": 32}}))
    room = 48 * 2**20 / torch.cuda.get_device_properties(cuda).total_memory
    code = (
        f"import sys, torch; torch.cuda.set_per_process_memory_fraction({room!r}); from engine.__main__ import main;"
        f" sys.exit(main([{str(tmp_path / 'job.json')!r}, '--out', {str(tmp_path / 'out')!r}]))"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS, str(tmp_path / "models"))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1, done.stderr
    assert (last["event"], last["error"]["code"]) == ("failed", "out_of_memory")
    assert "batch_size" in last["error"]["remedy"]
