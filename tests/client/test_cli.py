"""The user's command against a stand-in server: what it prints, sends and exits with; and that it needs no torch."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from client import account
from client.cli import main, parser
from tests.client.stand_in_server import KEY, RECEIPT_KEY, StandIn

# What a machine with only the base dependencies does not have. A real virtual environment would prove the same and
# take minutes and a package index; the hook refuses these imports however deep they come from.
BLOCKER = """
import sys

class Absent:
    names = {"torch", "transformers", "fastapi", "starlette", "sqlalchemy", "pydantic", "celery", "redis", "alembic",
             "uvicorn", "pyarrow", "onnx", "sklearn", "boto3", "zstandard", "app", "engine", "worker"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("FIFTYTWO_SERVER", "FIFTYTWO_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """A small data file."""
    path = tmp_path / "mail.csv"
    path.write_text("text,label\nfree prize,spam\nhello,ham\n")
    return path


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """Exit code and the one JSON document of a run with --json."""
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_whole_journey_without_torch(server: StandIn, mail: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
        "FIFTYTWO_SERVER": server.url,
        "FIFTYTWO_KEY": KEY,
    }

    def fiftytwo(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "client.cli", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    blocked = fiftytwo("serve")
    assert (blocked.returncode, "fiftytwo[server]" in blocked.stderr) == (2, True)
    flags = ["--task", "text_classification", "--instructions", "1,11,20,47"]
    submitted = fiftytwo("submit", "--data", str(mail), *flags, "--json")
    assert submitted.returncode == 0, submitted.stderr
    assert json.loads(submitted.stdout)["id"] == "job_1"
    watched = fiftytwo("watch", "job_1")
    assert watched.returncode == 0, watched.stderr
    assert "job_1 succeeded" in watched.stdout
    assert "\x1b" not in watched.stdout + watched.stderr
    downloaded = fiftytwo("download", "job_1", "--out", "out")
    assert downloaded.returncode == 0, downloaded.stderr
    predicted = fiftytwo("predict", "out", "free prize prize", "hello", "--json")
    assert [one["label"] for one in json.loads(predicted.stdout)] == ["spam", "ham"]


def test_the_one_line_journey(
    logged_in: StandIn, mail: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--task", "text_classification", "--instructions", "1,warmup_schedule", "--set", "training.epochs=2"]
    assert main(["submit", "--data", str(mail), *words, "--wait", "--download", str(out)]) == 0
    (_, checked), (_, body) = logged_in.seen("POST", "/v1/jobs")
    assert json.loads(checked) == {name: value for name, value in json.loads(body).items() if name != "dataset"}
    assert json.loads(body) == {
        "kind": "train",
        "task": "text_classification",
        "dataset": "ds_1",
        "instructions": [1, "warmup_schedule"],
        "training": {"epochs": 2},
    }
    assert (out / "model.onnx").is_file()
    printed = capsys.readouterr().out
    for part in (
        "0.9700",
        "22,000,000",
        "x 0.244",
        "x 0.350 (median of pairs)",
        "min_metric",
        "few rows [n < 200]",
        f"fiftytwo predict {out}",
    ):
        assert part in printed


def test_a_spec_file_with_flags_over_it(logged_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "job.json"
    spec.write_text(json.dumps({"task": "a", "dataset": "ds_9", "training": {"epochs": 1, "seed": 7}}))
    instructions = '[3, {"name": "structured_pruning", "ratio": 0.4}]'
    flags = ["--instructions", instructions, "--set", "training.epochs=2", "--set", "metric=macro_f1"]
    code, job = run_json(capsys, "submit", str(spec), *flags)
    assert (code, job["id"]) == (0, "job_1")
    ((_, body),) = logged_in.seen("POST", "/v1/jobs")
    assert json.loads(body) == {
        "kind": "train",
        "task": "a",
        "dataset": "ds_9",
        "training": {"epochs": 2, "seed": 7},
        "instructions": [3, {"name": "structured_pruning", "ratio": 0.4}],
        "metric": "macro_f1",
    }


def test_a_failed_job_exits_with_1_and_says_why(logged_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    logged_in.job_state = "failed"
    assert main(["watch", "job_1"]) == 1
    printed = capsys.readouterr().out
    assert "limit_missed" in printed
    assert "/limits/min_speedup: 1.2, not 1.5" in printed
    assert "next: mend" in printed


def test_a_cancelled_job_exits_with_1(logged_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    logged_in.job_state = "cancelled"
    code, job = run_json(capsys, "watch", "job_1")
    assert (code, job["state"], job["receipt"]) == (1, "cancelled", None)


def test_a_refused_request_exits_with_2_and_lists_every_fault(
    logged_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "--data", "ds_1", "--task", "bad_task"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "/task: no such task — text_classification" in printed.err
    assert "/model: no such model — minilm-l6" in printed.err
    code, answer = run_json(capsys, "submit", "--data", "ds_1", "--task", "bad_task")
    assert (code, len(answer["error"]["errors"])) == (2, 2)
    assert len(logged_in.seen("POST", "/v1/jobs")) == 2


def test_a_wrong_spec_uploads_nothing(logged_in: StandIn, mail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = run_json(capsys, "submit", "--data", str(mail), "--task", "bad_task")
    assert code == 2
    assert [fault["pointer"] for fault in answer["error"]["errors"]] == ["/task", "/model"]
    assert "Field required" not in answer["error"]["detail"]
    assert "dataset" not in answer["error"]
    assert main(["submit", "--data", str(mail), "--task", "a", "--key", "wrong"]) == 2
    assert "no valid key" in capsys.readouterr().err
    assert not logged_in.seen("POST", "/v1/datasets")


def test_a_job_refused_after_the_upload_names_the_data_set_that_stays(
    logged_in: StandIn, mail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "--data", str(mail), "--task", "a", "--name", "bad_for_this_data"]
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert "/name: no such group" in printed
    assert "the data set stays as ds_1: submit again with --data ds_1" in printed
    assert run_json(capsys, *words)[1]["error"]["dataset"] == "ds_1"


def test_an_absent_server_exits_with_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("client.http.Client._rest", lambda *_: None)
    assert main(["jobs", "--server", "http://127.0.0.1:9", "--key", "x"]) == 3
    assert "fiftytwo serve" in capsys.readouterr().err


def test_no_package_exits_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path / "none"), "text"]) == 4
    assert "fiftytwo download" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense"], "no command nonsense"),
        (["sumbit"], "did you mean submit?"),
        (["srve"], "did you mean serve?"),
        ([], "required"),
        (["submit", "--task", "a"], "--data"),
        (["submit", "--instructions", "[1", "--data", "ds_1"], "no JSON list"),
        (["submit", "--set", "epochs", "--data", "ds_1"], "FIELD=VALUE"),
        (["submit", "--set", "kind.x=1", "--data", "ds_1"], "kind is no object"),
        (["submit", "missing.json"], "missing.json"),
        (["submit", "--data", "missing.csv"], "task"),
        (["jobs", "--limit", "0"], "--limit"),
        (["download", "job_1", "--kind", "gguf"], "no artifact of kind"),
    ],
)
def test_bad_usage_exits_with_2(
    logged_in: StandIn, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert "next:" in printed
    assert not logged_in.seen("POST", "/v1/jobs")


def test_login_keeps_the_account_for_this_user_only(server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs"]) == 2
    assert "fiftytwo login" in capsys.readouterr().err
    assert main(["login", "--server", server.url, "--key", KEY]) == 0
    assert stat.S_IMODE(account.account_file().stat().st_mode) == 0o600
    assert account.pinned_key() == RECEIPT_KEY
    assert main(["login", "--server", server.url, "--key", KEY]) == 0
    assert main(["jobs"]) == 0
    assert "job_3" in capsys.readouterr().out


def test_login_takes_what_the_environment_names(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYTWO_SERVER", server.url)
    monkeypatch.setenv("FIFTYTWO_KEY", KEY)
    assert main(["login"]) == 0
    monkeypatch.delenv("FIFTYTWO_SERVER")
    monkeypatch.delenv("FIFTYTWO_KEY")
    assert account.find(None, None) == account.Account(server.url, KEY)


def test_login_refuses_a_wrong_key(server: StandIn) -> None:
    assert main(["login", "--server", server.url, "--key", "wrong"]) == 2
    assert not account.account_file().exists()


def test_a_saved_key_is_not_sent_to_another_server(server: StandIn) -> None:
    account.save(account.Account("http://elsewhere", KEY))
    assert main(["jobs", "--server", server.url]) == 2
    assert server.requests == []
    assert account.find(None, None) == account.Account("http://elsewhere", KEY)


def test_lists_and_single_objects(logged_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "jobs")[1][2]["id"] == "job_3"
    assert run_json(capsys, "datasets")[1][0]["id"] == "ds_1"
    assert run_json(capsys, "instructions")[1][0]["number"] == 1
    assert run_json(capsys, "jobs", "job_1")[1]["id"] == "job_1"
    assert run_json(capsys, "cancel", "job_1") == (0, [{"id": "job_1", "state": "cancelling"}])
    assert run_json(capsys, "datasets", "delete", "ds_1")[1]["deleted"] is True
    assert len(logged_in.seen("DELETE", "/v1/datasets/ds_1")) == 1
    assert main(["instructions"]) == 0
    assert "a, b" in capsys.readouterr().out
    assert main(["jobs", "job_404"]) == 2
    assert run_json(capsys, "pause", "job_1", "job_1") == (0, [{"id": "job_1", "state": "pausing"}] * 2)
    assert run_json(capsys, "resume", "job_1") == (0, [{"id": "job_1", "state": "queued"}])
    assert main(["models"]) == 0
    assert "minilm-l6" in capsys.readouterr().out


def test_a_flag_before_the_action_counts_as_well(logged_in: StandIn, mail: Path) -> None:
    words = ["datasets", "--json", "--key", "wrong", "upload", str(mail), "--task", "a"]
    assert parser().parse_args(words).json is True
    assert main(words) == 2
    assert main([*words, "--key", KEY]) == 0
    assert len(logged_in.seen("POST", "/v1/datasets")) == 2


def test_a_text_file_and_a_picture_can_be_predicted(
    text_folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mail.txt").write_text("free prize")
    _, (first, second) = run_json(capsys, "predict", str(text_folder), str(tmp_path / "mail.txt"), "hello " * 500)
    assert (first["label"], second["label"]) == ("spam", "ham")
    assert main(["predict", str(text_folder), "a/mial.txt", "hello.txt you", "Hello."]) == 0
    assert capsys.readouterr().err == "note: there is no file a/mial.txt: it is read as a text\n"
    assert sum(first["scores"].values()) == pytest.approx(1)
    (tmp_path / "mail.csv").write_text("text\nfree prize\n")
    assert main(["predict", str(text_folder), str(tmp_path / "mail.csv")]) == 0
    assert "mail.csv is read as one text, not row by row" in capsys.readouterr().err
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    assert main(["predict", str(image_folder), str(tmp_path / "white.png")]) == 0
    assert "white.png: light" in capsys.readouterr().out
    assert main(["predict", str(image_folder), str(tmp_path / "black.png")]) == 2
    assert "note:" not in capsys.readouterr().err
