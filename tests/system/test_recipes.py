"""Applies the recipes of docs/extending.md to a copy of the project, exactly as printed, and tests the result over
HTTP."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.client import A_CONTACT, A_PASSWORD

ROOT = Path(__file__).parent.parent.parent
COPIED = ("contacts_api", "migrations", "tests", "docs", "alembic.ini", "pyproject.toml", "Makefile")
# Tests that discover tables and routes automatically.
CONCERNED = (
    "tests/test_architecture.py",
    "tests/database/test_migrations.py",
    "tests/http/test_examples.py",
    "tests/http/test_openapi.py",
    "tests/http/test_pages.py",
    "tests/safety/test_ownership.py",
    "tests/safety/test_hostile_input.py",
)
# Tests that depend on the fields of a contact.
OF_FIELDS = ("tests/contacts", *(f"tests/features/exchange/test_{name}.py" for name in ("csv", "exports", "vcard")))
SECONDS = 900


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the same requirements."""
    for name in (*COPIED, *(path.name for path in ROOT.glob("requirements*.txt"))):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            # Keep the modification time, because make compares it with that of the installed packages.
            shutil.copy2(source, tmp_path / name)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    return tmp_path


def recipe(title: str) -> str:
    """Return the section of the recipes with this title."""
    text = (ROOT / "docs" / "extending.md").read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def follow(section: str, project: Path) -> list[str]:
    """Follow the section: create files, apply diffs and run commands. Return the names of the changed files."""
    changed = []
    for kind, name, content in re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        if name:
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).write_text(content)
            changed.append(name)
        elif kind == "diff":
            changed.append(patch(content, project))
    for command in re.findall(r"^\$ (.*)$", section, re.MULTILINE):
        done = run(project, "bash", "-c", command)
        assert done.returncode == 0, done.stdout
    return changed


