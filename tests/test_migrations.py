import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlmodel import SQLModel

from contacts_api.database import psycopg2_url
from contacts_api.schema import NEWEST, SchemaError, migrate
from tests.conftest import SECRET


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """A database of its own, without tables."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        name = f"of_migrations_{os.getpid()}"
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        yield make_url(database_url).set(database=name).render_as_string(hide_password=False)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def config_for(url: str) -> Config:
    config = Config("alembic.ini")
    config.attributes["url"] = psycopg2_url(url)
    return config


def tables(url: str) -> set[str]:
    with closing(psycopg2.connect(url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in cursor.fetchall()}


def test_the_models_and_the_migrated_schema_do_not_differ(database_url: str) -> None:
    def is_ours(_: object, name: str | None, kind: str, *__: object) -> bool:
        # The trigram index is there only where the server offers the extensions.
        return not (kind == "index" and name == "ix_contact_by_trigram")

    with create_engine(psycopg2_url(database_url)).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "include_object": is_ours}
        )
        differences = compare_metadata(context, SQLModel.metadata)

    assert differences == []


def test_the_code_knows_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(Config("alembic.ini")).get_heads() == [NEWEST]


def test_every_migration_goes_down_and_up_again(empty_database: str) -> None:
    config = config_for(empty_database)
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]

    for revision in revisions:
        command.upgrade(config, revision)
        command.downgrade(config, "-1")
        command.upgrade(config, revision)
    full = tables(empty_database)
    command.downgrade(config, "base")

    assert full == {
        "user",
        "auth_session",
        "ended_session",
        "failed_attempt",
        "contact",
        "calendar_feed",
        "contact_tally",
        "running_import",
        "alembic_version",
    }
    assert tables(empty_database) == {"alembic_version"}


def test_a_database_of_a_newer_release_is_told_apart(empty_database: str) -> None:
    migrate(empty_database)
    with closing(psycopg2.connect(empty_database)) as connection, connection:
        connection.cursor().execute("UPDATE alembic_version SET version_num = 'newer'")

    with pytest.raises(SchemaError, match="newer release"):
        migrate(empty_database)


def test_three_that_migrate_at_once_all_succeed(empty_database: str) -> None:
    environment = {"DATABASE_URL": empty_database, "JWT_SECRET": SECRET, "PATH": ""}
    processes = [
        subprocess.Popen([sys.executable, "-m", "contacts_api", "migrate"], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]

    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [(b"", 0)] * 3
    assert "contact" in tables(empty_database)
    migrate(empty_database)
