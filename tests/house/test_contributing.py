"""Follows CONTRIBUTING.md word by word on a copy of the code: the page must add a working instruction."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = ("app", "client", "engine", "worker", "migrations", "docs", "tests/engine")
FILES = ("pyproject.toml", "README.md")
ASK = """
import json
from engine.catalogue import describe, named
from engine.plan import Plan
from engine.spec import Spec
chosen = [{"number": 90, "min_dimensions": 4}, 22]
plan = Plan.of(Spec.model_validate({"task": "image_classification", "dataset": "rows", "instructions": chosen}))
print(json.dumps([[one["number"] for one in describe()], plan.describe()]))
"""


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code beside the files that the page says to write."""
    copy = tmp_path_factory.mktemp("contributor")
    for part in PARTS:
        shutil.copytree(root / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(root / name, copy / name)
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:engine|tests)/\S+\.py)`[.,].*?```python\n(.*?)```", page, re.DOTALL)
    assert [path.split("/")[0] for path, _ in files] == ["engine", "tests"]
    for path, text in files:
        (copy / path).write_text(text, encoding="utf-8")
    return copy


def _run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_of_the_page_works(root: Path, copy: Path) -> None:
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert block
    outputs = [_run(shlex.split(line), copy) for line in block[1].splitlines()]
    assert re.search(r"\b1 passed\b", outputs[0])
    assert "## 90 gradient_centralization" in (copy / "docs/instructions.md").read_text(encoding="utf-8")


def test_the_new_instruction_can_be_asked_for(copy: Path) -> None:
    numbers, plan = json.loads(_run([sys.executable, "-c", ASK], copy))
    assert 90 in numbers
    assert [(step["number"], step["hooks"]) for step in plan] == [
        (22, ["gradients", "report"]),
        (90, ["gradients", "report"]),
    ]
    assert plan[1]["parameters"] == {"min_dimensions": 4}
