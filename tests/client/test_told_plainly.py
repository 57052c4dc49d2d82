"""What is printed is what was meant, whatever signs are in it; and a disk that refuses is no traceback."""

import errno
import io
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from client import tables
from client.cli import main
from tests.client.stand_in_server import StandIn
from tests.client.test_cli import run_json


def test_names_with_brackets_are_printed_as_they_are(
    logged_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [{"id": "ds_1", "name": "a[/b]", "labels": ["[/INST]", "[red]x"], "state": "[/]", "task": "[bold]"}]
    with monkeypatch.context() as lists:
        lists.setattr("client.http.Client.listed", lambda *_, **__: iter(found))
        assert main(["datasets"]) == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in ("a[/b]", "[/INST]", "[red]x"))
        assert main(["jobs"]) == 0
        assert "[/]" in capsys.readouterr().out
    logged_in.looks = 3
    data = tmp_path / "mail[" / "x].csv"
    data.parent.mkdir()
    data.write_text("text,label\n")
    assert main(["submit", "--data", str(data), "--task", "a"]) == 0
    assert "mail[/x].csv as ds_1" in capsys.readouterr().out
    assert main(["download", "job_1", "--out", str(tmp_path / "out[/y]")]) == 0
    assert "out[/y]" in capsys.readouterr().out


def test_a_receipt_with_brackets_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "job": "[/job]",
        "plan": [{"number": 1, "name": "[/plan]"}],
        "quality": {"metric": "[/metric]", "exported": {"value": 0.5, "n": 1, "ci95": [0.0, 1.0]}},
        "limits": {"checks": [{"name": "[/limit]", "limit": 1, "measured": "[/3]", "outcome": "[/odd]"}]},
    }
    tables.receipt(Console(width=160), content)
    printed = capsys.readouterr().out
    tables.receipt(Console(width=160), {"job": "job_1", "plan": []})
    assert "plan: no instruction was chosen" in capsys.readouterr().out
    assert all(f"[/{word}]" in printed for word in ("job", "plan", "metric", "limit", "3", "odd"))


def test_an_instruction_is_shown_with_what_its_parameters_take(capsys: pytest.CaptureFixture[str]) -> None:
    number = {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None, "description": "the guarantee"}
    choice = {"enum": ["os", "torch"], "default": "os"}
    fields = {"epsilon": number, "source": choice, "steps": {"type": "integer"}}
    one = {"number": 37, "name": "dp_sgd", "does": "Adds [noise].", "parameters": {"properties": fields}}
    tables.instruction(Console(width=160), one)
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "Adds [noise]." in printed
    assert "epsilon number or null null the guarantee" in printed
    assert 'source os or torch "os"' in printed
    assert "steps integer required" in printed


@pytest.mark.parametrize(("entry", "out"), [("a", "file/inside"), ("x" * 256, "out")])
def test_a_place_that_takes_no_file_exits_with_2(
    entry: str, out: str, logged_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, b"1")
    logged_in.package, logged_in.looks = stream.getvalue(), 3
    assert main(["download", "job_1", "--out", str(tmp_path / out)]) == 2
    assert "next: check the path" in capsys.readouterr().err


def test_a_full_disk_says_so(
    logged_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out" / "model.onnx"))

    monkeypatch.setattr("client.commands.unpack", full)
    logged_in.looks = 3
    assert main(["download", "job_1", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert "model.onnx: No space left on device" in printed
    assert "next: make room" in printed
    code, answer = run_json(capsys, "download", "job_1", "--out", str(tmp_path / "out"))
    assert (code, "No space" in answer["error"]["detail"]) == (2, True)
