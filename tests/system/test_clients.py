"""Clients generated from the OpenAPI document with third-party tools, and checks of the document with such tools.

`npm ci --prefix tests/clients` and tests/clients/requirements.txt install the tools: see tests/system/run.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contacts_api.contacts.models import AN_ID
from tests.servers import free_port, wait_until
from tests.system.test_docs_page import EMAIL, PASSWORD, ROOT, running_server

CLIENTS = ROOT / "tests" / "clients"
NPM = CLIENTS / "node_modules" / ".bin"
# Set by tests/system/run. openapi-python-client conflicts with the library versions of the application.
GENERATOR = os.environ.get("OPENAPI_PYTHON_CLIENT", "openapi-python-client")
ENVIRONMENT = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
A_FILE = b"first_name,last_name\r\nMary,Jackson\r\n"
# These operations end the session that the others need.
ENDING = ("Sign out", "Sign out everywhere, this session included", "Delete your account and all your contacts")

# These operations fail with their examples: they name an unknown token, key or session, an address that is taken, or an
# object that was just deleted.
REFUSED = {
    "Create an account": 409,
    "Get the next pair of tokens": 401,
    "Choose a new password with the token of a mail": 422,
    "Verify an address with the token of a mail": 422,
    "End one of your sessions": 404,
    "Delete one of your keys": 404,
    "Change up to 500 contacts: all of them, or none": 404,
    "Take a label off every contact": 404,
    "Return the calendar of birthdays": 401,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("data")) as url:
        httpx.post(f"{url}/auth/register", json={"email": EMAIL, "password": PASSWORD}).raise_for_status()
        yield url


@pytest.fixture
def directory(server: str, tmp_path: Path) -> Path:
    """A directory with the document and the npm packages."""
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{server}/openapi.json").content)
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    for path in (*CLIENTS.glob("*.ts"), *CLIENTS.glob("*.json"), *CLIENTS.glob("*.py")):
        shutil.copy(path, tmp_path)
    return tmp_path


def run(directory: Path, program: str | Path, *arguments: str, **environment: str) -> list[str]:
    """Run a program and return its output as lines."""
    done = subprocess.run(
        [program, *arguments],
        cwd=directory,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout.splitlines()


def sign_in(server: str) -> dict[str, str]:
    pair = httpx.post(f"{server}/auth/login", json={"email": EMAIL, "password": PASSWORD}).json()
    return {"Authorization": f"Bearer {pair['access_token']}"}


def test_typescript_clients_compile_strictly_and_work(server: str, directory: Path) -> None:
    run(directory, NPM / "openapi-typescript", "openapi.json", "--output", "schema.d.ts")
    run(directory, NPM / "openapi-ts", "-i", "openapi.json", "-o", "hey_api", "-c", "@hey-api/client-fetch")
    run(directory, NPM / "tsc", "--project", ".", "--outDir", "out")

    first = run(directory, "node", "out/openapi_fetch.js", server, EMAIL, PASSWORD)
    second = run(directory, "node", "out/hey_api.js", server, EMAIL, PASSWORD)

    assert first == [
        "The address or the password is wrong.",
        "1 true 12-09",
        "body.date_of_birth: malformed",
        "1 0 0",
    ]
    assert second == ["validation_error too_short", "1 0"]


def test_a_python_client_passes_mypy_and_works(server: str, directory: Path) -> None:
    said = run(
        directory, GENERATOR, "generate", "--path=openapi.json", "--output-path=contacts_client", "--meta=none",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )  # fmt: skip
    assert not [line for line in said if "WARNING" in line.upper()]
    # Do not report errors within the generated modules.
    strict = ["--strict", "--follow-imports=silent", "--config-file=", "import_file.py"]
    run(directory, sys.executable, "-m", "mypy", *strict, MYPYPATH=str(directory))

    printed = run(directory, sys.executable, "import_file.py", server, EMAIL, PASSWORD)

    assert printed[0] == "1 0"
    assert printed[1].startswith("validation_error [(['body', 'first_name']")


def test_the_examples_work_unchanged_in_postman(server: str, directory: Path) -> None:
    options = "folderStrategy=Tags,parametersResolution=Example"
    run(directory, NPM / "openapi2postmanv2", "-s", "openapi.json", "-o", "collection.json", "-O", options)
    collection = json.loads((directory / "collection.json").read_text())
    headers = sign_in(server)
    contact = {"first_name": "Grace", "last_name": None, "email": None, "phone_number": None, "date_of_birth": None}
    url = f"{server}/contacts/{AN_ID}"
    httpx.put(url, json=contact, headers={**headers, "If-None-Match": "*"}).raise_for_status()
    (directory / "contacts.csv").write_bytes(A_FILE)
    for folder in collection["item"]:
        folder["item"] = [item for item in folder["item"] if item["name"] not in ENDING]
        for item in folder["item"]:
            prepare(item["request"])
    token = {"key": "token", "value": headers["Authorization"].removeprefix("Bearer ")}
    collection["auth"] = {"type": "bearer", "bearer": [token]}
    (directory / "collection.json").write_text(json.dumps(collection))

    run(directory, NPM / "newman", "run", "collection.json", "-r", "json", "--reporter-json-export", "report.json",
        "--working-dir", str(directory))  # fmt: skip

    statuses = statuses_in(json.loads((directory / "report.json").read_text()))
    assert len(statuses) > 25
    refused = {name: status for name, status in statuses.items() if status >= 300}
    assert refused.items() <= REFUSED.items(), refused


def prepare(request: dict[str, Any]) -> None:
    """Prepare a request as a person does in Postman: disable optional parameters and choose a file."""
    request.pop("auth", None)
    for parameter in (*request["url"]["query"], *request["header"]):
        described = parameter.get("description", {}).get("content", "(Required)")
        parameter["disabled"] = not described.startswith("(Required)")
    for field in request.get("body", {}).get("formdata", ()):
        if field["key"] == "file":
            field |= {"type": "file", "src": "contacts.csv"}


def statuses_in(report: dict[str, Any]) -> dict[str, int]:
    return {each["item"]["name"]: each["response"]["code"] for each in report["run"]["executions"]}


@contextmanager
def running_proxy(directory: Path, server: str) -> Iterator[str]:
    """Run Prism, a proxy that validates every request and answer against the document."""
    port = free_port()
    command = [str(NPM / "prism"), "proxy", "openapi.json", server, "--port", str(port), "--errors"]
    with (directory / "prism.log").open("wb") as log:
        proxy = subprocess.Popen(command, cwd=directory, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        wait_until(lambda: b"Prism is listening" in (directory / "prism.log").read_bytes(), "Prism starts", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(20)


def test_a_validating_proxy_finds_no_violation(server: str, directory: Path) -> None:
    with running_proxy(directory, server) as url, httpx.Client(base_url=url, timeout=30) as http:
        contact = {"first_name": "Grace", "last_name": "Hopper", "email": None, "phone_number": None}
        answers = [http.post("/auth/login", json={"email": EMAIL, "password": PASSWORD})]
        http.headers.update(sign_in(server))
        answers.append(http.post("/contacts", json={**contact, "date_of_birth": "1906-12-09", "labels": ["Navy"]}))
        path = f"/contacts/{answers[-1].json()['id']}"
        answers += [
            http.get(path),
            http.get("/contacts", params={"q": "grace", "limit": 1, "with_total": True, "sort": "-created_at"}),
            http.patch(path, json={"birthday": None}, headers={"If-Match": '"1"'}),
            http.put(path, json={**contact, "date_of_birth": None}),
            http.get("/contacts/birthdays", params={"days": 30}),
            http.get("/contacts/labels"),
            http.post("/contacts/batch", json={"items": [{**contact, "date_of_birth": None}]}),
            http.post("/contacts/batch/delete", json={"ids": [AN_ID]}),
            http.get("/contacts/export.csv"),
            http.get("/contacts/export.vcf"),
            http.post("/contacts/birthdays/feed"),
            http.get("/auth/sessions"),
            http.get("/users/me"),
            http.get(f"/contacts/{AN_ID}"),
            http.get("/health/ready"),
            http.delete(path),
        ]

    assert [answer.status_code for answer in answers] == [
        200, 201, 200, 200, 200, 200, 200, 200, 201, 200, 200, 200, 201, 200, 200, 404, 200, 204,
    ]  # fmt: skip
    assert [answer.headers["sl-violations"] for answer in answers if "sl-violations" in answer.headers] == []


def test_linters_report_nothing(directory: Path) -> None:
    (directory / "ruleset.yaml").write_text('extends: ["spectral:oas"]\n')
    run(directory, NPM / "redocly", "lint", "--extends=recommended-strict", "openapi.json")
    found = run(directory, NPM / "spectral", "lint", "--ruleset=ruleset.yaml", "--fail-severity=hint", "openapi.json")

    assert "No results with a severity of 'hint' or higher found!" in found
