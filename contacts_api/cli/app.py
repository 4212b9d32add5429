"""The command line: the commands with their options and help texts. commands.py implements them.

Imports happen only when a command runs, so that `--help` is fast.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

from typer import Argument, Exit, Option, Typer, echo

from contacts_api import __version__, runtime

app = Typer(
    help="A REST API for contacts. Without DATABASE_URL, it starts a PostgreSQL of its own.",
    epilog="Settings are environment variables or lines of .env: docs/operating.md lists them.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def commands() -> ModuleType:
    from contacts_api.cli import commands

    return commands


Account = Annotated[str, Argument(metavar="EMAIL", help="The e-mail address of the account.")]
Owner = Annotated[str, Option("--email", help="The e-mail address of the account that the contacts belong to.")]


@app.command()
def serve(
    host: Annotated[str, Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(help="The port to listen on.", min=1, max=65535)] = 8000,
    workers: Annotated[int | None, Option(help="How many processes. Default: WEB_CONCURRENCY, else 1.", min=1)] = None,
    reload: Annotated[bool, Option("--reload", help="Restart when the code changes.")] = False,
) -> None:
    """Serve the API (the default command)."""
    commands().serve(host, port, workers, reload)


@app.command()
def migrate() -> None:
    """Migrate the database to the newest schema. Safe to run concurrently."""
    commands().migrate()


@app.command()
def reindex() -> None:
    """Update the search columns after an upgrade. Run it after migrate; the API may be running."""
    commands().reindex()


@app.command()
def distribute(
    shards: Annotated[int, Option(help="Into how many parts each table is split.", min=1, max=1024)] = 32,
) -> None:
    """Distribute the contacts over the nodes of a Citus cluster, by owner. Running it again changes nothing."""
    commands().distribute(shards)


@app.command()
def seed(
    email: Owner = "demo@example.com",
    contacts: Annotated[int, Option(help="How many contacts to add.", min=0)] = 100,
) -> None:
    """Add sample contacts to a demo account."""
    commands().seed(email, contacts)


@app.command("import")
def import_contacts(
    file: Annotated[Path, Argument(help="A CSV file or vCards.")],
    email: Owner,
    dry_run: Annotated[bool, Option("--dry-run", help="Report what the import would do, without doing it.")] = False,
    on_duplicate: Annotated[
        Literal["skip", "update", "create"], Option(help="What to do with contacts that the account already has.")
    ] = "skip",
    date_order: Annotated[
        Literal["auto", "dmy", "mdy"], Option(help="How a CSV file writes dates; auto finds out.")
    ] = "auto",
    encoding: Annotated[str, Option(help="auto is UTF-8, or UTF-16 by its mark; else a name: windows-1251.")] = "auto",
    label: Annotated[str | None, Option(help="A label for every contact that is created or updated.")] = None,
    columns: Annotated[
        str | None, Option(help='What columns mean whose names do not: \'{"Naam": "first_name"}\'.', show_default=False)
    ] = None,
) -> None:
    """Import a file into an account, and print a report. Exits with 1 if rows failed."""
    options = {"dry_run": dry_run, "on_duplicate": on_duplicate, "date_order": date_order, "encoding": encoding}
    commands().import_contacts(file, email, {**options, "label": label}, columns)


@app.command("export")
def export_contacts(
    email: Owner,
    file: Annotated[Path | None, Argument(help="The file to write. Default: the standard output.")] = None,
    extension: Annotated[
        Literal["csv", "vcf"] | None, Option("--format", help="Default: from the file's extension, else csv.")
    ] = None,
) -> None:
    """Export the contacts of an account."""
    commands().export_contacts(email, file, extension)


@app.command()
def add_user(email: Account) -> None:
    """Create an account, even if registration is closed. Mails a link or, without SMTP_URL, asks for a password."""
    commands().add_user(email)


@app.command()
def users(as_json: Annotated[bool, Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """List the accounts with their contacts, open sessions and last sign-in."""
    commands().list_users(as_json)


@app.command()
def set_password(email: Account) -> None:
    """Set a new password for an account, and end its sessions and keys."""
    commands().set_password(email)


@app.command()
def deactivate(email: Account) -> None:
    """Stop an account from signing in, and end its sessions and keys."""
    commands().set_active(email, False)


@app.command()
def activate(email: Account) -> None:
    """Let a deactivated account sign in again."""
    commands().set_active(email, True)


def show_version(is_wanted: bool) -> None:
    if is_wanted:
        echo(__version__)
        raise Exit


@app.callback()
def take_options(
    version: Annotated[
        bool, Option("--version", help="Show the version.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Handle the options before the command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. If it fails, print the reason in one line, and exit with 1."""
    runtime.prepare_start()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # `serve` is the default command.
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "serve")
    try:
        app(given, prog_name="python -m contacts_api")
    except Exception as error:
        from contacts_api.cli.commands import explain

        if (message := explain(error)) is None:
            raise
        echo(f"contacts_api: {message}", err=True)
        sys.exit(1)
