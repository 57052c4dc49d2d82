"""House rules that no linter knows, as small checks of syntax trees. Each exception is listed here with its reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50

LONG_FILES: dict[str, str] = {}
"""Files that may be longer, each with the reason."""

LONG_FUNCTIONS: dict[str, str] = {
    "migrations/versions/v0001_first_tables.py:upgrade": "one table after the other, frozen once it is released",
}
"""Functions that may be longer, as "path:name", each with the reason."""

LOCAL_IMPORTS: dict[str, str] = {}
"""Functions that may import, as "path:name", each with the reason."""

EMPTY_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|common|misc|stuff|handler\d+)($|_)")
EMPTY_CLASS_NAMES = re.compile(r"(Utils?|Helpers?|Managers?|Misc)$")


def _functions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.name}", node


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_module_starts_with_a_docstring(trees: dict[str, ast.Module]) -> None:
    assert [path for path, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_no_import_stands_in_a_function(trees: dict[str, ast.Module]) -> None:
    found = {
        name
        for name, function in _functions(trees)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert found == set(LOCAL_IMPORTS)


def test_no_file_is_long_without_a_reason(trees: dict[str, ast.Module], root: Path) -> None:
    lengths = {path: len((root / path).read_text(encoding="utf-8").splitlines()) for path in trees}
    assert {
        path: length for path, length in lengths.items() if length > MAX_FILE_LINES and path not in LONG_FILES
    } == {}
    assert [path for path in LONG_FILES if lengths.get(path, 0) <= MAX_FILE_LINES] == [], "an exception nobody needs"


def test_no_function_is_long_without_a_reason(trees: dict[str, ast.Module]) -> None:
    lengths = {name: _lines(function) for name, function in _functions(trees)}
    assert {
        name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES and name not in LONG_FUNCTIONS
    } == {}
    assert [name for name in LONG_FUNCTIONS if lengths.get(name, 0) <= MAX_FUNCTION_LINES] == [], "nobody needs it"


def test_names_say_what_lives_there(trees: dict[str, ast.Module]) -> None:
    modules = [path for path in trees if any(EMPTY_NAMES.search(part) for part in Path(path).with_suffix("").parts)]
    classes = [
        f"{path}:{node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and EMPTY_CLASS_NAMES.search(node.name)
    ]
    functions = [name for name, function in _functions(trees) if EMPTY_NAMES.search(function.name)]
    assert modules + classes + functions == []


def test_types_and_lints_are_never_silenced_as_a_whole(trees: dict[str, ast.Module], root: Path) -> None:
    blanket = re.compile(r"#\s*(type:\s*ignore(?!\[)|noqa(?!:)|ruff:\s*noqa|mypy:\s*ignore-errors)")
    found = [
        f"{path}:{number}"
        for path in trees
        for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), 1)
        if blanket.search(line)
    ]
    assert found == []


def test_every_test_asserts(trees: dict[str, ast.Module]) -> None:
    """A test without an assertion, an expected exception or a call that asserts cannot fail."""
    silent = [
        name
        for name, function in _functions(trees)
        if name.startswith("tests/") and function.name.startswith("test_") and not _can_fail(function)
    ]
    assert silent == []


def _can_fail(function: ast.AST) -> bool:
    calls = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(isinstance(node, ast.Assert) for node in ast.walk(function)) or any(
        call in {"pytest.raises", "pytest.fail"} or re.search(r"assert|expect|check", call) for call in calls
    )


def test_no_path_of_one_machine_is_written_down(tracked: list[Path], root: Path) -> None:
    private = re.compile(rb"(^|[\s\"'`(=])/(work|root|home/\w+)/")
    assert [str(path) for path in tracked if private.search((root / path).read_bytes())] == []


def test_only_erasure_puts_files_into_the_store_and_takes_them_out(trees: dict[str, ast.Module]) -> None:
    """What is stored past it has no name on record until its row is written, and for ever if that never is."""
    found = {
        path
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if path.split("/")[0] in {"app", "worker"}
        and isinstance(node, ast.Attribute)
        and node.attr in {"save", "delete"}
        and "storage" in ast.unparse(node.value)
    }
    assert found == {"app/erasure.py"}


@pytest.mark.parametrize(
    ("code", "fails"),
    [
        ("def test_a(): f()", False),
        ("def test_a(): assert f()", True),
        ("def test_a():\n with pytest.raises(E): f()", True),
    ],
)
def test_the_rule_about_assertions_sees_the_difference(code: str, fails: bool) -> None:
    assert _can_fail(ast.parse(code)) is fails
