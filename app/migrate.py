"""Bring the database's tables to this version. Knows where the migrations lie, not what is in them."""

import importlib.util
from pathlib import Path

from alembic import command
from alembic.config import Config

from app.database import Database
from app.settings import Settings


def configuration(settings: Settings) -> Config:
    """Alembic's configuration for this database, without a file, so that an installed package has one too."""
    spec = importlib.util.find_spec("migrations")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        raise FileNotFoundError("the package `migrations` is not installed beside `app`")
    config = Config()
    config.set_main_option("script_location", str(Path(places[0])))
    url = Database(settings.database).url.render_as_string(hide_password=False)
    # Alembic reads its options through configparser, to which a per cent sign in a password means something.
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(settings: Settings) -> None:
    """Upgrade to the newest version; nothing happens where that is reached already."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    command.upgrade(configuration(settings), "head")
