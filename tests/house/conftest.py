"""What the house rules look at: the tracked files and their syntax trees. Knows no rule."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """The files of the repository, relative to its root: what git tracks, and what it would be asked to add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(Path(name) for name in names if (ROOT / name).is_file())


@pytest.fixture(scope="session")
def trees(tracked: list[Path]) -> dict[str, ast.Module]:
    """The syntax tree of every Python file, by its path from the root."""
    return {
        path.as_posix(): ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))
        for path in tracked
        if path.suffix == ".py"
    }
