"""`fiftytwo admin-key`: another admin key, straight in the database, for an operator who has lost the first.

Whoever can run it holds the database, and so could do anything already. Knows no HTTP requests.
"""

from contextlib import closing
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app.auth.bootstrap import add_admin, new_secret
from app.database import Database
from app.settings import Settings
from client.errors import BadUsage


def recover(settings: Settings) -> str:
    """Make an admin key of the first tenant, and give its secret; a running server knows it at once.

    Raises:
        BadUsage: there is no database, or it cannot be used.
    """
    with closing(Database(settings.database)) as database:
        file = database.url.database
        if database.url.get_backend_name() == "sqlite" and not (file and Path(file).is_file()):
            raise BadUsage(
                f"there is no database at {file}",
                remedy="name the server's folder: --data-dir DIR; a new one gets its first key from `fiftytwo serve`",
            )
        secret = new_secret()
        try:
            with database.session() as session:
                add_admin(session, "recovered", secret)
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or type(error).__name__
            raise BadUsage(
                f"the database cannot be used: {reason}",
                remedy="check that it is up, and that `fiftytwo migrate` has made its tables",
            ) from error
    return secret
