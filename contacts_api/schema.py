"""The database's schema, as the migrations make it."""

from pathlib import Path

from contacts_api.database import psycopg2_url

NEWEST = "2026_11_25_bounds"
"""The revision that this code works with."""


class SchemaError(Exception):
    """Why the database cannot be migrated, in one line."""


def migrate(database_url: str) -> None:
    """Bring the database to the newest schema. Safe to run from several places at once.

    Raises SchemaError for a database that a newer release has migrated.
    """
    # Imported here, since serving takes a fifth of a second less to start without it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(Path(__file__).parent.parent / "alembic.ini")
    config.attributes["url"] = psycopg2_url(database_url)
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise SchemaError("The database was migrated by a newer release of this application: run that one.") from None
