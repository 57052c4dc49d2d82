"""`python -m engine` with a job file that is none: what is wrong and what to do, by the right exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.__main__ import as_engine_error, main


def test_a_file_that_is_not_there_is_a_wrong_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "missing.json"), "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "missing.json: No such file or directory" in said
    assert "name a file that holds the job's spec as JSON" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "pointer", "detail", "remedy"),
    [
        ("{task:", "", "Invalid JSON", "send a JSON object"),
        ('{"dataset": "a", "task": "text_classification", "epochs": 1}', "/epochs", "no field", "/training/epochs"),
    ],
)
def test_a_file_that_is_no_spec_is_a_problem(
    tmp_path: Path, content: str, pointer: str, detail: str, remedy: str
) -> None:
    job = tmp_path / "job.json"
    job.write_text(content)
    command = [sys.executable, "-m", "engine", str(job), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (error["code"], error["title"]) == ("invalid_data", "The job file is not the spec of a job")
    (fault,) = error["errors"]
    assert fault["pointer"] == pointer
    assert detail in error["detail"]
    assert remedy in fault["remedy"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA: tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_refused_allocation_is_told_as_that_wherever_it_was_refused(error: Exception) -> None:
    assert as_engine_error(error).code == "out_of_memory"
