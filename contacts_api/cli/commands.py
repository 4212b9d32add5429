"""The implementation of the commands."""

import asyncio
import errno
import getpass
import logging.config
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, aclosing, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Literal
from urllib.parse import quote
from uuid import UUID

import asyncpg
import orjson
import psycopg2
import uvicorn
from pydantic import SecretStr, TypeAdapter, ValidationError
from sqlalchemy import insert, text
from typer import Exit, echo, style
from uuid_utils.compat import uuid7

from contacts_api import runtime
from contacts_api.accounts.mail import Mails
from contacts_api.accounts.models import Password, User, UserCreate
from contacts_api.accounts.passwords import PasswordHasher
from contacts_api.accounts.sessions import OVERLAP_SECONDS
from contacts_api.accounts.users import UserManager
from contacts_api.contacts.fields import last_date_of_birth
from contacts_api.contacts.models import Contact, columns_of
from contacts_api.contacts.queries import ContactFilter
from contacts_api.contacts.quota import recount
from contacts_api.contacts.reindexing import reindex as reindex_contacts
from contacts_api.database import citus as distributing
from contacts_api.database import embedded, migrating
from contacts_api.database.connecting import LOCK_SECONDS, Connector
from contacts_api.database.engine import STATEMENT_SECONDS, Database, create_engine, table_of
from contacts_api.database.errors import DATABASE_ERRORS, problem_of_database_error
from contacts_api.features.exchange import exports
from contacts_api.features.exchange.columns import read_columns
from contacts_api.features.exchange.files import Format
from contacts_api.features.exchange.imports import IMPORT_SECONDS, claim_import, import_file
from contacts_api.features.exchange.models import ImportQuery, ImportReport
from contacts_api.features.feed.queries import CLOSE_FEED
from contacts_api.http.field_errors import code_and_detail
from contacts_api.http.limits import Protocol
from contacts_api.problems import Problem
from contacts_api.runtime import CommandError
from contacts_api.settings import Settings

OLDEST_POSTGRESQL = 15
SHUTDOWN_SECONDS = 10
# The supervisor replaces a worker that does not respond for this long. A busy worker responds sooner.
HUNG_SECONDS = 30
BATCH = 500
# Settings for the database role, for a pooler that does not accept settings from connections. `statement_timeout` is
# that of imports, because it applies to all statements of the role.
ROLE_SETTINGS = {
    "statement_timeout": f"{IMPORT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{OVERLAP_SECONDS:.0f}s",
    "jit": "off",
}
UNSET = """
    SELECT name, quote_ident(current_user) AS role FROM pg_settings
    WHERE name = ANY(string_to_array($1, ',')) AND source = 'default' ORDER BY name
"""


USERS = text(
    """
    SELECT email, is_verified AS verified, is_active AS active,
        (SELECT count(*) FROM contact WHERE owner_id = u.id) AS contacts,
        (SELECT count(*) FROM auth_session WHERE user_id = u.id AND expires_at > now()) AS sessions,
        (SELECT max(created_at) FROM auth_session WHERE user_id = u.id) AS last_sign_in
    FROM "user" u WHERE erased_at IS NULL ORDER BY email
    """
)


def explain(error: Exception) -> str | None:
    """Return a one-line message for an error, or None for a bug."""
    match error:
        case ValidationError():
            first = error.errors()[0]
            if error.title == Settings.__name__:
                return f"{str(first['loc'][0]).upper()} {first['msg'].removeprefix('Value error, ')}"
            return ": ".join([*map(str, first["loc"]), code_and_detail(first)[1]])
        case CommandError():
            return str(error)
        case Problem():
            return error.detail
        case psycopg2.Error():
            return " ".join(str(error).split())
        case _ if isinstance(error, DATABASE_ERRORS) and not isinstance(error, OSError):
            return f"{problem_of_database_error(error).title}."
    return None


def connected(settings: Settings) -> Settings:
    """Return the settings with the URL of an available database.

    Without DATABASE_URL, starts the embedded PostgreSQL and migrates it. Raises CommandError if the database is
    unavailable or unsuitable.
    """
    if settings.database_url is None:
        url = embedded.start(settings.data_dir)
        settings = settings.model_copy(update={"database_url": SecretStr(url)})
        if migrating.migrate(url):
            asyncio.run(reindex_all(settings))
    else:
        asyncio.run(check_server(settings.url, settings.prepared_statements))
    return settings


