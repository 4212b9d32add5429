"""Runs migrations and writes new ones. Uses the URL in Alembic's configuration, or else DATABASE_URL."""

import re
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.operations.ops import MigrationScript
from sqlalchemy import NullPool, create_engine, text
from sqlmodel import AutoString, SQLModel

import contacts_api
from contacts_api.database.connecting import LOCK_SECONDS, connect_synchronously
from contacts_api.settings import Settings

# The advisory lock of migrations. Any number works if nothing else in the database uses it.
LOCK = 7_265_420_318
# Ignored in comparisons, because this index exists only if the server has the extensions.
TRIGRAM_INDEX = "ix_contact_by_trigram"
LONGEST_REVISION = 32

PACKAGE = Path(contacts_api.__file__).parent
for models in PACKAGE.rglob("models.py"):
    # Importing the models registers their tables in SQLModel.metadata.
    import_module(".".join(["contacts_api", *models.relative_to(PACKAGE).with_suffix("").parts]))


def url_to_migrate() -> str:
    url: str | None = context.config.attributes.get("url")
    if url is not None:
        return url
    database_url = Settings().database_url
    if database_url is None:
        raise SystemExit('DATABASE_URL is not set. (To write a migration without it: make migration NAME="…")')
    return database_url.get_secret_value()


def include_name(name: str | None, kind: str, _: object) -> bool:
    return not (kind == "index" and name == TRIGRAM_INDEX)


def render_item(kind: str, item: object, _: object) -> str | Literal[False]:
    """Render SQLModel's string type as SQLAlchemy's."""
    return f"sa.String({item.length or ''})" if kind == "type" and isinstance(item, AutoString) else False


def name_revision(_: object, __: object, scripts: list[MigrationScript]) -> None:
    """Name the revision by date and message. Write no migration if the models have not changed."""
    (script,) = scripts
    if script.message is None:
        # `alembic check` compares without a message, and writes nothing.
        return
    if script.upgrade_ops is None or script.upgrade_ops.is_empty():
        scripts.clear()
        context.config.print_stdout("Nothing has changed in the models.")
        return
    words = re.findall(r"\w+", script.message.lower())
    name = "_".join([f"{datetime.now().astimezone():%Y_%m_%d}", *words])[:LONGEST_REVISION].rstrip("_")
    if name in {existing.revision for existing in context.script.walk_revisions()}:
        raise SystemExit(f"There is a migration {name} already: choose another name.")
    script.rev_id = name


options: dict[str, Any] = {
    "target_metadata": SQLModel.metadata,
    "compare_type": True,
    "compare_server_default": True,
    "include_name": include_name,
    "render_item": render_item,
    "process_revision_directives": name_revision,
}
creator = partial(connect_synchronously, url_to_migrate())
with create_engine("postgresql+psycopg2://", creator=creator, poolclass=NullPool).connect() as connection:
    context.configure(connection, **options)
    with context.begin_transaction():
        # No timeouts, because a migration may be slow, and so may the wait for another process that migrates.
        # SET LOCAL, because a pooler may run the next transaction on another connection.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        # If several processes migrate at once, the others wait here, and then find the migration done.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        # Requests queue behind a migration that waits for a table lock, and give up after LOCK_SECONDS. Give up sooner.
        connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_SECONDS * 1000 // 2}"))
        context.run_migrations()
