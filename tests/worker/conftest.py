"""A database and settings for one worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.database import Database
from app.settings import Settings
from tests import service


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Short times, and the stand-in engine."""
    return service.settings_for(tmp_path)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """SQLite in the data folder."""
    with service.tables(settings.database) as database:
        yield database