async def check_server(url: str, prepared_statements: bool) -> None:
    """Raise CommandError if the database is unavailable or unsuitable. Print the settings that a pooler drops."""
    try:
        connection = await Connector(url, STATEMENT_SECONDS, prepared_statements)()
    except (*DATABASE_ERRORS, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CommandError(f"The database does not answer: {reason}") from None
    version, encoding = connection.get_server_version().major, connection.get_settings().server_encoding
    if version < OLDEST_POSTGRESQL:
        raise CommandError(f"This is PostgreSQL {version}; version {OLDEST_POSTGRESQL} or newer is needed.")
    if encoding != "UTF8":
        raise CommandError(f"The database's encoding is {encoding}; create one with ENCODING 'UTF8'.")
    try:
        unset = await connection.fetch(UNSET, ",".join(ROLE_SETTINGS))
    except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError):
        raise CommandError("The pooler cannot keep prepared statements: set PREPARED_STATEMENTS=false.") from None
    finally:
        connection.terminate()
    if unset:
        echo(f"The pooler does not pass on {', '.join(row.name for row in unset)}. Set them for the role:", err=True)
        for row in unset:
            echo(f"  ALTER ROLE {row.role} SET {row.name} = '{ROLE_SETTINGS[row.name]}';", err=True)
        if prepared_statements:
            echo("If it cannot keep prepared statements, set PREPARED_STATEMENTS=false as well.", err=True)


def serve(host: str, port: int, workers: int | None, reload: bool) -> None:
    """Serve the API until the process is stopped."""
    settings = Settings()
    refuse_taken_port(host, port)
    if settings.database_url and not settings.jwt_secret:
        raise CommandError("JWT_SECRET is not set: with DATABASE_URL, it must be, to at least 32 bytes.")
    mail_url = settings.smtp_url.get_secret_value() if settings.smtp_url else ""
    if settings.database_url and settings.require_verification and not mail_url:
        raise CommandError("SMTP_URL is not set: with REQUIRE_VERIFICATION=true, nobody could sign in.")
    if not settings.database_url and not mail_url:
        mail_url = f"file://{quote(str(settings.data_dir.absolute() / 'outbox'))}"
    settings = connected(settings)
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else embedded.keep_secret(settings.data_dir)
    workers = workers or settings.web_concurrency
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}"
    if settings.smtp_url and not settings.public_url:
        echo(f"PUBLIC_URL is not set: the links in mails lead to {address}.", err=True)
    # Pass the settings to the worker processes through the environment.
    os.environ |= {
        "DATABASE_URL": settings.url,
        "JWT_SECRET": secret,
        "WEB_CONCURRENCY": str(workers),
        "PUBLIC_URL": settings.public_url or address,
        "SMTP_URL": mail_url,
    }
    runtime.allow_many_files()
    # Exit normally on SIGTERM, so that the embedded PostgreSQL is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    echo(f"The docs are at {style(f'{address}/docs', bold=True)}; Ctrl-C stops.", err=True)
    uvicorn.run(
        "contacts_api.app:app",
        host=host,
        port=port,
        workers=workers,
        reload=reload,
        # By default, uvicorn would also scan .venv, four times per second.
        reload_dirs=[str(Path(__file__).parent.parent)] if reload else None,
        access_log=False,
        server_header=False,
        log_config=runtime.logging_at(settings.log_level, settings.log_format),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        http=Protocol,
        timeout_worker_healthcheck=HUNG_SECONDS,
    )


