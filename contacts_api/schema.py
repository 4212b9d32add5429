"""The database's schema, as the migrations make it."""

from pathlib import Path

from contacts_api.database import psycopg2_url

NEWEST = "2026_11_23_failed_attempts"
"""The revision that this code works with."""


def migrate(database_url: str) -> None:
    """Bring the database to the newest schema. Safe to run from several places at once."""
    # Imported here, since serving takes a fifth of a second less to start without it.
    from alembic import command
    from alembic.config import Config

    config = Config(Path(__file__).parent.parent / "alembic.ini")
    config.attributes["url"] = psycopg2_url(database_url)
    command.upgrade(config, "head")
