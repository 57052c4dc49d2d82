"""How Alembic reaches the database. The models are loaded only for the command line, which compares with them.

An upgrade needs the steps alone; loading the models would make every start of the service wait for them.
"""

import importlib
from typing import Literal

from alembic import context
from sqlalchemy import Connection, MetaData, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.types import TypeDecorator

from app.database import Database
from app.settings import Settings

config = context.config


def metadata() -> MetaData | None:
    """The models' tables where a command of Alembic's own asks; else what the caller brought, if anything."""
    if config.cmd_opts is not None:
        loaded: MetaData = importlib.import_module("migrations.tables").METADATA
        return loaded
    return config.attributes.get("metadata")


def plainly(kind: str, item: object, _: object) -> str | Literal[False]:
    """Write our own types into a step as what they are stored as, since a step must not change with the code."""
    return f"sa.{item.impl_instance!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


def forget_foreign_keys(connection: DBAPIConnection, _record: object) -> None:
    """A batch alter drops and renames the table, which would delete the rows that refer to it.

    Only outside a transaction does the pragma count.
    """
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = OFF")
    cursor.close()


def run(connection: Connection) -> None:
    """Run the steps that are asked for in one transaction, also on SQLite: a start that is killed leaves no half."""
    context.configure(
        connection=connection,
        target_metadata=metadata(),
        render_as_batch=True,
        render_item=plainly,
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Several replicas may start at once: one migrates, the others wait and find nothing to do. SQLite's
            # BEGIN IMMEDIATE does the same.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(5252)")
        context.run_migrations()


def main() -> None:
    """Connect and run."""
    database = Database(config.get_main_option("sqlalchemy.url") or Settings().database)
    if database.engine.dialect.name == "sqlite":
        event.listen(database.engine, "connect", forget_foreign_keys)
    try:
        with database.engine.connect() as connection:
            run(connection)
    finally:
        database.close()


main()