def refuse_taken_port(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        is_taken = getattr(error, "errno", None) == errno.EADDRINUSE
        advice = f" Choose another port: --port {port + 1}, or make run PORT={port + 1}." if is_taken else ""
        raise CommandError(f"Cannot listen on {host}:{port}: {reason}.{advice}") from None


def migrate() -> None:
    was_changed = migrating.migrate(connected(Settings()).url)
    advice = " Now run `python -m contacts_api reindex`, while the API serves." if was_changed else ""
    echo(f"The database has the newest schema.{advice}")


def reindex() -> None:
    asyncio.run(reindex_all(connected(Settings())))
    echo("All contacts are folded by the rules of this release.")


async def reindex_all(settings: Settings) -> None:
    async with accounts(settings) as (_, database):
        with progress(None, "accounts") as show:
            await reindex_contacts(database, show)


def distribute(shards: int) -> None:
    for table in distributing.distribute(connected(Settings()).url, shards):
        echo(f"{table}: done")
    echo("All that belongs to an account is on one node, with all other contacts of its owner.")


def seed(email: str, count: int) -> None:
    new = UserCreate.model_validate({"email": email, "password": secrets.token_urlsafe(12)})
    asyncio.run(fill(connected(Settings()), new, count))


async def fill(settings: Settings, new: UserCreate, count: int) -> None:
    """Add all contacts to the account, or none. Create the account if it does not exist."""
    async with accounts(settings) as (users, database):
        user = await users.find(new.email)
        is_new = user is None
        user = user or await users.register(new, mail=None)
        try:
            total = await add_contacts(database, user.id, count)
        except BaseException:
            if is_new:
                # Its password was not printed, so nobody could use it.
                async with database.session() as session:
                    await session.delete(user)
            raise
    if is_new:
        echo(f"Made an account with {count:,} contacts. Sign in as {new.email} with the password {new.password}")
    else:
        echo(
            f"Added {count:,} contacts to the account {new.email}, which has {total:,} now. Sign in with your password."
        )


async def add_contacts(database: Database, owner_id: UUID, count: int) -> int:
    """Add sample contacts, and return the owner's new number of contacts. Raises CommandError if Faker is missing."""
    try:
        from contacts_api.cli.demo import believable_contacts  # here, because importing Faker takes 0.5 seconds
    except ImportError:
        raise CommandError("`seed` needs Faker: pip install --require-hashes -r requirements-seed.txt") from None
    contacts = believable_contacts(count)
    with progress(count, "contacts") as show:
        async with database.session() as session:
            for done in range(0, count, BATCH):
                batch = [columns_of(contact.model_dump()) for contact in islice(contacts, BATCH)]
                rows = [{"owner_id": owner_id, "id": uuid7()} | columns for columns in batch]
                await session.execute(insert(table_of(Contact)), rows)
                show(done + len(rows))
            return await recount(session, owner_id)


def import_contacts(path: Path, email: str, options: dict[str, Any], columns: str | None) -> None:
    """Import a file, and print the report. Raises Exit(1) if rows failed."""
    query = ImportQuery.model_validate(options)
    report = asyncio.run(import_into(connected(Settings()), path, email, query, read_columns(columns)))
    for listed, what in ((report.errors, "failed"), (report.warnings, "warning")):
        for each in listed:
            place = f"row {each.row} (line {each.line})"
            echo(f"{place}: {what}: {f'{each.field}: ' if each.field else ''}{each.detail}", err=True)
    for skip in report.skips:
        echo(f"row {skip.row} (line {skip.line}): skipped: {skip.detail}", err=True)
    numbers = ", ".join(f"{getattr(report, name):,} {name}" for name in ("created", "updated", "skipped", "failed"))
    echo(f"{numbers}{' (a dry run: nothing is changed)' if query.dry_run else ''}.")
    if report.not_kept:
        echo(f"Not kept: {', '.join(f'{times:,} {name}' for name, times in sorted(report.not_kept.items()))}.")
    if report.failed:
        raise Exit(1)


async def import_into(
    settings: Settings, path: Path, email: str, query: ImportQuery, columns: dict[str, str | None]
) -> ImportReport:
    async with account(settings, email) as (user, _, database):
        with opened(path, "rb") as source, readable_twice(source) as file:
            size = os.fstat(file.fileno()).st_size
            with progress(size, "bytes") as show:
                async with claim_import(database, user.id):
                    return await import_file(
                        database,
                        user.id,
                        file,
                        query,
                        columns=columns,
                        last_date_of_birth=last_date_of_birth(datetime.now(UTC)),
                        max_rows=settings.import_max_rows,
                        max_contacts=settings.max_contacts,
                        on_progress=lambda: show(file.tell()),
                    )


def export_contacts(email: str, path: Path | None, extension: str | None) -> None:
    extension = extension or (path.suffix.lower()[1:] if path else "")
    pieces = pieces_of_export(connected(Settings()), email, "vcard" if extension == "vcf" else "csv")
    asyncio.run(export_to(path, pieces))


async def export_to(path: Path | None, pieces: AsyncGenerator[bytes]) -> None:
    async with aclosing(pieces):
        # Read the first piece before creating the file, so that an error leaves no file behind.
        piece = await anext(pieces)
        try:
            with opened(path, "wb") as file, progress(None, "bytes") as show:
                written = file.write(piece)
                async for piece in pieces:
                    written += file.write(piece)
                    show(written)
        except OSError as error:
            raise CommandError(f"{path or 'The standard output'}: {error.strerror}.") from None


async def pieces_of_export(settings: Settings, email: str, format_: Format) -> AsyncGenerator[bytes]:
    async with account(settings, email) as (user, _, database):
        async for piece in exports.export_contacts(database, user.id, ContactFilter(), format_):
            yield piece


@contextmanager
def readable_twice(source: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the file. For a pipe, which can be read only once, yield a copy."""
    if source.seekable():
        yield source
        return
    with TemporaryFile() as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        yield copy


def opened(path: Path | None, mode: Literal["rb", "wb"]) -> AbstractContextManager[BinaryIO]:
    try:
        # Reopen the standard output, so that write errors are raised here and not when Python exits.
        return open(path or sys.stdout.fileno(), mode, closefd=path is not None)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.") from None


@contextmanager
def progress(total: int | None, unit: Literal["bytes", "contacts", "accounts"]) -> Iterator[Callable[..., None]]:
    """Show a progress bar after the first progress.

    Yields a function to call with the amount done, and with the total if it was unknown before.
    """
    from rich.console import Console  # here, because `serve` does not need it
    from rich.progress import BarColumn, DownloadColumn, FileSizeColumn, MofNCompleteColumn, Progress

    amount = MofNCompleteColumn() if unit != "bytes" else DownloadColumn() if total else FileSizeColumn()
    bar = Progress(BarColumn(), amount, console=Console(stderr=True))
    task = bar.add_task("", total=total or None)
    with ExitStack() as stack:

        def show(done: int, total: int | None = total) -> None:
            if not bar.live.is_started:
                stack.enter_context(bar)
            bar.update(task, completed=done, total=total or None)

        yield show


def add_user(email: str) -> None:
    """Create an account, even if registration is closed. Raises EmailTaken and WeakPassword."""
    settings = Settings()
    by_mail = settings.smtp_url is not None
    password = secrets.token_urlsafe(24) if by_mail else ask_password()
    new = UserCreate.model_validate({"email": email, "password": password})
    asyncio.run(register(connected(settings), new))
    told = "A link to choose its password is mailed to" if by_mail else "It signs in as"
    echo(f"Made an account. {told} {new.email}.")


async def register(settings: Settings, new: UserCreate) -> None:
    async with accounts(settings) as (users, _):
        await users.register(new, mail="invite")


def list_users(as_json: bool) -> None:
    rows = asyncio.run(read_users(connected(Settings())))
    if as_json:
        echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())
        return
    if not rows:
        echo("There are no accounts.")
        return
    from rich.console import Console  # here, because `serve` does not need it
    from rich.table import Table

    table = Table(*(name.replace("_", " ") for name in rows[0]))
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def shown(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        case int():
            return f"{value:,}"
    return str(value or "")


async def read_users(settings: Settings) -> list[dict[str, Any]]:
    async with accounts(settings) as (_, database):
        return [dict(row) for row in await database.read(USERS)]


def set_password(email: str) -> None:
    password = TypeAdapter(Password).validate_python(ask_password())
    asyncio.run(change(connected(Settings()), email, lambda users, user: users.set_password(user, password)))
    echo("The password is set, and all sessions of the account have ended.")


def ask_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("New password: ")
    if getpass.getpass("Repeat it: ") != password:
        raise CommandError("The two passwords differ.")
    return password


def set_active(email: str, is_active: bool) -> None:
    asyncio.run(change(connected(Settings()), email, lambda users, user: users.set_active(user, is_active)))
    echo("The account can sign in." if is_active else "The account cannot sign in, and all its sessions have ended.")


async def change(settings: Settings, email: str, how: Callable[[UserManager, User], Awaitable[None]]) -> None:
    async with account(settings, email) as (user, users, _):
        await how(users, user)


@asynccontextmanager
async def account(settings: Settings, email: str) -> AsyncIterator[tuple[User, UserManager, Database]]:
    """Find an account. Raises CommandError if it does not exist.

    Database errors inside the block become CommandErrors, so that any OSError comes from a file.
    """
    async with accounts(settings) as (users, database):
        user = await users.find(email)
        if user is None:
            raise CommandError("There is no account with this e-mail address.")
        try:
            yield user, users, database
        except DATABASE_ERRORS as error:
            raise CommandError(f"{problem_of_database_error(error).title}.") from None


@asynccontextmanager
async def accounts(settings: Settings) -> AsyncIterator[tuple[UserManager, Database]]:
    logging.config.dictConfig(runtime.logging_at(settings.log_level, settings.log_format))
    engine = create_engine(settings.url, 2, IMPORT_SECONDS, prepared_statements=settings.prepared_statements)
    database = Database(engine)
    try:
        mails = Mails(database, settings)
        hasher = PasswordHasher(threads=1)
        yield UserManager(database, hasher, mails, settings, ways_in=[CLOSE_FEED]), database
    finally:
        await engine.dispose()
