"""The command line: serve, migrate, seed, and an operator's ways with accounts."""

import argparse
import asyncio
import getpass
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, get_args
from uuid import UUID

import psycopg2
import uvicorn
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from contacts_api import __version__, embedded
from contacts_api.accounts.attempts import Attempts
from contacts_api.accounts.models import Password, User, UserCreate
from contacts_api.accounts.passwords import PasswordHasher
from contacts_api.accounts.users import UserManager
from contacts_api.contacts.models import Contact, ContactBase, columns_of, last_date_of_birth
from contacts_api.contacts.queries import ContactFilter
from contacts_api.contacts.quota import count_contacts
from contacts_api.database import Database, create_engine, psycopg2_url, table_of
from contacts_api.exchange.exports import export_contacts
from contacts_api.exchange.imports import claim_import, import_file
from contacts_api.exchange.models import OnDuplicate
from contacts_api.exchange.records import Format
from contacts_api.handlers import DATABASE_ERRORS, problem_of_database_error
from contacts_api.problems import Problem
from contacts_api.protocol import Protocol
from contacts_api.schema import SchemaError, migrate
from contacts_api.settings import Settings

if os.name == "posix":
    import resource

OLDEST_POSTGRESQL = 15
SHUTDOWN_SECONDS = 10
# A worker that does not answer its supervisor for so long is replaced. One that is only busy answers sooner.
HUNG_SECONDS = 30
BATCH = 500
NO_ACCOUNT = "There is no account with this e-mail address."
LOCALES = ("en_US", "uk_UA", "pl_PL", "fr_FR")

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

T = TypeVar("T")


class CommandError(Exception):
    """What went wrong, in one line."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits with 1, and one line, where it cannot."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        options.run(options, Settings())
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{str(first['loc'][0]).upper()} {first['msg'].removeprefix('Value error, ')}")
    except (CommandError, embedded.EmbeddedError, SchemaError) as error:
        fail(str(error))
    except Problem as problem:
        fail(problem.detail)
    except DBAPIError as error:
        fail(f"{problem_of_database_error(error).title}.")
    except KeyboardInterrupt:
        sys.exit(130)


def fail(message: str) -> None:
    err.print(f"contacts_api: {message}", markup=False, soft_wrap=True)
    sys.exit(1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m contacts_api",
        description="A REST API for contacts. Without DATABASE_URL it brings its own PostgreSQL.",
        epilog="Settings are environment variables, or lines of .env: the README lists them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    serving = command("serve", serve, "serve the API (this is what no command means, too)")
    serving.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    serving.add_argument("--port", default=8000, type=int, help="the port to listen on (%(default)s)")
    serving.add_argument("--workers", type=int, help="how many processes (WEB_CONCURRENCY, or 1)")
    serving.add_argument("--reload", action="store_true", help="start anew when the code changes")
    command("migrate", run_migrations, "bring the database to the newest schema; safe from several places at once")
    seeding = command("seed", seed, "make a demo account with believable contacts")
    seeding.add_argument("--email", default="demo@example.com", help="whose contacts they are (%(default)s)")
    seeding.add_argument("--contacts", default=100, type=int, metavar="N", help="how many (%(default)s)")
    importing = command("import", run_import, "import a file of contacts, CSV or vCards, into an account")
    importing.add_argument("file", type=Path)
    importing.add_argument("--dry-run", action="store_true", help="only say what would come of it")
    importing.add_argument(
        "--on-duplicate",
        default="skip",
        choices=get_args(OnDuplicate),
        help="what to do with those there (%(default)s)",
    )
    exporting = command("export", run_export, "export the contacts of an account")
    exporting.add_argument("file", type=Path, nargs="?", help="where to (the standard output)")
    exporting.add_argument("--format", choices=("csv", "vcf"), help="as the file is called, and else csv")
    for each in (importing, exporting):
        each.add_argument("--email", required=True, help="whose contacts they are")
    for name, run, text in (
        ("set-password", set_password, "set an account's password, which is asked for, and end its sessions"),
        ("deactivate", deactivate, "shut an account out, and end its sessions"),
        ("activate", activate, "let a deactivated account in again"),
    ):
        command(name, run, text).add_argument("email", help="the account's address")

    is_bare = not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"))
    return parser.parse_args(["serve", *arguments] if is_bare else arguments)


def serve(options: argparse.Namespace, settings: Settings) -> None:
    """Serve until told to stop."""
    refuse_taken_port(options.host, options.port)
    if settings.database_url and not settings.jwt_secret:
        raise CommandError("JWT_SECRET is not set: with DATABASE_URL it must be, to 32 bytes or more.")
    url = connect(settings)
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else embedded.keep_secret(settings.data_dir)
    workers = options.workers or settings.web_concurrency
    # The workers are new processes: this is how they get to know.
    os.environ |= {"DATABASE_URL": url, "JWT_SECRET": secret, "WEB_CONCURRENCY": str(workers)}
    allow_many_files()
    # As an exit, not a death, so that the embedded PostgreSQL is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host = f"[{options.host}]" if ":" in options.host else options.host
    err.print(f"The docs are at [bold]http://{host}:{options.port}{settings.root_path}/docs[/bold]; Ctrl-C stops.")
    uvicorn.run(
        "contacts_api.app:app",
        host=options.host,
        port=options.port,
        workers=workers,
        reload=options.reload,
        access_log=False,
        server_header=False,
        log_config=logging_at(settings.log_level),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        http=Protocol,
        timeout_worker_healthcheck=HUNG_SECONDS,
    )


def allow_many_files() -> None:
    """Raise the limit on open files to the highest that is allowed: each connection takes one."""
    if os.name == "posix":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        # macOS names a limit that it does not grant.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def logging_at(level: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"]},
        # Not the root's level: SQLAlchemy would log every statement.
        "loggers": {"contacts_api": {"level": level}, "uvicorn": {"level": level}},
    }


def refuse_taken_port(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"Cannot listen on {host}:{port}: {reason}.") from None


def connect(settings: Settings) -> str:
    """Return the URL of a database that answers and fits: the operator's, or the embedded one, migrated."""
    if settings.database_url is None:
        url = embedded.start(settings.data_dir)
        migrate(url)
        return url
    url = settings.database_url.get_secret_value()
    try:
        dsn = psycopg2_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        with closing(psycopg2.connect(dsn, connect_timeout=5)) as connection:
            version, encoding = connection.server_version // 10_000, connection.get_parameter_status("server_encoding")
    except psycopg2.Error as error:
        raise CommandError(f"The database does not answer: {' '.join(str(error).split())}") from None
    if version < OLDEST_POSTGRESQL:
        raise CommandError(f"This is PostgreSQL {version}; it takes {OLDEST_POSTGRESQL} or newer.")
    if encoding != "UTF8":
        raise CommandError(f"The database's encoding is {encoding}; it takes UTF8: CREATE DATABASE … ENCODING 'UTF8'.")
    return url


