"""`fiftytwo demo`: a whole run in small, and that it fails when its job or its limits do."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import demo as module
from app.demo import INSTRUCTIONS, SPEC, write_zip
from client.cli import main
from tests.client.stand_in_server import KEY, RECEIPT, StandIn


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The demo's server replaced by one whose job has no model to predict with."""
    server = StandIn(b"")
    server.start()

    @contextmanager
    def in_its_place(_: Path) -> Iterator[tuple[str, str]]:
        yield server.url, KEY

    monkeypatch.setattr(module, "_server", in_its_place)
    monkeypatch.setattr(server, "artifact", lambda: {"id": "art_2", "kind": "report"})
    yield server
    server.stop()


def test_the_whole_path_in_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"training": {**SPEC["training"], "epochs": 2}, "limits": {"min_metric": 0.2, "max_size_ratio": 0.5}}
    images, digits = module.pictures()
    monkeypatch.setattr(module, "pictures", lambda: (images[:600], digits[:600]))
    monkeypatch.setattr(module, "SPEC", SPEC | small)
    keep = tmp_path / "kept"
    assert main(["demo", "--keep", str(keep), "--json"]) == 0
    printed = capsys.readouterr()
    receipt = json.loads(printed.out)
    assert receipt == json.loads((keep / "receipt.json").read_text())
    assert receipt["limits"]["passed"] is True
    assert {one["number"] for one in receipt["plan"]} == set(INSTRUCTIONS)
    assert "the downloaded model reads" in printed.err
    assert "max_size_ratio" in printed.err
    assert (keep / "model" / "model.onnx").is_file()


def test_a_receipt_that_passes_ends_well(stood_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "receipt.json"
    assert main(["demo", "--json", str(target)]) == 0
    assert json.loads(target.read_text()) == RECEIPT
    printed = capsys.readouterr().out
    assert "the receipt's limits hold; server and model are gone again" in printed
    assert "next: fiftytwo serve" in printed
    ((_, body),) = stood_in.seen("POST", "/v1/jobs")
    assert json.loads(body)["instructions"] == INSTRUCTIONS


def test_a_failed_job_fails_the_demo(stood_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    stood_in.job_state = "failed"
    assert main(["demo"]) == 1
    printed = capsys.readouterr().err
    assert "a limit is missed" in printed
    assert "next: fiftytwo demo --keep DIR" in printed


def test_limits_that_did_not_pass_fail_the_demo(stood_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    missed: dict[str, Any] = {"passed": False, "checks": []}
    monkeypatch.setitem(RECEIPT, "limits", missed)
    assert main(["demo"]) == 1
    assert stood_in.looks > 0


def test_a_folder_with_something_in_it_is_not_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--keep", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_the_digits_are_real_pictures_a_folder_a_class(tmp_path: Path) -> None:
    assert write_zip(tmp_path / "digits.zip") == 1797
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        names = archive.namelist()
        picture = Image.open(io.BytesIO(archive.read("0/0000.png")))
        assert (picture.size, picture.mode) == ((8, 8), "L")
    assert sorted({name.split("/")[0] for name in names}) == [str(digit) for digit in range(10)]