def patch(diff: str, project: Path) -> str:
    """Apply a diff without line numbers, which finds places by their content. Return the name of the file."""
    header, *hunks = re.split(r"^@@\n", diff, flags=re.MULTILINE)
    name = header.split()[-1].removeprefix("b/")
    text = (project / name).read_text()
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
        assert text.count(before) == 1, f"{name} has changed: {before}"
        text = text.replace(before, after)
    (project / name).write_text(text)
    return name


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=project,
        env=without_database(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def without_database() -> dict[str, str]:
    """Return the environment without the test database, so that the project uses its own."""
    return {name: value for name, value in os.environ.items() if not name.endswith("DATABASE_URL")}


def check(project: Path, word: str, *others: str) -> None:
    """Run the affected tests and the checks of style and types. `word` occurs in the names of the new operations."""
    tests = ("-k", f"not test_hostile_input or {word}", *CONCERNED, *others)
    for command in (
        (*("-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses", "2"), *tests),
        ("-m", "ruff", "format", "--check", "contacts_api", "migrations"),
        ("-m", "ruff", "check", "contacts_api", "migrations"),
        ("-m", "mypy", "contacts_api"),
    ):
        done = run(project, sys.executable, *command)
        assert done.returncode == 0, done.stdout[-5000:]


@contextmanager
def served(project: Path) -> Iterator[httpx.Client]:
    """Serve the project and yield a client that is signed in."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**without_database(), "DATA_DIR": str(project / "data")}
    command = [sys.executable, "-m", "contacts_api", "--port", str(port)]
    server = subprocess.Popen(command, cwd=project, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_for(client)
            account = {"email": "ada@example.com", "password": A_PASSWORD}
            client.post("/auth/register", json=account).raise_for_status()
            token = client.post("/auth/login", json=account).raise_for_status().json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def wait_for(client: httpx.Client) -> None:
    give_up_at = time.monotonic() + 120
    while True:
        try:
            client.get("/health/ready").raise_for_status()
            return
        except httpx.HTTPError:
            assert time.monotonic() < give_up_at
            time.sleep(0.2)


def test_a_field_added_in_one_file_works_everywhere(project: Path) -> None:
    changed = follow(recipe("Add a field"), project)

    assert changed == ["contacts_api/contacts/models.py"]
    (migration,) = project.glob("migrations/versions/*_add_company.py")
    assert 'op.add_column("contact", sa.Column("company"' in migration.read_text()
    check(project, "contact", *OF_FIELDS)
    with served(project) as client:
        made = client.post("/contacts", json={**A_CONTACT, "company": "Eckert-Mauchly"}).raise_for_status().json()
        assert made["company"] == "Eckert-Mauchly"
        client.post("/contacts", json={**A_CONTACT, "first_name": "Ada"}).raise_for_status()
        for query in ({"q": "mauchly"}, {"company": "ECKERT"}, {"company": "mauchly", "q": "eckert"}):
            assert [each["id"] for each in client.get("/contacts", params=query).json()["items"]] == [made["id"]]
        assert client.patch(f"/contacts/{made['id']}", json={"company": "Navy"}).json()["company"] == "Navy"
        assert client.patch(f"/contacts/{made['id']}", json={"company": "x" * 101}).status_code == 422
        assert client.patch(f"/contacts/{made['id']}", json={"company": None}).json()["company"] is None
        csv = b"First Name,E-mail Address,Company,Organization\r\nJohn,john@example.com,Penn,Penn\r\n"
        card = b"BEGIN:VCARD\r\nVERSION:3.0\r\nN:Holberton;Betty\r\nORG:Univac;Sales\r\nEND:VCARD\r\n"
        for file in (csv, card):
            report = client.post("/contacts/import", files={"file": ("contacts", file)}).json()
            assert (report["created"], report["failed"]) == (1, 0)
        exported = client.get("/contacts/export.csv").text
        assert exported.splitlines()[0].endswith(",company")
        assert "John,,john@example.com,,,,,,,Penn" in exported
        assert "ORG:Univac\\, Sales\r\n" in client.get("/contacts/export.vcf").text
        again = client.post("/contacts/import", files={"file": ("contacts.csv", exported.encode())}).json()
        assert (again["created"], again["skipped"]) == (0, 4)
        document = client.get("/openapi.json").json()
        parameters = document["paths"]["/contacts"]["get"]["parameters"]
        assert "company" in [parameter["name"] for parameter in parameters]
        for schema in ("ContactCreate", "ContactUpdate", "ContactPublic"):
            assert "company" in document["components"]["schemas"][schema]["properties"], schema


def test_a_resource_added_as_one_package_and_one_line_works(project: Path) -> None:
    changed = follow(recipe("Add a resource"), project)

    assert [name for name in changed if name.startswith("contacts_api/")] == [
        "contacts_api/features/notes/models.py",
        "contacts_api/features/notes/queries.py",
        "contacts_api/features/notes/routes.py",
        "contacts_api/features/notes/__init__.py",
        "contacts_api/features/__init__.py",
    ]
    check(project, "note")
    with served(project) as client:
        contact = client.post("/contacts", json=A_CONTACT).raise_for_status().json()
        notes = f"/contacts/{contact['id']}/notes"
        made = [client.post(notes, json={"text": f"Note {n}"}).raise_for_status().json() for n in range(3)]
        page = client.get(notes, params={"limit": 2})
        assert page.json()["items"] == made[:2]
        rest = client.get(page.links["next"]["url"]).json()
        assert (rest["items"], rest["next_cursor"]) == (made[2:], None)
        assert client.delete(f"{notes}/{made[0]['id']}").status_code == 204
        assert client.delete(f"{notes}/{made[0]['id']}").json()["code"] == "note_not_found"
        assert client.get(notes).json()["items"] == made[1:]
        client.delete(f"/contacts/{contact['id']}").raise_for_status()
        assert client.get(notes).json()["code"] == "contact_not_found"
