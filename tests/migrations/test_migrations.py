"""The migrations lead to exactly the tables that the models declare, on both databases, and back to none."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from app.database import Database
from app.jobs.models import Job
from app.jobs.states import State
from app.migrate import configuration, migrate
from app.settings import Settings
from migrations.tables import METADATA
from tests.postgres import Server


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings that name an empty database."""
    if request.param == "sqlite":
        return Settings(data_dir=tmp_path)
    server: Server = request.getfixturevalue("server")
    return Settings(data_dir=tmp_path, database_url=server.fresh())


def database_with(settings: Settings, statement: str) -> Database:
    database = Database(settings.database)
    with database.engine.begin() as connection:
        connection.execute(text(statement))
    return database


def test_the_migrations_are_equal_to_the_models(settings: Settings) -> None:
    migrate(settings)
    database = Database(settings.database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, METADATA)
    database.close()
    assert differences == []


def test_a_second_migration_changes_nothing(settings: Settings) -> None:
    migrate(settings)
    database = database_with(
        settings,
        "INSERT INTO keys (id, tenant, name, role, secret_sha256, created_at)"
        " VALUES ('key_1', 'default', 'k', 'admin', 's', '2026-01-01 00:00:00')",
    )
    migrate(settings)
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM keys")).scalar() == 1
    database.close()


def test_a_job_of_the_first_schema_is_kept(settings: Settings) -> None:
    command.upgrade(configuration(settings), "0001")
    database = database_with(
        settings,
        "INSERT INTO jobs (id, tenant, kind, metadata, priority, spec, plan, inputs, state, attempt, lapses,"
        " revision, events, step, latest, snapshots, created_at) VALUES ('job_1', 'default', 'train', '{}', 0,"
        " '{}', '[]', '{}', 'queued', 0, 0, 1, 1, 0, '{}', '[]', '2026-01-01 00:00:00')",
    )
    migrate(settings)
    with database.session() as session:
        job = session.get(Job, "job_1")
        assert job is not None
        assert (job.state, job.batches) == (State.QUEUED, 0)
    command.downgrade(configuration(settings), "0001")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT snapshots FROM jobs")).scalar() in ("[]", [])
    database.close()


def test_the_way_back_leaves_nothing(settings: Settings) -> None:
    migrate(settings)
    command.downgrade(configuration(settings), "base")
    database = Database(settings.database)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.close()


def test_starts_at_the_same_time_do_not_clash(settings: Settings) -> None:
    code = (
        "from pathlib import Path; from app.migrate import migrate; from app.settings import Settings;"
        f"migrate(Settings(data_dir=Path({str(settings.data_dir)!r}), database_url={settings.database!r}))"
    )
    starts = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    assert [(start.communicate()[1], start.returncode) for start in starts] == [(b"", 0)] * 3


def test_an_upgrade_does_not_load_the_models() -> None:
    code = "import sys, migrations; from app import migrate; print('torch' in sys.modules, 'app.jobs' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout.split() == ["False", "False"]
