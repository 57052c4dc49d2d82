"""The kind `evaluate`: the figures of a file on its own test rows and on others, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.artifact import Package
from engine.errors import InvalidData, InvalidPlan, LimitMissed
from engine.events import FileWritten, Finished, PhaseStarted, Warned
from engine.ports import text_of
from engine.rows import Rows
from tests.engine.parents import receipt_of, run_job, text_parent
from tests.engine.tiny import LABELS, tiny_image_rows, tiny_text_rows, write_rows

pytestmark = pytest.mark.usefixtures("measured_here")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose `models` holds the base."""
    made = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYTWO_MODELS_DIR", str(made / "models"))
        yield made


@pytest.fixture(scope="module")
def parent(folder: Path) -> Json:
    """Normalised and quantised: what an input goes through, and a file that differs from its checkpoint."""
    return text_parent(folder, [1, {"number": 9, "test": 0.2}, 47])


def evaluated(parent: Json, folder: Path, **more: Any) -> Json:
    run_job({"kind": "evaluate", "model": "job_parent", "parent": parent, **more}, folder)
    return receipt_of(folder)


def test_its_own_test_rows_give_the_score_of_the_training(parent: Json, folder: Path) -> None:
    events = run_job({"kind": "evaluate", "model": "job_parent", "parent": parent}, folder / "own")
    receipt, trained = receipt_of(folder / "own"), receipt_of(folder / "train")
    assert [one.phase for one in events if isinstance(one, PhaseStarted)] == ["data", "measure", "receipt"]
    assert [one.kind for one in events if isinstance(one, FileWritten)] == ["receipt"]
    (end,) = [one for one in events if isinstance(one, Finished)]
    assert end.result["quality"]["value"] == receipt["quality"]["exported"]["value"]
    for name in ("metric", "exported", "macro_f1", "recall"):
        kept = {"exported": receipt["quality"][name]["exported"]} if name == "macro_f1" else receipt["quality"][name]
        assert kept == (
            {"exported": trained["quality"][name]["exported"]} if name == "macro_f1" else trained["quality"][name]
        )
    assert receipt["job"] == "job_child"
    assert receipt["plan"] == []
    assert receipt["quality"]["reference"]["kind"] == "checkpoint"
    n = receipt["quality"]["exported"]["n"]
    (listed,) = receipt["inputs"]["datasets"]
    assert listed == {**trained["inputs"]["datasets"][0], "splits": {"test": n}}
    assert receipt["inputs"]["base_model"]["name"] == "job_parent"
    told = {one["path"]: one["sha256"] for one in trained["files"]}
    assert {one["path"]: one["sha256"] for one in receipt["files"]} == told
    assert receipt["size"]["exported_bytes"] == trained["size"]["exported_bytes"]
    assert receipt["latency"]["runs"] >= 8


def test_all_rows_of_a_data_set_go_through_what_the_package_replays(parent: Json, folder: Path) -> None:
    plain = tiny_text_rows(60, seed=9)
    texts = [f"  {text_of(one).replace(' ', '   ')}\u200b " for one in plain.payloads]
    rows = Rows(texts, plain.ids, plain.labels, plain.splits, None, plain.shards)
    path = write_rows(rows, folder / "ds_others.parquet", "text_classification")
    receipt = evaluated(parent, folder / "others", dataset=str(path))
    answers = Package(Path(parent["package"])).answers(list(plain.payloads))
    right = answers.argmax(axis=1) == plain.labels
    assert receipt["quality"]["exported"]["value"] == pytest.approx(float(right.mean()), abs=1e-6)
    assert receipt["quality"]["exported"]["n"] == 60
    # The checkpoint sees what the package replays: on raw texts it would be a stranger's answers.
    assert receipt["quality"]["agreement"] > 0.9
    assert receipt["inputs"]["datasets"][0]["splits"] == {"test": 60}

    classes = receipt["quality"]["classes"]
    assert set(classes) == set(LABELS)
    for number, name in enumerate(LABELS):
        mine, said = plain.labels == number, answers.argmax(axis=1) == number
        assert classes[name]["n"] == int(mine.sum())
        assert classes[name]["recall"] == pytest.approx(float((said & mine).sum() / mine.sum()), abs=1e-6)
        assert classes[name]["precision"] == pytest.approx(float((said & mine).sum() / said.sum()), abs=1e-6)
    shares = np.exp(answers) / np.exp(answers).sum(axis=1, keepdims=True)
    calibration = receipt["quality"]["calibration"]
    assert sum(one["n"] for one in calibration["bins"]) == 60
    mean = sum(one["n"] * one["confidence"] for one in calibration["bins"]) / 60
    assert mean == pytest.approx(float(shares.max(axis=1).mean()), abs=1e-4)


