"""Models of pairs evaluated and compressed: recall both ways, fewer units, narrower numbers, fewer words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.artifact import Package
from engine.archive import SHAPES
from engine.contrastive import ranks, sides, told_apart
from engine.errors import InvalidPlan
from engine.evaluate import wilson
from engine.ports import text_of
from tests.engine.parents import files_of, pair_parent, receipt_of, run_job, unpacked
from tests.engine.tiny import VOCABULARY, tiny_bert, tiny_pair_rows, write_rows

pytestmark = pytest.mark.usefixtures("measured_here")

Json = dict[str, Any]
WAYS = ("image_to_text", "text_to_image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder; the packaged text tower is a tiny one in it."""
    made = tmp_path_factory.mktemp("pairs")
    tower = tiny_bert(made / "tower").folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.models._packaged", lambda name: tower)
        yield made


@pytest.fixture(scope="module")
def parent(folder: Path) -> Json:
    """A trained dual encoder."""
    return pair_parent(folder)


def evaluated(parent: Json, folder: Path, **more: Any) -> Json:
    run_job({"kind": "evaluate", "model": "job_parent", "parent": parent, **more}, folder)
    return receipt_of(folder)


def compressed(parent: Json, folder: Path, instructions: list[Any], **more: Any) -> Json:
    body = {"kind": "compress", "model": "job_parent", "parent": parent, "instructions": instructions, **more}
    run_job(body, folder)
    return receipt_of(folder)


def judged_again(parent: Json, smaller: Path, folder: Path) -> None:
    """What an evaluation of a smaller model finds is what its own receipt says."""
    told, found = receipt_of(smaller)["quality"], evaluated({**parent, **files_of(smaller)}, folder)["quality"]
    assert found["exported"] == told["exported"]
    for way in WAYS:
        assert {k: one["exported"] for k, one in found[way].items()} == {
            k: one["exported"] for k, one in told[way].items()
        }


def test_its_own_test_rows_give_recall_both_ways(parent: Json, folder: Path) -> None:
    receipt, trained = evaluated(parent, folder / "own"), receipt_of(folder / "train")
    quality = receipt["quality"]
    assert quality["metric"] == "recall_at_10"
    assert quality["exported"] == trained["quality"]["exported"]
    for way in WAYS:
        assert set(quality[way]) == {"recall_at_1", "recall_at_5", "recall_at_10"}
        assert quality[way] == trained["quality"][way]
    assert receipt["size"]["exported_bytes"] == trained["size"]["exported_bytes"]
    assert quality["agreement"] > 0.9
    assert "base" not in quality
    assert "classes" not in quality


def test_all_rows_of_a_data_set_are_ranked_among_each_other(parent: Json, folder: Path) -> None:
    rows = tiny_pair_rows(50, seed=6)
    path = write_rows(rows, folder / "ds_others.parquet", "text_image_pairs", ())
    quality = evaluated(parent, folder / "others", dataset=str(path), metric="recall_at_5")["quality"]
    text, image = sides(Package(Path(parent["package"])).answers(list(rows.payloads)))
    alike = told_apart(rows.labels)
    for way, places in zip(WAYS, (ranks(image, text, alike[:, ::-1]), ranks(text, image, alike)), strict=True):
        for k in (1, 5, 10):
            hits = int((places < k).sum())
            told = quality[way][f"recall_at_{k}"]
            assert told["exported"] == pytest.approx(hits / 50, abs=1e-6)
            assert told["ci95"] == pytest.approx(wilson(hits, 50), abs=1e-6)
    assert quality["exported"]["value"] == quality["image_to_text"]["recall_at_5"]["exported"]
    assert quality["exported"]["n"] == 50


def test_narrower_numbers(parent: Json, folder: Path) -> None:
    receipt = compressed(parent, folder / "narrow", [47], dataset=parent["spec"]["dataset"])
    assert receipt["size"]["ratio"] < 0.6
    assert receipt["quality"]["agreement"] > 0.7
    assert "base" not in receipt["quality"]
    trained = receipt_of(folder / "train")["quality"]
    assert receipt["quality"]["reference"]["value"] == trained["exported"]["value"]
    judged_again(parent, folder / "narrow", folder / "narrow_judged")


