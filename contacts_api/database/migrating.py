"""Migrates a database to the newest schema."""

import itertools
import re
import time
from ast import literal_eval
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache, partial
from pathlib import Path

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy.exc import DBAPIError
from typer import echo

from contacts_api.database.connecting import connect_synchronously
from contacts_api.runtime import CommandError

ROOT = Path(__file__).parent.parent.parent
WAIT_SECONDS = 300
PAUSE_SECONDS = 2
_LINE = re.compile(r"^(revision|down_revision)\b.*?= (.+)$", re.MULTILINE)


@cache
def newest_revision(versions: Path = ROOT / "migrations" / "versions") -> str:
    """Return the revision that this code requires: the migration that no other migration follows.

    Parses the files, because importing Alembic takes 0.2 seconds. Raises CommandError if a migration is missing, or if
    two migrations follow the same one.
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


def migrate(database_url: str, wait_seconds: float = WAIT_SECONDS) -> bool:
    """Migrate the database to the newest schema. Return True if it had another one. Safe to run concurrently.

    Each migration runs in its own transaction. If one cannot get a lock, it is retried for at most `wait_seconds`.
    Raises CommandError if that fails, or if a newer release has migrated the database.
    """
    if _current_revision(database_url) == newest_revision():
        return False
    # Imported only when needed, because it is slow: see newest_revision().
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError as AlembicError

    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = database_url
    give_up_at = time.monotonic() + wait_seconds
    try:
        for script in reversed([*ScriptDirectory.from_config(config).walk_revisions()]):
            # A no-op if the database has this revision or a later one.
            _retry_for_lock(partial(command.upgrade, config, script.revision), script.revision, give_up_at)
    except AlembicError:
        raise CommandError(
            "The database was migrated by a newer release of this application, which has to be run with it; "
            "or the file of a migration was deleted after it had run."
        ) from None
    return True


def _retry_for_lock(upgrade: Callable[[], None], revision: str, give_up_at: float) -> None:
    """Run a migration. If it times out waiting for a lock, retry it after a pause. Raises CommandError at `give_up_at`.

    While a migration waits for a lock on a table, all other statements on that table wait behind it. The pause lets
    them finish.
    """
    for tries in itertools.count(1):
        try:
            return upgrade()
        except DBAPIError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
        if time.monotonic() > give_up_at:
            break
        if tries == 1:
            echo(f"The migration {revision} waits for a lock, and is tried again for some minutes.", err=True)
        time.sleep(PAUSE_SECONDS)
    raise CommandError(
        f"The migration {revision} got no lock, because another transaction keeps the table locked. Find it in "
        "pg_stat_activity by its xact_start, then run migrate again. The migrations before this one are done."
    )


def _current_revision(database_url: str) -> str | None:
    """Return the revision of the database, or None if it cannot be read. Alembic then reports the reason."""
    with suppress(psycopg2.Error), closing(connect_synchronously(database_url)) as connection:
        # Autocommit, because a pooler closes the server connection of a client that disconnects inside a transaction.
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SELECT version_num FROM alembic_version")
        if found := cursor.fetchone():
            return str(found[0])
    return None
