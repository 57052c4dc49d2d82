"""What a run's process is told by its environment."""

from pathlib import Path

import pytest

from app.database import Database
from app.jobs.lifecycle import Run
from app.settings import Settings
from tests.service import worker_for


def _told(settings: Settings, database: Database) -> dict[str, str]:
    run = Run(job_id="job_1", tenant="default", attempt=1, spec={}, inputs={}, threads=1)
    return worker_for(settings, database)._environment(run)


def test_a_run_keeps_converted_bases_in_the_data_folder_or_where_the_setting_says(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    assert _told(settings, database)["FIFTYTWO_CACHE_DIR"] == str(settings.data_dir / "cache")
    moved = settings.model_copy(update={"cache_dir": tmp_path / "elsewhere"})
    assert _told(moved, database)["FIFTYTWO_CACHE_DIR"] == str(tmp_path / "elsewhere")


def test_no_library_draws_bars_into_a_log(settings: Settings, database: Database) -> None:
    told = _told(settings, database)
    assert (told["TQDM_DISABLE"], told["HF_HUB_DISABLE_PROGRESS_BARS"]) == ("1", "1")


def test_a_run_is_told_of_its_gpu_and_of_nothing_else_there_is(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"CUDA_VISIBLE_DEVICES": "1", "CUBLAS_WORKSPACE_CONFIG": ":16:8", "PYTORCH_ALLOC_CONF": "backend:native"}
    for name, value in {**known, "PYTEST_SECRET": "key"}.items():
        monkeypatch.setenv(name, value)
    told = _told(settings, database)
    assert known.items() <= told.items()
    assert "PYTEST_SECRET" not in told
