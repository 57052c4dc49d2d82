"""Settings come from FIFTYTWO_ variables, are checked at start, and each one is documented."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_variables_set_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIFTYTWO_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FIFTYTWO_MAX_ROWS", "5")
    monkeypatch.setenv("FIFTYTWO_REDIS_URL", "")
    found = Settings()

    assert (found.data_dir, found.max_rows, found.redis_url) == (tmp_path, 5, None)
    assert found.database == f"sqlite:///{tmp_path}/fiftytwo.db"


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_ROWS", "0"), ("PORT", "99999"), ("BOOTSTRAP_KEY", "short"), ("WORKERS", "many")]
)
def test_wrong_values_stop_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FIFTYTWO_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_relative_folders_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(data_dir=Path("here")).data_dir == tmp_path / "here"


def test_threads_are_the_cores_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.settings.os.cpu_count", lambda: 6)
    assert Settings(workers=4).threads == 1
    assert Settings(workers=2).threads == 3
    assert Settings(threads_per_job=8).threads == 8


def test_the_engine_is_this_interpreters_unless_told() -> None:
    assert Settings().engine_arguments[1:] == ["-m", "engine"]
    assert Settings(engine_command="a 'b c'").engine_arguments == ["a", "b c"]