def run_migrations(options: argparse.Namespace, settings: Settings) -> None:
    migrate(connect(settings))
    out.print("The database has the newest schema.")


def seed(options: argparse.Namespace, settings: Settings) -> None:
    email = checked(TypeAdapter(UserCreate), {"email": options.email, "password": secrets.token_urlsafe()}).email
    if options.contacts < 0:
        raise CommandError("--contacts must be 0 or more.")
    asyncio.run(fill(connect(settings), email, options.contacts))


async def fill(url: str, email: str, count: int) -> None:
    """Make the account, unless there is one, and its contacts: all of them or none."""
    password = secrets.token_urlsafe(12)
    async with manager(url) as (users, database):
        user = await users.user_db.get_by_email(email)
        is_new = user is None
        user = user or await users.register(UserCreate(email=email, password=password))
        try:
            await add_contacts(database, user.id, count)
        except BaseException:
            if is_new:
                # Nobody would know its password.
                async with database.session() as session:
                    await session.delete(user)
            raise
    out.print(
        f"{count:,} contacts. Sign in as {email} with " + (f"the password {password}" if is_new else "your password")
    )


async def add_contacts(database: Database, owner_id: UUID, count: int) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("Contacts", total=count)
        rows = believable_contacts(count)
        async with database.session() as session:
            while batch := [{"owner_id": owner_id, "id": uuid7()} | row for row in islice(rows, BATCH)]:
                await session.execute(insert(table_of(Contact)), batch)
                progress.advance(task, len(batch))
    async with database.transaction(keep=True) as connection:
        await count_contacts(connection, owner_id)


def believable_contacts(count: int) -> Iterator[dict[str, Any]]:
    """Yield rows of contacts, in several scripts: drawn from samples, since Faker makes 3,000 a second."""
    try:
        from faker import Faker  # which takes half a second to import
    except ImportError:
        raise CommandError("`seed` needs Faker: pip install --require-hashes -r requirements-seed.txt") from None

    def sample(of: str, locale: str = "en_US", size: int = 200, **options: int) -> list[Any]:
        faker = Faker(locale)
        return [getattr(faker, of)(**options) for _ in range(size)]

    first_names = [sample("first_name", locale) for locale in LOCALES]
    last_names = [sample("last_name", locale) for locale in LOCALES]
    mailboxes, jobs = sample("user_name"), sample("job")
    births = sample("date_of_birth", size=1000, minimum_age=18, maximum_age=90)
    choose = random.Random().choice  # noqa: S311 (nothing here is secret)
    for n in range(count):
        language = n % len(LOCALES)
        contact = ContactBase(
            first_name=choose(first_names[language]),
            last_name=choose(last_names[language]),
            email=f"{choose(mailboxes)}{n}@example.com",
            phone_number=f"+1 202 555 {n % 10_000:04}",
            date_of_birth=choose(births),
            additional_info=choose(jobs) if n % 3 == 0 else None,
        )
        yield columns_of(contact)


