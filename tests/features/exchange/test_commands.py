"""Import and export on the command line."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from contacts_api.cli.app import main
from contacts_api.features.exchange.files import UnknownFormat
from tests.client import Client
from tests.conftest import SECRET
from tests.features.exchange.contacts import SAMPLES

Run = Callable[..., Awaitable[tuple[int, str, str]]]
EMAIL = ("--email", "ada@example.com")


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the test database. Return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("JWT_SECRET", SECRET)

    def command(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = 0
        try:
            main(arguments)
        except SystemExit as exited:
            status = int(exited.code or 0)
        return (status, *capfd.readouterr())

    # In a thread, because a command runs its own event loop.
    return partial(asyncio.to_thread, command)


async def test_a_file_goes_in_and_comes_out_again(ada: Client, run: Run, tmp_path: Path) -> None:
    sample = str(SAMPLES / "google.csv")

    dry = await run("import", sample, *EMAIL, "--dry-run")
    nothing = await ada.list_contacts()
    real = await run("import", sample, *EMAIL)
    again = await run("import", sample, *EMAIL, "--on-duplicate", "update")
    exported = await run("export", *EMAIL, "out.vcf")
    shown = await run("export", *EMAIL, "--format", "csv")

    assert dry[:2] == (0, "3 created, 0 updated, 0 skipped, 0 failed (a dry run: nothing is changed).\n")
    assert nothing == []
    assert real[:2] == (0, "3 created, 0 updated, 0 skipped, 0 failed.\n")
    assert again[:2] == (0, "0 created, 0 updated, 3 skipped, 0 failed.\n")
    assert exported[0] == 0
    assert (tmp_path / "out.vcf").read_bytes() == (await ada.get("/contacts/export.vcf")).content
    assert shown[1].encode() == (await ada.get("/contacts/export.csv")).content


async def test_what_is_wrong_is_said_in_one_line(ada: Client, run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "bad.csv").write_text("first_name,email,age\nBob,bob,36\n,,\n,,36\n")
    (tmp_path / "photo.vcf").write_text("BEGIN:VCARD\nFN:Bob\nPHOTO;ENCODING=b:AA==\nEND:VCARD\n")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n")
    wrong = [
        (("import", "nowhere.csv", *EMAIL), "nowhere.csv: No such file or directory."),
        (("import", "empty", *EMAIL), "The file is empty."),
        (("import", "photo.png", *EMAIL), f"It seems to be an image. {UnknownFormat.advice}"),
        (("import", "empty", "--email", "nobody@example.com"), "There is no account with this e-mail address."),
        (("export", "/dev/full", *EMAIL), "/dev/full: No space left on device."),
        (("export", "no/such/directory.csv", *EMAIL), "no/such/directory.csv: No such file or directory."),
    ]

    for arguments, message in wrong:
        status, _, said = await run(*arguments)
        assert (status, said.strip().splitlines()[-1]) == (1, f"contacts_api: {message}")
    status, out, said = await run("import", "bad.csv", *EMAIL)
    assert (status, out) == (1, "1 created, 0 updated, 0 skipped, 1 failed.\n")
    failed, unknown, refused = said.splitlines()[-3:]
    assert failed.startswith("row 4 (line 4): failed: first_name: A name, a nickname, ")
    assert unknown == "row 2 (line 2): warning: age: The column is not known: its values are kept in details."
    assert refused.startswith("row 2 (line 2): warning: email: Must be a valid e-mail address")
    status, out, said = await run("import", "photo.vcf", *EMAIL, "--label", "Phone")
    assert (status, out) == (0, "1 created, 0 updated, 0 skipped, 0 failed.\nNot kept: 1 PHOTO.\n")
    status, out, said = await run("import", "photo.vcf", *EMAIL)
    assert (status, said.splitlines()[-1]) == (
        0,
        "row 1 (line 1): skipped: You have this contact, and it says the same.",
    )


async def test_a_pipe_is_imported(ada: Client, run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    writing = asyncio.to_thread((tmp_path / "pipe").write_text, "first_name\nGrace\n")
    (status, out, _), _ = await asyncio.gather(run("import", "pipe", *EMAIL), writing)

    assert (status, out) == (0, "1 created, 0 updated, 0 skipped, 0 failed.\n")
