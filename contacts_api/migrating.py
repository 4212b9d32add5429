"""Bringing a database to the newest schema."""

import re
from ast import literal_eval
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

import psycopg2

from contacts_api.connecting import connect_synchronously
from contacts_api.runtime import CommandError

ROOT = Path(__file__).parent.parent
_LINE = re.compile(r"^(revision|down_revision)\b.*?= (.+)$", re.MULTILINE)


@cache
def newest_revision(versions: Path = ROOT / "migrations" / "versions") -> str:
    """Return the revision that this code works with: the one migration that no other follows.

    It is read from the files, since importing Alembic takes a fifth of a second. Raises CommandError if a migration
    is missing, or two follow the same one.
    """
    followed_by: dict[str, list[str]] = {}
    revisions = set()
    for path in versions.glob("*.py"):
        values = {name: literal_eval(value) for name, value in _LINE.findall(path.read_text(encoding="utf-8"))}
        revisions.add(values["revision"])
        before = values["down_revision"] or ()
        for revision in [before] if isinstance(before, str) else before:
            followed_by.setdefault(revision, []).append(path.name)
    for revision in followed_by.keys() - revisions:
        raise CommandError(f"{followed_by[revision][0]} follows the migration {revision}, which is missing.")
    newest = sorted(revisions - followed_by.keys())
    if len(newest) != 1:
        raise CommandError(f"There must be one newest migration, but there are {len(newest)}: {', '.join(newest)}.")
    return str(newest[0])


def migrate(database_url: str) -> bool:
    """Bring the database to the newest schema, and say whether it had another. Several may run at once.

    Raises CommandError for a database that a newer release has migrated.
    """
    if _current_revision(database_url) == newest_revision():
        return False
    # Imported only when needed: see newest_revision().
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError as AlembicError

    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = database_url
    try:
        command.upgrade(config, "head")
    except AlembicError:
        raise CommandError(
            "The database was migrated by a newer release of this application, which has to be run with it; "
            "or the file of a migration was deleted after it had run."
        ) from None
    return True


def _current_revision(database_url: str) -> str | None:
    """Return the revision of the database, or None if it cannot be read: Alembic will say why."""
    with suppress(psycopg2.Error), closing(connect_synchronously(database_url)) as connection:
        # A pooler gives up the connection of a client that goes in the middle of a transaction.
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SELECT version_num FROM alembic_version")
        if found := cursor.fetchone():
            return str(found[0])
    return None