def test_of_a_private_models_own_test_rows_none_is_told_of_by_itself(parent: Json, folder: Path) -> None:
    private = {**parent, "spec": {**parent["spec"], "instructions": [37]}}
    quality = evaluated(private, folder / "private_own")["quality"]
    assert quality["exported"]["n"]
    assert (quality["flipped"], quality["golden"]) == ([], [])
    path = write_rows(tiny_text_rows(30, seed=9), folder / "ds_public.parquet", "text_classification")
    assert len(evaluated(private, folder / "private_others", dataset=str(path))["quality"]["golden"]) == 20


def warned(parent: Json, folder: Path, rows: Path) -> list[tuple[str, str]]:
    events = run_job({"kind": "evaluate", "model": "m", "parent": parent, "dataset": str(rows)}, folder / "warned")
    return [(one.code, one.detail) for one in events if isinstance(one, Warned)]


def test_rows_that_the_model_was_trained_on_are_told_of(parent: Json, folder: Path) -> None:
    own = Path(parent["spec"]["dataset"])
    ((code, detail),) = warned(parent, folder, own)
    trained = receipt_of(folder / "train")["inputs"]["datasets"][0]["splits"]["train"]
    assert (code, f"trained on {trained} of these 200 rows" in detail) == ("training_rows", True)
    assert detail in receipt_of(folder / "warned")["warnings"]
    new = write_rows(tiny_text_rows(30, seed=9), folder / "ds_new.parquet", "text_classification")
    assert warned(parent, folder, new) == []
    gone = {**parent, "spec": {**parent["spec"], "dataset": str(folder / "ds_gone.parquet")}}
    ((code, _),) = warned(gone, folder, new)
    assert code == "unknown_training_rows"


def test_of_a_private_model_the_same_is_told_of_all_rows(parent: Json, folder: Path) -> None:
    private = {**parent, "spec": {**parent["spec"], "instructions": [37]}}
    new = write_rows(tiny_text_rows(30, seed=9), folder / "ds_new.parquet", "text_classification")
    first, second = (warned(private, folder, rows) for rows in (new, Path(parent["spec"]["dataset"])))
    assert first == second
    assert [code for code, _ in first] == ["unknown_training_rows"]


def test_limits_decide_after_the_receipt_is_whole(parent: Json, folder: Path) -> None:
    with pytest.raises(LimitMissed) as caught:
        evaluated(parent, folder / "missed", limits={"max_size_bytes": 10, "min_metric": 0.0})
    assert [fault.pointer for fault in caught.value.faults] == ["/limits/max_size_bytes"]
    assert not receipt_of(folder / "missed")["limits"]["passed"]


def test_the_same_evaluation_gives_the_same_figures(parent: Json, folder: Path) -> None:
    first, second = (evaluated(parent, folder / name) for name in ("once", "twice"))
    for receipt in (first, second):
        for measured in ("created_at", "latency", "warnings"):
            del receipt[measured]
    assert first == second


def test_rows_that_do_not_fit_are_refused(parent: Json, folder: Path) -> None:
    pictures = write_rows(tiny_image_rows(20), folder / "ds_pictures.parquet", "image_classification")
    with pytest.raises(InvalidData, match="the model serves text_classification"):
        evaluated(parent, folder / "refused", dataset=str(pictures))
    strange = write_rows(tiny_text_rows(20), folder / "ds_strange.parquet", "text_classification", ["ham", "eggs"])
    with pytest.raises(InvalidData, match="eggs"):
        evaluated(parent, folder / "refused", dataset=str(strange))
    broken = folder / "broken.zip"
    broken.write_bytes(b"PK")
    with pytest.raises(InvalidData, match=r"broken\.zip is no ZIP"):
        evaluated({**parent, "package": str(broken)}, folder / "refused")
    with pytest.raises(InvalidPlan, match="length_bucketing does nothing"):
        evaluated(parent, folder / "refused", instructions=[11])