def test_fewer_units_without_rows(parent: Json, folder: Path) -> None:
    plan = [{"number": 45, "ratio": 0.25, "importance": "l2", "recovery_steps": 0}]
    receipt = compressed(parent, folder / "pruned", plan)
    assert receipt["size"]["parameters"]["exported"] < receipt["size"]["parameters"]["reference"]
    checkpoint = unpacked(folder / "pruned" / "outputs" / "checkpoint.zip", folder / "pruned" / "checkpoint")
    assert (checkpoint / SHAPES).is_file()
    judged_again(parent, folder / "pruned", folder / "pruned_judged")


def test_recovery_trains_on_the_rows_that_are_given(parent: Json, folder: Path) -> None:
    plan = [{"number": 45, "ratio": 0.25, "recovery_steps": 8}]
    receipt = compressed(parent, folder / "recovered", plan, dataset=parent["spec"]["dataset"])
    assert receipt["plan"][0]["effects"]["parameters_removed"] > 0
    assert set(receipt["inputs"]["datasets"][0]["splits"]) == {"train", "valid", "test"}


def test_fewer_words(parent: Json, folder: Path) -> None:
    receipt = compressed(parent, folder / "trimmed", [48], dataset=parent["spec"]["dataset"])
    (step,) = receipt["plan"]
    words = {word for row in tiny_pair_rows(240).payloads for word in text_of(row).split()}
    assert step["effects"]["rows_kept"] == len(words) + 4
    assert step["effects"]["rows_removed"] == len(VOCABULARY) - len(words) - 4
    # Every word of a test caption stays, so what is found is the same to the last row.
    assert receipt["quality"]["agreement"] == 1.0
    assert receipt["quality"]["loss"]["value"] == 0
    package = Package(folder / "trimmed" / "outputs" / "model.zip")
    assert package.config["text_config"]["vocab_size"] == len(words) + 4
    before, after = Package(Path(parent["package"])), package
    rows = list(tiny_pair_rows(6, seed=3).payloads)
    assert np.abs(before.answers(rows) - after.answers(rows)).max() < 1e-4
    judged_again(parent, folder / "trimmed", folder / "trimmed_judged")


def test_a_pruned_student_learns_what_its_teacher_finds(parent: Json, folder: Path) -> None:
    """From the same pruned weights, with the teacher's similarities alone and without a step."""
    found = {}
    for steps in (1, 60):
        plan = [{"number": 43, "alpha": 1.0}, {"number": 45, "ratio": 0.5, "importance": "l2", "recovery_steps": steps}]
        receipt = compressed(parent, folder / f"taught{steps}", plan, dataset=parent["spec"]["dataset"])
        found[steps] = receipt["plan"][0]["effects"]["distillation_agreement"]
    assert receipt["size"]["exported_bytes"] < receipt["size"]["reference_bytes"]
    assert found[60] > found[1]


def test_its_pictures_are_attacked(parent: Json, folder: Path) -> None:
    plan = [{"number": 36, "attacks": ["pgd20"], "epsilon": 0.2}]
    found = evaluated(parent, folder / "attacked", instructions=plan)["robustness"]
    assert (found["metric"], found["norm"]) == ("recall_at_1", "linf")
    assert found["robust"] < found["clean"]


@pytest.mark.parametrize(
    ("instruction", "code"), [(43, "missing_need"), ({"number": 47, "scheme": "dynamic_int8"}, "no_such_format")]
)
def test_what_does_not_serve_is_refused(parent: Json, folder: Path, instruction: Any, code: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        compressed(parent, folder / "refused", [instruction], dataset=parent["spec"]["dataset"])
    (fault,) = caught.value.faults
    assert (fault.code, bool(fault.remedy)) == (code, True)
    assert instruction != 43 or "(45)" in fault.remedy
