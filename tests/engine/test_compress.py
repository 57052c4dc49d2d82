"""The kind `compress`: what it takes over from its parent, what it may learn from, and that it repeats itself."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.artifact import Package
from engine.archive import SHAPES, entry
from engine.compress import compress_model
from engine.data import Data
from engine.errors import InvalidPlan, LimitMissed
from engine.events import FileWritten, Listed, PhaseStarted, StepDone
from engine.instructions.compression.i45_structured_pruning import StructuredPruning
from engine.interrupt import Interrupt, StopRequested
from engine.kinds import CompressFile
from engine.rows import Rows
from engine.run import Run
from tests.engine.parents import image_parent, receipt_of, run_job, text_parent
from tests.engine.tiny import tiny_text_rows, write_rows

pytestmark = pytest.mark.usefixtures("measured_here")

Json = dict[str, Any]
DYNAMIC = {"number": 47, "scheme": "dynamic_int8"}
PRUNE = {"number": 45, "ratio": 0.25, "importance": "l2", "recovery_steps": 0}
_FILES = (("package", "model"), ("checkpoint", "checkpoint"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose `models` holds the base."""
    made = tmp_path_factory.mktemp("compress")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYTWO_MODELS_DIR", str(made / "models"))
        yield made


@pytest.fixture(scope="module")
def parent(folder: Path) -> Json:
    """A float model whose training normalised its texts."""
    return text_parent(folder, [1])


@pytest.fixture(scope="module")
def pruned(parent: Json, folder: Path) -> Path:
    """The parent without a quarter of its units, made without rows; its folder."""
    compressed(parent, folder / "pruned", [PRUNE])
    return folder / "pruned"


def compressed(parent: Json, folder: Path, instructions: list[Any], **more: Any) -> list[Any]:
    body = {"kind": "compress", "model": "job_parent", "parent": parent, "instructions": instructions, **more}
    return run_job(body, folder)


