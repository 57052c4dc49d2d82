"""The documents say what is there: tree, targets, links, routes and settings. Knows no wording."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings

INTERNAL = {"FIFTYTWO_RUN": "marks the processes of a run, so that whoever ends it finds all of them"}
"""Variables that the service sets for its own children, each with the reason; nobody else needs them."""

LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def _read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def test_the_tree_captions_what_is_there_and_nothing_else(root: Path, tracked: list[Path]) -> None:
    block = re.search(r"## The tree\n\n```\n(.*?)\n```", _read(root, "README.md"), re.DOTALL)
    assert block
    captions = dict(re.split(r" {2,}", line, maxsplit=1) for line in block[1].splitlines())
    there = {path.parts[0] + ("/" if len(path.parts) > 1 else "") for path in tracked}
    assert set(captions) == there
    assert all(len(caption) > 8 for caption in captions.values())


def test_the_targets_of_the_readme_and_of_the_makefile_are_the_same(root: Path) -> None:
    told = set(re.findall(r"\bmake ([a-z]+)\b(?=`|\s+#)", _read(root, "README.md")))
    targets = set(re.findall(r"^([a-z]+):", _read(root, "Makefile"), re.MULTILINE)) - {"help"}
    assert told == targets
    phony = re.search(r"^\.PHONY: (.*)$", _read(root, "Makefile"), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == targets | {"help"}


def test_every_link_leads_somewhere(root: Path, tracked: list[Path]) -> None:
    pages = [path for path in tracked if path.suffix == ".md"]
    dead = [
        f"{page}: {link}"
        for page in pages
        for link in LINK.findall(_read(root, str(page)))
        if not (root / page.parent / link).exists()
    ]
    assert dead == []


def test_every_route_is_documented(root: Path, tmp_path: Path) -> None:
    page = _read(root, "docs/api.md")
    missing = []
    for path, methods in create_app(Settings(data_dir=tmp_path)).openapi()["paths"].items():
        base, _, verb = path.rpartition("/")
        for method in methods:
            whole = f"{method.upper()} {path}`" in page
            short = f"`/{verb}`" in page and f"{method.upper()} {base}/" in page
            if not whole and not short:
                missing.append(f"{method.upper()} {path}")
    assert missing == []


def test_every_field_of_a_request_is_documented(root: Path, tmp_path: Path) -> None:
    page = _read(root, "docs/api.md")
    schemas = create_app(Settings(data_dir=tmp_path)).openapi()["components"]["schemas"]
    requests = [name for name in schemas if name.endswith("Create") and not name.startswith(("FineTuning", "Upload"))]
    missing = [
        f"{request}.{field}"
        for request in (
            *requests,
            "Training",
            "Limits",
            "Export",
            "Inputs",
            "Human",
            "Treatment",
            "BudgetPut",
            "BallotCast",
        )
        for field in schemas[request]["properties"]
        if not re.search(rf'`[^`\n]*\b{field}\b[^`\n]*`|"{field}"', page)
    ]
    assert len(requests) > 7
    assert missing == []


def test_every_variable_the_code_reads_is_documented(root: Path, trees: dict[str, ast.Module]) -> None:
    page = _read(root, "docs/settings.md")
    read = {f"FIFTYTWO_{name.upper()}" for name in Settings.model_fields}
    for path, tree in trees.items():
        if path.split("/")[0] in {"app", "client", "engine", "worker", "migrations"}:
            strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
            read |= {value for value in strings if isinstance(value, str) and re.fullmatch(r"FIFTYTWO_[A-Z_]+", value)}
    assert sorted(name for name in read - set(INTERNAL) if f"`{name}`" not in page) == []
    assert set(INTERNAL) <= read


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if len(field.description or "") < 20] == []


def test_what_a_server_keeps_in_its_default_folder_is_never_tracked(root: Path) -> None:
    assert f"{Settings.model_fields['data_dir'].default}/" in _read(root, ".gitignore").splitlines()


def test_the_generated_pages_are_fresh(root: Path) -> None:
    command = [sys.executable, "-m", "docs.generate", "--check"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_says_how_many_of_the_instructions_exist(root: Path) -> None:
    files = list(root.glob("engine/instructions/*/i[0-5][0-9]_*.py"))
    assert f"52 instructions, of which {len(files)} exist so far" in _read(root, "README.md")


@pytest.mark.parametrize("name", ["make check", "make test"])
def test_ci_runs_what_the_readme_says(root: Path, name: str) -> None:
    assert name in _read(root, ".ci/run")
    assert (root / ".ci/run").stat().st_mode & 0o111


def test_decisions_are_numbered_and_listed(root: Path) -> None:
    pages = sorted((root / "docs/decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    architecture = _read(root, "docs/architecture.md")
    for page in pages:
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert f"[{title}](decisions/{page.name})" in architecture
