import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlmodel import SQLModel

import contacts_api.app  # noqa: F401  (it defines all tables)
from contacts_api.contacts.models import columns_of
from contacts_api.database.connecting import LOCK_SECONDS
from contacts_api.database.migrating import migrate, newest_revision
from contacts_api.runtime import CommandError
from tests.conftest import SECRET
from tests.servers import copy_with_migration, wait_until

A_NEW_TABLE = """

class UserNote(SQLModel, table=True):
    __tablename__ = "user_note"

    user_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    text: str
"""


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """An empty database of its own."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        name = f"of_migrations_{os.getpid()}"
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        yield make_url(database_url).set(database=name).render_as_string(hide_password=False)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def config_for(url: str) -> Config:
    config = Config("alembic.ini")
    config.attributes["url"] = url
    return config


def tables(url: str) -> set[str]:
    with closing(psycopg2.connect(url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in cursor.fetchall()}


def current_revision(url: str) -> str:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        ((revision,),) = cursor.fetchall()
        return str(revision)


def test_the_models_and_the_migrated_schema_do_not_differ(database_url: str) -> None:
    command.check(config_for(database_url))


def test_the_newest_revision_is_the_head_that_alembic_finds() -> None:
    assert ScriptDirectory.from_config(Config("alembic.ini")).get_heads() == [newest_revision()]


def write_migrations(directory: Path, *revisions: tuple[str, object]) -> None:
    for name, before in revisions:
        (directory / f"{name}.py").write_text(f'"""{name}."""\n\nrevision = "{name}"\ndown_revision = {before!r}\n')


def test_a_merge_migration_is_the_newest(tmp_path: Path) -> None:
    write_migrations(tmp_path, ("first", None), ("one", "first"), ("other", "first"), ("merged", ("one", "other")))

    assert newest_revision(tmp_path) == "merged"


def test_several_newest_migrations_are_reported(tmp_path: Path) -> None:
    write_migrations(tmp_path, ("first", None), ("one", "first"), ("other", "first"))

    with pytest.raises(CommandError, match="one newest migration, but there are 2: one, other"):
        newest_revision(tmp_path)


def test_a_missing_migration_is_reported(tmp_path: Path) -> None:
    write_migrations(tmp_path, ("second", "first"))

    with pytest.raises(CommandError, match=r"second.py follows the migration first, which is missing"):
        newest_revision(tmp_path)


def test_every_migration_can_be_downgraded_and_upgraded_again(empty_database: str) -> None:
    config = config_for(empty_database)
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]

    for revision in revisions:
        command.upgrade(config, revision)
        command.downgrade(config, "-1")
        command.upgrade(config, revision)
    full = tables(empty_database)
    command.downgrade(config, "base")

    assert full == {*SQLModel.metadata.tables, "alembic_version"}
    assert tables(empty_database) == {"alembic_version"}


def test_a_database_of_a_newer_release_is_refused(empty_database: str) -> None:
    migrate(empty_database)
    with closing(psycopg2.connect(empty_database)) as connection, connection:
        connection.cursor().execute("UPDATE alembic_version SET version_num = 'newer'")

    with pytest.raises(CommandError, match="newer release"):
        migrate(empty_database)


def test_concurrent_migrates_all_succeed(empty_database: str) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_database, "JWT_SECRET": SECRET}
    processes = [
        subprocess.Popen([sys.executable, "-m", "contacts_api", "migrate"], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]

    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [(b"", 0)] * 3
    assert "contact" in tables(empty_database)
    migrate(empty_database)


def waits_for(url: str, kind: str) -> bool:
    """Return True if a statement waits for a lock of this kind in the database."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
            WHERE datname = current_database() AND NOT granted AND %s IN (locktype, mode)""",
            [kind],
        )
        return cursor.fetchall() != [(0,)]


def start_migrate(url: str, directory: Path, code: str = "migrate(url)") -> subprocess.Popen[str]:
    """Start `migrate` with the code in the directory."""
    program = f"import sys; from contacts_api.database.migrating import migrate; url = sys.argv[1]; {code}"
    return subprocess.Popen([sys.executable, "-c", program, url], cwd=directory, stderr=subprocess.PIPE, text=True)


def test_a_migration_that_waits_for_a_lock_lets_readers_through(empty_database: str, tmp_path: Path) -> None:
    migrate(empty_database)
    copy_with_migration(tmp_path, "ALTER TABLE contact ADD COLUMN nickname text")
    with closing(psycopg2.connect(empty_database)) as long, closing(psycopg2.connect(empty_database)) as reading:
        long.cursor().execute("SELECT 1 FROM contact")
        reading.autocommit = True
        reader = reading.cursor()
        # The API sets the same timeout.
        reader.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        migrating = start_migrate(empty_database, tmp_path)

        for _ in range(3):
            wait_until(lambda: waits_for(empty_database, "AccessExclusiveLock"), "the migration waits")
            reader.execute("SELECT 1 FROM contact")
            wait_until(lambda: not waits_for(empty_database, "AccessExclusiveLock"), "the migration gives way")

    said = migrating.communicate(timeout=60)[1]
    assert migrating.returncode == 0
    assert said == "The migration 2099_alter waits for a lock, and is tried again for some minutes.\n"
    assert current_revision(empty_database) == "2099_alter"


def test_a_migration_without_its_lock_is_reported_and_earlier_ones_stay(empty_database: str, tmp_path: Path) -> None:
    copy_with_migration(tmp_path, "ALTER TABLE held ADD COLUMN name text")
    with closing(psycopg2.connect(empty_database)) as connection, connection:
        connection.cursor().execute("CREATE TABLE held (id int)")
    with closing(psycopg2.connect(empty_database)) as long:
        long.cursor().execute("SELECT 1 FROM held")
        migrating = start_migrate(empty_database, tmp_path, "migrate(url, wait_seconds=0)")
        said = migrating.communicate(timeout=60)[1]

    assert "CommandError: The migration 2099_alter got no lock, because another transaction" in said
    assert current_revision(empty_database) == newest_revision()


def test_waiting_for_another_migrate_has_no_timeout(empty_database: str) -> None:
    with closing(psycopg2.connect(empty_database)) as other:
        cursor = other.cursor()
        # docs/operating.md recommends this setting for PgBouncer.
        cursor.execute("SELECT format('ALTER DATABASE %I SET lock_timeout = 200', current_database())")
        ((statement,),) = cursor.fetchall()
        cursor.execute(statement)
        other.commit()
        cursor.execute("SELECT pg_advisory_xact_lock(7265420318)")
        migrating = start_migrate(empty_database, Path.cwd())
        wait_until(lambda: waits_for(empty_database, "advisory"), "it waits")
        time.sleep(1)
        assert migrating.poll() is None

    assert migrating.communicate(timeout=60)[1] == ""
    assert "contact" in tables(empty_database)


def test_a_changed_model_generates_a_migration(tmp_path: Path) -> None:
    for name in ("contacts_api", "migrations"):
        shutil.copytree(name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(name, tmp_path)

    def make_migration() -> str:
        arguments = [sys.executable, "-m", "migrations", "Add notes: for users"]
        result = subprocess.run(arguments, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    said_without_a_change = make_migration()
    files = set((tmp_path / "migrations" / "versions").glob("*.py"))
    with (tmp_path / "contacts_api" / "accounts" / "models.py").open("a") as models:
        models.write(A_NEW_TABLE)
    said = make_migration()
    (made,) = set((tmp_path / "migrations" / "versions").glob("*.py")) - files

    assert said_without_a_change == "Nothing has changed in the models.\n"
    assert str(made) in said
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_add_notes_for_users\.py", made.name)
    text = made.read_text()
    assert f'revision = "{made.stem.replace("-", "_")}"' in text
    assert f'down_revision = "{newest_revision()}"' in text
    assert 'sa.Column("text", sa.String(), nullable=False)' in text
    assert "sqlmodel" not in text
    for check in (["format", "--check"], ["check"]):
        subprocess.run([sys.executable, "-m", "ruff", *check, made], cwd=tmp_path, check=True)


def test_a_downgraded_database_suits_the_older_release(empty_database: str) -> None:
    migrate(empty_database)
    contact = {"first_name": "Zoë", "last_name": "Łoś", "email": "zoe@example.com", "phone_number": "+48 600"}
    columns = columns_of(contact)
    with closing(psycopg2.connect(empty_database)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(
            """INSERT INTO "user" (id, email, hashed_password, is_active, is_superuser, is_verified)
            VALUES (gen_random_uuid(), 'ada@example.com', '', true, false, false)"""
        )
        cursor.execute(
            f"""INSERT INTO contact (owner_id, id, {", ".join(columns)})
            SELECT id, gen_random_uuid(), {", ".join(["%s"] * len(columns))} FROM "user" """,
            list(columns.values()),
        )

        command.downgrade(config_for(empty_database), "2026_11_25_bounds")

        cursor.execute("SELECT split_part(search_text, E'\\n', n) FROM contact, generate_series(1, 5) AS n")
        first, last, email, phone_number, digits = (line for (line,) in cursor.fetchall())
    assert (first, last, email, digits) == ("zoe", "los", "zoe@example.com", "48600")
    assert "+48 600" in phone_number