def names_in(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def dealt(parent: Json, folder: Path, instruction: Any, rows: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """The rows of a compression of a data set, as its first instruction finds them."""
    seen: list[Data] = []

    def look(instruction: Any, run: Run, model: Any) -> Any:
        seen.append(run.data)
        raise StopRequested

    monkeypatch.setattr(StructuredPruning, "compress", look)
    with pytest.raises(StopRequested):
        compressed(parent, folder / "looked", [instruction], dataset=str(rows))
    return seen[0]


def test_without_rows_the_parent_is_the_reference(parent: Json, folder: Path) -> None:
    events = compressed(parent, folder / "dynamic", [DYNAMIC], limits={"max_size_ratio": 0.6, "max_metric_loss": 0.2})
    told = {event.kind: event for event in events if isinstance(event, FileWritten)}
    assert {"model", "checkpoint", "receipt"} <= set(told)
    assert all(entry(folder / "dynamic" / one.path).sha256 == one.sha256 for one in told.values())
    phases = [event.phase for event in events if isinstance(event, PhaseStarted)]
    assert phases == ["data", "compress", "export", "measure", "receipt"]
    receipt, trained = receipt_of(folder / "dynamic"), receipt_of(folder / "train")
    assert receipt["quality"]["reference"]["value"] == trained["quality"]["exported"]["value"]
    assert receipt["quality"]["reference"]["n"] == trained["quality"]["exported"]["n"]
    assert receipt["size"]["reference_bytes"] == trained["size"]["reference_bytes"]
    assert receipt["size"]["exported_bytes"] < 0.6 * trained["size"]["exported_bytes"]
    (listed,) = receipt["inputs"]["datasets"]
    assert listed["splits"] == {"test": trained["quality"]["exported"]["n"]}
    assert [one["number"] for one in receipt["plan"]] == [47]
    config = json.loads(zipfile.ZipFile(folder / "dynamic" / "outputs" / "model.zip").read("config.json"))
    assert [step["name"] for step in config["preprocess"]] == ["text_normalization"]


def test_of_a_private_models_test_rows_none_is_told_of_by_itself(parent: Json, folder: Path) -> None:
    private = {**parent, "spec": {**parent["spec"], "instructions": [37]}}
    compressed(private, folder / "private", [DYNAMIC])
    quality = receipt_of(folder / "private")["quality"]
    assert quality["exported"]["n"]
    assert (quality["flipped"], quality["golden"]) == ([], [])


def test_equal_jobs_give_equal_bytes_also_after_a_kill(
    parent: Json, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_rows(tiny_text_rows(120, seed=4), folder / "ds_more.parquet", "text_classification")
    plan = [{"number": 45, "ratio": 0.25, "recovery_steps": 6}, {"number": 47, "calibration_rows": 16}]
    told = compressed(parent, folder / "whole", plan, dataset=str(rows))
    recovered = [one for one in told if isinstance(one, StepDone)]
    assert (recovered[-1].step, recovered[-1].total_steps) == (6, 6), "how far a recovery is"
    assert not any(one.values for one in recovered)
    pruned = StructuredPruning.compress

    def stopped(*given: Any) -> Any:
        pruned(*given)
        raise StopRequested

    with monkeypatch.context() as patch:
        patch.setattr(StructuredPruning, "compress", stopped)
        with pytest.raises(StopRequested):
            compressed(parent, folder / "again", plan, dataset=str(rows))
    compressed(parent, folder / "again", plan, dataset=str(rows))
    first, second = (folder / name / "outputs" for name in ("whole", "again"))
    assert (first / "checkpoint.zip").read_bytes() == (second / "checkpoint.zip").read_bytes()
    assert zipfile.ZipFile(first / "model.zip").read("model.onnx") == zipfile.ZipFile(second / "model.zip").read(
        "model.onnx"
    )


def test_no_row_that_it_is_scored_on_is_learned_from(
    parent: Json, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The parent's own rows in a file that calls nearly all of them training rows.
    path = write_rows(tiny_text_rows(200), folder / "ds_marked.parquet", "text_classification")
    splits = ["valid", "test", *["train"] * 198]
    pq.write_table(pq.read_table(path).append_column("split", pa.array(splits)), path)
    data = dealt(parent, folder, 45, path, monkeypatch)
    tested = receipt_of(folder / "train")["quality"]["exported"]["n"]
    assert len(data.test) == tested
    assert not set(data.train.ids) & set(data.test.ids)
    assert len(data.train) >= 198 - tested


@pytest.mark.parametrize("further", [False, True])
def test_no_row_is_held_out_that_the_parent_was_trained_on(
    parent: Json, folder: Path, monkeypatch: pytest.MonkeyPatch, further: bool
) -> None:
    """Neither where the job names the very file of the training nor where another file holds the same rows."""
    own, new = tiny_text_rows(200), tiny_text_rows(300, seed=6)
    files = {"train": parent["spec"]["dataset"]}
    for split, seed in (("valid", 7), ("test", 8)):
        path = folder / f"ds_{split}.parquet"
        files[split] = str(write_rows(tiny_text_rows(30, seed=seed), path, "text_classification"))
    given = Path(files["train"])
    if further:
        both = [np.concatenate([getattr(own, name), getattr(new, name)]) for name in ("ids", "labels", "splits")]
        rows = Rows([*own.payloads, *new.payloads], both[0], both[1], both[2], None, np.zeros(500, np.int64))
        given = write_rows(rows, folder / "ds_with_more.parquet", "text_classification")
    data = dealt({**parent, "spec": {**parent["spec"], "dataset": files}}, folder, 45, given, monkeypatch)
    assert set(data.train.ids) & set(own.ids)
    assert len(data.valid) > 5
    assert not set(data.valid.ids) & set(own.ids)
    assert set(data.valid.ids) <= set(new.ids if further else tiny_text_rows(30, seed=7).ids)


def test_no_count_tells_which_rows_a_private_model_knows(
    parent: Json, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = {**parent, "spec": {**parent["spec"], "instructions": [37]}}
    data = dealt(private, folder, PRUNE, Path(parent["spec"]["dataset"]), monkeypatch)
    assert (len(data.train), len(data.valid)) == (0, 0)
    assert len(data.test)


def test_a_pruned_model_is_loaded_measured_and_compressed_again(pruned: Path, parent: Json, folder: Path) -> None:
    assert SHAPES in names_in(pruned / "outputs" / "checkpoint.zip")
    first = receipt_of(pruned)
    assert first["size"]["parameters"]["exported"] < first["size"]["parameters"]["reference"]
    files = {"package": str(pruned / "outputs/model.zip"), "checkpoint": str(pruned / "outputs/checkpoint.zip")}
    smaller = {**parent, "job": "job_pruned", **files}
    compressed(smaller, folder / "twice", [DYNAMIC])
    second = receipt_of(folder / "twice")
    assert second["quality"]["reference"]["value"] == first["quality"]["exported"]["value"]
    assert second["size"]["parameters"]["reference"] == first["size"]["parameters"]["exported"]
    assert second["inputs"]["base_model"]["name"] == "job_pruned"
    assert SHAPES in names_in(folder / "twice" / "outputs" / "checkpoint.zip")
    run_job({"kind": "evaluate", "model": "job_pruned", "parent": smaller}, folder / "judged")
    judged = receipt_of(folder / "judged")["quality"]
    assert judged["exported"]["value"] == judged["reference"]["value"] == first["quality"]["exported"]["value"]


def test_pruning_without_rows_is_the_same_as_with_rows(pruned: Path, parent: Json, folder: Path) -> None:
    compressed(parent, folder / "with_rows", [PRUNE], dataset=parent["spec"]["dataset"])
    first, second = (one / "outputs" / "checkpoint.zip" for one in (pruned, folder / "with_rows"))
    assert first.read_bytes() == second.read_bytes()
    (listed,) = receipt_of(folder / "with_rows")["inputs"]["datasets"]
    assert set(listed["splits"]) == {"train", "valid", "test"}
    assert sum(listed["splits"].values()) == 200


def test_pictures_without_rows(folder: Path) -> None:
    parent = image_parent(folder / "pictures")
    compressed(parent, folder / "smaller_pictures", [PRUNE])
    receipt = receipt_of(folder / "smaller_pictures")
    assert (
        receipt["quality"]["reference"]["value"]
        == receipt_of(folder / "pictures/train")["quality"]["exported"]["value"]
    )
    assert receipt["size"]["ratio"] < 1
    with pytest.raises(InvalidPlan, match="ranges that are fixed"):
        compressed(parent, folder / "refused", [DYNAMIC])
    package = Package(folder / "smaller_pictures" / "outputs" / "model.zip")
    assert package.config["task"] == "image_classification"


@pytest.mark.parametrize(
    ("instructions", "code"),
    [
        ([], "nothing_to_do"),
        ([45], "needs_rows"),
        ([47], "needs_rows"),
        ([{"number": 45, "importance": "l1"}], "needs_rows"),
        ([11, DYNAMIC], "wrong_kind"),
        ([49], "wrong_kind"),
    ],
)
def test_what_cannot_be_done_is_told_before_it_begins(
    parent: Json, folder: Path, instructions: list[Any], code: str
) -> None:
    with pytest.raises(InvalidPlan) as caught:
        compressed(parent, folder / "refused", instructions)
    assert code in {fault.code for fault in caught.value.faults}


def test_a_limit_that_is_missed_leaves_the_files(parent: Json, folder: Path) -> None:
    with pytest.raises(LimitMissed, match="exported_bytes"):
        compressed(parent, folder / "missed", [DYNAMIC], limits={"max_size_bytes": 10})
    assert not receipt_of(folder / "missed")["limits"]["passed"]
    assert (folder / "missed" / "outputs" / "model.zip").is_file()


def test_a_wrong_spec_of_the_parent_is_no_failure_of_ours(parent: Json, folder: Path) -> None:
    spec = CompressFile.model_validate(
        {"kind": "compress", "model": "m", "parent": parent, "instructions": [DYNAMIC], "metric": "bits_per_byte"}
    )
    with pytest.raises(InvalidPlan) as caught:
        compress_model(spec, folder / "refused", Listed(), job=None, interrupt=Interrupt())
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [("/metric", "wrong_metric")]


def test_a_student_and_a_trimmed_vocabulary_are_measured_as_they_ship(parent: Json, folder: Path) -> None:
    rows = parent["spec"]["dataset"]
    plan = [{"number": 43, "steps": 60}, {"number": 48, "max_unknown": 0.2, "min_count": 2}, DYNAMIC]
    compressed(parent, folder / "student", plan, dataset=rows)
    receipt, trained = receipt_of(folder / "student"), receipt_of(folder / "train")
    assert [one["number"] for one in receipt["plan"]] == [43, 48, 47]
    effects = {one["number"]: one["effects"] for one in receipt["plan"]}
    assert effects[43]["distillation_agreement"] > 0.5
    assert effects[48]["rows_kept"] > 0
    assert receipt["size"]["parameters"]["exported"] < trained["size"]["parameters"]["exported"]
    # The file's own reader, with the file's own tokenizer, says what the receipt's golden rows say.
    package = Package(folder / "student" / "outputs" / "model.zip")
    assert package.config["vocab_size"] == effects[48]["rows_kept"]
    files = {name: str(folder / "student" / "outputs" / f"{kind}.zip") for name, kind in _FILES}
    run_job({"kind": "evaluate", "model": "job_student", "parent": {**parent, **files}}, folder / "student_judged")
    judged = receipt_of(folder / "student_judged")["quality"]
    assert judged["exported"]["value"] == receipt["quality"]["exported"]["value"]
    assert judged["agreement"] > 0.8
