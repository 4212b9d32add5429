"""The command line as users see it: processes, their output and their exit codes."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import httpx
import psycopg2
import pytest
from sqlalchemy.engine import make_url

from contacts_api.cli.app import main
from contacts_api.cli.demo import believable_contacts
from contacts_api.contacts.models import ContactFields
from tests.client import A_CONTACT, A_PASSWORD, Client
from tests.conftest import SECRET, Execute
from tests.watcher import MARK

Start = Callable[..., subprocess.Popen[str]]


def inherited() -> dict[str, str]:
    names = ("PATH", MARK, "PREPARED_STATEMENTS")
    return {name: os.environ[name] for name in names if name in os.environ}


def command(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "contacts_api", *arguments],
        input=stdin,
        env={**inherited(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server. The fixture stops it after the test."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str, port: int, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "contacts_api", *arguments, "--port", str(port)],
            env={**inherited(), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        for _ in range(300):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                    return process
            except httpx.TransportError:
                pass
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    yield run
    for process in processes:
        process.terminate()
        process.communicate(timeout=20)


def stop(process: subprocess.Popen[str], with_signal: int = signal.SIGTERM) -> str:
    process.send_signal(with_signal)
    return process.communicate(timeout=20)[1]


def test_help_names_every_command() -> None:
    result = command("--help")

    assert result.returncode == 0
    for name in (
        "serve",
        "migrate",
        "seed",
        "import",
        "export",
        "add-user",
        "users",
        "set-password",
        "deactivate",
        "activate",
    ):
        assert re.search(rf"^ +{name}\b", result.stdout, re.MULTILINE)


def test_help_imports_no_large_libraries() -> None:
    code = "import sys; from contacts_api.cli.app import main; main(['--help'])"
    result = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)

    assert result.returncode == 0
    for heavy in ("contacts_api.cli.commands", "fastapi", "sqlalchemy", "uvicorn", "rich", "pydantic", "psycopg2"):
        assert f" {heavy}\n" not in result.stderr


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("--nonsense",), ("seed", "--contacts", "-1"), ("import", "x"), ("--port", "99999")]
)
def test_a_wrong_command_line_exits_with_2_and_points_to_help(arguments: tuple[str, ...]) -> None:
    result = command(*arguments)

    assert result.returncode == 2
    assert "-h' for help." in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DATABASE_URL": "mysql://localhost/x"}, "DATABASE_URL must start with postgresql://"),
        ({"DATABASE_URL": "rubbish"}, "DATABASE_URL is not a URL"),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x", "JWT_SECRET": SECRET},
            "The database does not answer",
        ),
        ({"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x"}, "JWT_SECRET is not set"),
        ({"DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "JWT_SECRET": "hunter2"}, "JWT_SECRET must have at least 32"),
        ({"JWT_SECRET": "hunter2"}, "JWT_SECRET must have at least 32 bytes"),
        ({"DATA_DIR": "/dev/null/x"}, "DATA_DIR"),
        ({"DATA_DIR": "a directory"}, "must have no spaces"),
        ({"TIME_ZONE": "Mars/Olympus"}, "TIME_ZONE"),
        ({"POOL_SIZE": "hunter2"}, "POOL_SIZE"),
        ({"SMTP_URL": "hunter2"}, "SMTP_URL must be smtp://"),
        ({"MAIL_FROM": "hunter2"}, "MAIL_FROM must be an address"),
        ({"PUBLIC_URL": "hunter2"}, "PUBLIC_URL"),
    ],
)
def test_wrong_settings_are_reported_in_one_line(
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as exited:
        main(["serve", "--port", str(free_port())])

    said = capfd.readouterr().err
    assert exited.value.code == 1
    assert message in said
    assert len(said.splitlines()) == 1
    assert "hunter2" not in said


def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        port = taken.getsockname()[1]
        result = command("--port", str(port), DATA_DIR=str(tmp_path))

    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert f"127.0.0.1:{port}: Address already in use" in result.stderr
    assert f"--port {port + 1}, or make run PORT={port + 1}." in result.stderr


def test_the_embedded_database_keeps_its_data_and_its_secret(start: Start, tmp_path: Path) -> None:
    port, data = free_port(), {"DATA_DIR": str(tmp_path / "data"), "LC_ALL": "C"}
    address = f"http://127.0.0.1:{port}"
    first = start(port=port, **data)
    httpx.post(f"{address}/auth/register", json={"email": "ada@example.com", "password": A_PASSWORD})
    pair = httpx.post(f"{address}/auth/login", json={"email": "ada@example.com", "password": A_PASSWORD}).json()
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    httpx.post(f"{address}/contacts", json={**A_CONTACT, "first_name": "Тарас"}, headers=headers)

    said = stop(first)
    start(port=port, **data)
    found = httpx.get(f"{address}/contacts", params={"q": "ТАРАС"}, headers=headers)

    assert first.returncode == 0
    assert f"http://127.0.0.1:{port}/docs" in said
    assert re.search(r"INFO contacts_api.access: POST /contacts 201 [0-9.]+ms [0-9a-f]{32}\n", said)
    assert "SELECT" not in said
    assert "Traceback" not in said
    assert [contact["first_name"] for contact in found.json()["items"]] == ["Тарас"]
    secret = tmp_path / "data" / "jwt_secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_text()) == 64


def test_directories_above_the_embedded_database_stay_private(start: Start, tmp_path: Path) -> None:
    """As root, the library opens all parent directories to everybody, although its system user needs only to traverse
    them."""
    (tmp_path / "private").mkdir(mode=0o700)

    port = free_port()
    start(port=port, DATA_DIR=str(tmp_path / "private" / "data"))

    assert (tmp_path / "private").stat().st_mode & 0o066 == 0
    assert (tmp_path / "private" / "data").stat().st_mode & 0o066 == 0
    assert (tmp_path / "private" / "data" / "postgres").stat().st_mode & 0o077 == 0


def test_the_last_process_stops_the_embedded_database(start: Start, tmp_path: Path) -> None:
    one, other = free_port(), free_port()
    first, second = (start(port=port, DATA_DIR=str(tmp_path)) for port in (one, other))

    stop(first)
    still = httpx.get(f"http://127.0.0.1:{other}/health/ready").status_code
    running = (tmp_path / "postgres" / "postmaster.pid").exists()
    stop(second, signal.SIGINT)

    assert (still, running) == (200, True)
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_a_server_starts_again_after_a_kill(start: Start, tmp_path: Path) -> None:
    port = free_port()
    killed = start(port=port, DATA_DIR=str(tmp_path))
    killed.kill()
    killed.communicate()

    stop(start(port=port, DATA_DIR=str(tmp_path)))

    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_several_workers_share_one_database(start: Start, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    process = start("serve", "--workers", "2", port=port, DATA_DIR=str(tmp_path))
    body = {"email": "ada@example.com", "password": A_PASSWORD}
    spellings = ["ada@example.com", "Ada@Example.com", "ADA@EXAMPLE.COM", "ada@EXAMPLE.com"] * 5

    def register(email: str) -> int:
        return httpx.post(f"{address}/auth/register", json={**body, "email": email}, timeout=20).status_code

    with ThreadPoolExecutor(20) as threads:
        registered = sorted(threads.map(register, spellings))
    pair = httpx.post(f"{address}/auth/login", json=body).json()
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    httpx.post(f"{address}/auth/logout", headers=headers)
    time.sleep(1)
    after = {httpx.get(f"{address}/contacts", headers=headers).status_code for _ in range(20)}

    assert registered == [201] + [409] * 19
    assert after == {401}
    stop(process)
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_a_data_directory_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("14\n")

    result = command("serve", "--port", str(free_port()), DATA_DIR=str(tmp_path))

    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "PostgreSQL 14" in result.stderr


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_url_scheme_of_postgresql_is_accepted(start: Start, database_url: str, scheme: str) -> None:
    spelled = scheme + database_url.removeprefix("postgresql")
    port = free_port()

    assert command("migrate", DATABASE_URL=spelled).returncode == 0
    stop(start("serve", port=port, DATABASE_URL=spelled, JWT_SECRET=SECRET))


def test_a_database_in_another_encoding_is_refused(database_url: str) -> None:
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        name = f"in_ascii_{os.getpid()}"
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        url = make_url(database_url).set(database=name).render_as_string(hide_password=False)

        result = command("migrate", DATABASE_URL=url)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")

    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "SQL_ASCII" in result.stderr


def test_seed_creates_an_account_with_a_password(database_url: str, execute: Execute) -> None:
    result = command("seed", "--email", "Demo@Example.com", "--contacts", "1234", DATABASE_URL=database_url)
    again = command("seed", "--email", "demo@example.com", "--contacts", "1", DATABASE_URL=database_url)

    assert result.returncode == again.returncode == 0, result.stderr
    assert re.search(r"demo@example\.com with the password \S{16}", result.stdout)
    assert "Added 1 contacts to the account demo@example.com, which has 1,235 now." in again.stdout
    assert "1234/1234" in result.stderr
    assert execute("SELECT count(*), bool_and(search_text LIKE '%%@example.com%%') FROM contact") == [(1235, True)]


async def test_an_operator_sets_passwords_and_deactivates_accounts(database_url: str, ada: Client) -> None:
    on_database = {"DATABASE_URL": database_url}
    done = command("set-password", "ADA@example.com", stdin="a new password\n", **on_database)
    old = await ada.post("/auth/login", json={"email": ada.email, "password": A_PASSWORD})
    new = await ada.post("/auth/login", json={"email": ada.email, "password": "a new password"})
    weak = command("set-password", "ada@example.com", stdin="short\n", **on_database)
    unknown = command("deactivate", "nobody@example.com", **on_database)
    shut_out = command("deactivate", "ada@example.com", **on_database)
    await asyncio.sleep(1)
    locked_out = await ada.get("/contacts", headers={"Authorization": f"Bearer {new.json()['access_token']}"})
    refused = await ada.post("/auth/login", json={"email": ada.email, "password": "a new password"})
    refresh = await ada.post("/auth/refresh", json={"refresh_token": new.json()["refresh_token"]})
    let_in = command("activate", "ada@example.com", **on_database)
    back = await ada.post("/auth/login", json={"email": ada.email, "password": "a new password"})

    assert [r.returncode for r in (done, weak, unknown, shut_out, let_in)] == [0, 1, 1, 0, 0]
    assert [r.status_code for r in (old, new, refused, refresh, back)] == [401, 200, 401, 401, 200]
    assert locked_out.status_code == 401
    assert len(unknown.stderr.splitlines()) == 1
    assert weak.stderr == "contacts_api: Must have at least 8 characters.\n"


def test_seed_without_faker_explains_the_installation_and_creates_no_account(
    database_url: str, execute: Execute, tmp_path: Path
) -> None:
    (tmp_path / "faker.py").write_text("raise ImportError")

    result = command("seed", "--email", "demo@example.com", DATABASE_URL=database_url, PYTHONPATH=str(tmp_path))

    assert result.returncode == 1
    assert "requirements-seed.txt" in result.stderr
    assert execute('SELECT count(*) FROM "user"') == [(0,)]


class ContactWithCompany(ContactFields):
    company: str | None = None
    shoe_size: str | None = None


def test_seed_fills_new_text_fields_that_faker_supports() -> None:
    (contact,) = believable_contacts(1, ContactWithCompany)

    assert isinstance(contact, ContactWithCompany)
    assert contact.company
    assert contact.shoe_size is None


def test_an_operator_adds_accounts_and_lists_them(database_url: str, execute: Execute) -> None:
    settings = {"DATABASE_URL": database_url, "REGISTRATION_OPEN": "false"}

    nobody = command("users", **settings)
    added = command("add-user", "ada@example.com", stdin=f"{A_PASSWORD}\n", **settings)
    again = command("add-user", "ADA@example.com", stdin=f"{A_PASSWORD}\n", **settings)
    weak = command("add-user", "grace@example.com", stdin="password\n", **settings)
    listed = json.loads(command("users", "--json", **settings).stdout)
    table = command("users", **settings).stdout

    assert nobody.stdout == "There are no accounts.\n"
    assert (added.returncode, added.stdout) == (0, "Made an account. It signs in as ada@example.com.\n")
    assert (again.returncode, weak.returncode) == (1, 1)
    assert "already an account" in again.stderr
    assert "commonest" in weak.stderr
    assert listed == [
        {
            "email": "ada@example.com",
            "verified": False,
            "active": True,
            "contacts": 0,
            "sessions": 0,
            "last_sign_in": None,
        }
    ]
    assert "ada@example.com" in table
    assert "last sign in" in table


def test_the_log_can_be_json(database_url: str, start: Start) -> None:
    port = free_port()
    server = start("serve", port=port, DATABASE_URL=database_url, JWT_SECRET=SECRET, LOG_FORMAT="json")
    httpx.get(f"http://127.0.0.1:{port}/health/live")

    lines = [json.loads(line) for line in stop(server).splitlines() if line.startswith("{")]

    assert {"time", "level", "logger", "message"} == lines[0].keys()
    assert any(line["message"].startswith("GET /health/live 200") for line in lines)


def test_an_added_account_is_mailed_a_link(database_url: str, execute: Execute, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": database_url, "SMTP_URL": f"file://{tmp_path}"}

    added = command("add-user", "eve@example.com", **settings)

    assert added.stdout == "Made an account. A link to choose its password is mailed to eve@example.com.\n"
    assert execute("SELECT purpose, address FROM mail") == [("invite", "eve@example.com")]


def test_requiring_verification_without_a_mail_server_is_refused(database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "JWT_SECRET": SECRET, "REQUIRE_VERIFICATION": "true"}

    result = command("serve", "--port", str(free_port()), **settings)

    assert result.returncode == 1
    assert result.stderr.strip() == (
        "contacts_api: SMTP_URL is not set: with REQUIRE_VERIFICATION=true, nobody could sign in."
    )


def test_a_newcomer_finds_the_mail_in_the_outbox(start: Start, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start("serve", port=port, DATA_DIR=str(tmp_path / "data"))
    credentials = {"email": "eve@example.com", "password": A_PASSWORD}
    httpx.post(f"{url}/auth/register", json=credentials).raise_for_status()
    httpx.post(f"{url}/auth/forgot-password", json={"email": "eve@example.com"}).raise_for_status()
    for _ in range(100):
        mails = [path.read_text() for path in (tmp_path / "data" / "outbox").glob("*.eml")]
        if len(mails) == 2:
            break
        time.sleep(0.1)
    (link,) = (found[0] for mail in mails if (found := re.search(rf"{url}/reset-password#token=\S+", mail)))
    new = {"token": link.partition("=")[2], "password": "another long phrase"}

    assert httpx.get(link).status_code == 200
    assert httpx.post(f"{url}/auth/reset-password", json=new).status_code == 204
    assert httpx.post(f"{url}/auth/login", json={**credentials, "password": new["password"]}).status_code == 200


class Collector(BaseHTTPRequestHandler):
    """A collector for traces and metrics (OTLP over HTTP)."""

    received: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()


def test_traces_are_sent_without_queries_and_keys(database_url: str, start: Start) -> None:
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=collector.serve_forever, daemon=True).start()
    port = free_port()
    settings = {
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
    }
    server = start("serve", port=port, DATABASE_URL=database_url, JWT_SECRET=SECRET, **settings)
    httpx.get(f"http://127.0.0.1:{port}/contacts", params={"q": "hopper"})
    httpx.get(f"http://127.0.0.1:{port}/contacts/birthdays.ics", params={"key": "k" * 43})
    server.terminate()
    server.wait(20)
    collector.shutdown()
    collector.server_close()

    received = b"".join(Collector.received)
    assert b"GET /contacts" in received
    assert b"http.server.request.duration" in received
    assert b"hopper" not in received
    assert b"kkkk" not in received