def run_import(options: argparse.Namespace, settings: Settings) -> None:
    asyncio.run(import_into(options, settings))


async def import_into(options: argparse.Namespace, settings: Settings) -> None:
    async with account(settings, options.email) as (database, user):
        with opened(options.file, "rb") as file, progress_of(options.file.stat().st_size or None) as advance:
            async with claim_import(database, user.id):
                report = await import_file(
                    database,
                    user.id,
                    file,
                    last_date_of_birth=last_date_of_birth(datetime.now(UTC)),
                    max_rows=settings.import_max_rows,
                    max_contacts=settings.max_contacts,
                    dry_run=options.dry_run,
                    on_duplicate=options.on_duplicate,
                    on_progress=lambda: advance(file.tell()) if file.seekable() else None,
                )
    for error in report.errors:
        err.print(f"row {error.row}: {error.field or 'the row'}: {error.detail}", markup=False, soft_wrap=True)
    numbers = ", ".join(f"{getattr(report, name):,} {name}" for name in ("created", "updated", "skipped", "failed"))
    out.print(f"{numbers}{' (a dry run: nothing is changed)' if options.dry_run else ''}.")


def run_export(options: argparse.Namespace, settings: Settings) -> None:
    asyncio.run(export_from(options, settings))


async def export_from(options: argparse.Namespace, settings: Settings) -> None:
    async with aclosing(exported(options, settings)) as pieces:
        # Before the file is made, so that an error leaves none behind.
        piece = await anext(pieces)
        try:
            with opened(options.file, "wb") as file, progress_of(None) as advance:
                written = file.write(piece)
                async for piece in pieces:
                    written += file.write(piece)
                    advance(written)
        except OSError as error:
            raise CommandError(f"{options.file or 'The standard output'}: {error.strerror}.") from None


async def exported(options: argparse.Namespace, settings: Settings) -> AsyncGenerator[bytes]:
    """Yield the file, in pieces; errors of the database are told apart here from those of who writes it."""
    suffix = options.file.suffix.lower() if options.file else ""
    format_: Format = "vcard" if (options.format or suffix[1:]) == "vcf" else "csv"
    async with account(settings, options.email) as (database, user):
        async for piece in export_contacts(database, user.id, ContactFilter(), format_):
            yield piece


@asynccontextmanager
async def account(settings: Settings, email: str) -> AsyncIterator[tuple[Database, User]]:
    url = connect(settings)
    async with manager(url) as (users, database):
        user = await users.find(email)
        if user is None:
            raise CommandError(NO_ACCOUNT)
        try:
            yield database, user
        except DATABASE_ERRORS as error:
            raise CommandError(f"{problem_of_database_error(error).title}.") from None


def opened(path: Path | None, mode: Literal["rb", "wb"]) -> AbstractContextManager[BinaryIO]:
    try:
        # The standard output once more, so that what cannot be written shows here, not when Python ends.
        return open(path or sys.stdout.fileno(), mode, closefd=path is not None)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.") from None


@contextmanager
def progress_of(total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many bytes are through; yield the function that says it."""
    with Progress(BarColumn(), DownloadColumn(), console=err) as progress:
        task = progress.add_task("", total=total)
        yield lambda completed: progress.update(task, completed=completed)


def set_password(options: argparse.Namespace, settings: Settings) -> None:
    password = ask_password()
    checked(TypeAdapter(Password), password)
    asyncio.run(change(settings, options.email, lambda users, user: users.set_password(user, password)))
    out.print("The password is set, and all sessions of the account have ended.")


def ask_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("New password: ")
    if getpass.getpass("Once more: ") != password:
        raise CommandError("The two are not the same.")
    return password


def deactivate(options: argparse.Namespace, settings: Settings) -> None:
    asyncio.run(change(settings, options.email, lambda users, user: users.set_active(user, False)))
    out.print("The account is shut out, and all its sessions have ended.")


def activate(options: argparse.Namespace, settings: Settings) -> None:
    asyncio.run(change(settings, options.email, lambda users, user: users.set_active(user, True)))
    out.print("The account can sign in.")


async def change(settings: Settings, email: str, how: Callable[[UserManager, User], Coroutine[Any, Any, None]]) -> None:
    """Find the account and change it."""
    async with manager(connect(settings)) as (users, _):
        user = await users.find(email)
        if user is None:
            raise CommandError(NO_ACCOUNT)
        await how(users, user)


@asynccontextmanager
async def manager(url: str) -> AsyncIterator[tuple[UserManager, Database]]:
    engine = create_engine(url, pool_size=2)
    database = Database(engine)
    try:
        yield UserManager(database, PasswordHasher(threads=1), Attempts(database)), database
    finally:
        await engine.dispose()


def checked(adapter: TypeAdapter[T], value: object) -> T:
    """Return the value as its type has it; what is wrong with it is said without repeating it."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise CommandError(error.errors()[0]["msg"]) from None
