"""nginx in front of the API, with the configuration docs/nginx.conf."""

import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.client import A_PASSWORD
from tests.conftest import SECRET
from tests.servers import HOST, free_port, wait_until

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docs" / "nginx.conf"
# More requests than the limit allows in a burst and during the time that they take.
FLOOD = 60


def configure(directory: Path, changes: dict[str, str]) -> Path:
    """Write the configuration with a certificate, logs, names and `changes` for the test. Return its path."""
    key, certificate = directory / "key", directory / "certificate"
    subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{HOST}", "-days", "1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    text = CONFIGURATION.read_text()
    for name, here in {
        "/etc/ssl/CONTACTS.pem": str(certificate),
        "/etc/ssl/CONTACTS.key": str(key),
        "CONTACTS.EXAMPLE.COM": "localhost",
        "/var/log/nginx": str(directory),
        **changes,
    }.items():
        assert name in text
        text = text.replace(name, here)
    path = directory / "nginx.conf"
    path.write_text(f"pid {directory}/pid;\n{text}")
    return path


@contextmanager
def running(*command: str | Path, until: Callable[[], bool], **environment: str) -> Iterator[None]:
    """Run a server, ready for requests. It ends in any case, even if this process is killed."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", *command], cwd=ROOT, env={"PATH": os.environ["PATH"], **environment}
    )
    try:
        wait_until(lambda: process.poll() is not None or until(), f"{command[0]} starts", 60)
        assert process.poll() is None
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str, client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get(url).is_success
    return False


@dataclass
class Proxy:
    """nginx in front of the API."""

    url: str
    http_port: int
    api: str
    certificate: Path
    _hosts: Iterator[int]

    def client(self) -> httpx.Client:
        """Return a client with its own address, which no limit has counted yet."""
        trusted = ssl.create_default_context(cafile=self.certificate)
        transport = httpx.HTTPTransport(verify=trusted, local_address=f"127.0.1.{next(self._hosts)}")
        return httpx.Client(base_url=self.url, transport=transport)


@pytest.fixture(scope="module", params=["", "/api"])
def proxy(
    request: pytest.FixtureRequest, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """nginx in front of the API, which runs with this ROOT_PATH."""
    directory = tmp_path_factory.mktemp("nginx")
    api_port, http_port, port = free_port(), free_port(), free_port()
    configuration = configure(
        directory,
        {
            "server 127.0.0.1:8000;": f"server {HOST}:{api_port};",
            "listen 80;": f"listen {HOST}:{http_port};",
            "listen 443 ": f"listen {HOST}:{port} ",
        },
    )
    proxy = Proxy(
        f"https://{HOST}:{port}{request.param}",
        http_port,
        f"http://{HOST}:{api_port}{request.param}",
        directory / "certificate",
        count(1),
    )
    api = [sys.executable, "-m", "contacts_api", "serve", "--port", str(api_port)]
    nginx: list[str | Path] = ["nginx", "-c", configuration, "-p", directory, "-g", "daemon off;"]
    settings = {"DATABASE_URL": database_url, "JWT_SECRET": SECRET, "ROOT_PATH": request.param}
    with (
        httpx.Client() as plain,
        proxy.client() as client,
        running(*api, until=lambda: answers(f"{proxy.api}/health/ready", plain), **settings),
        running(*nginx, until=lambda: answers("/health/ready", client)),
    ):
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[httpx.Client]:
    with proxy.client() as client:
        yield client


@pytest.fixture
def ada(proxy: Proxy, client: httpx.Client) -> httpx.Client:
    account = {"email": "ada@example.com", "password": A_PASSWORD}
    # Bypass the proxy, because it would count these requests.
    httpx.post(f"{proxy.api}/auth/register", json=account).raise_for_status()
    tokens = httpx.post(f"{proxy.api}/auth/login", json=account).raise_for_status().json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    return client


def flood(client: httpx.Client, method: str, path: str) -> list[httpx.Response]:
    """Send requests that are refused before a password is hashed, until the answer is a 429. Return all answers."""
    found: list[httpx.Response] = []
    while len(found) < FLOOD and not (found and found[-1].status_code == 429):
        # Send the path unchanged: httpx would normalize it.
        found.append(client.request(method, "/", json={}, extensions={"target": path.encode()}))
    return found


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    checked = subprocess.run(
        ["nginx", "-t", "-c", configure(tmp_path, {}), "-p", tmp_path], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


def test_no_query_string_is_logged() -> None:
    (log_format,) = [part for part in CONFIGURATION.read_text().split(";") if "log_format" in part]

    assert not any(
        name in log_format for name in ("$request ", "$request_uri", "$args", "$query_string", "$http_referer")
    )


def test_the_calendar_url_points_to_the_proxy(proxy: Proxy, ada: httpx.Client) -> None:
    address = ada.post("/contacts/birthdays/feed").json()["url"]

    with proxy.client() as calendar:
        answer = calendar.get(address)

    assert address.startswith(f"{proxy.url}/contacts/birthdays.ics?key=")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/calendar; charset=utf-8")


def test_the_redirect_to_https_keeps_the_path_unchanged(proxy: Proxy) -> None:
    target = "/contacts%0D%0AX-Injected:%201?q=%20x"

    with httpx.Client() as plain:
        answer = plain.get(f"http://{HOST}:{proxy.http_port}", extensions={"target": target.encode()})

    assert (answer.status_code, answer.headers["location"]) == (301, f"https://{HOST}{target}")
    assert "x-injected" not in answer.headers


# Spellings that the API routes to an operation that hashes: %6C is an l, %2F a slash, and %0A a line end, which `$`
# ignores.
HASHING = [
    ("POST", "/auth/register"),
    ("POST", "/auth/login"),
    ("POST", "/auth/token"),
    ("PATCH", "/users/me"),
    ("POST", "/users/me/delete"),
    ("POST", "/auth/login?x=1"),
    ("POST", "/auth/%6Cogin"),
    ("POST", "/auth%2Flogin"),
    ("PATCH", "/users%2F%6De"),
    ("PATCH", "/users/me%0A"),
    ("POST", "/users/me/delete%0A"),
]


@pytest.mark.parametrize(("method", "path"), HASHING)
def test_only_requests_that_hash_passwords_are_limited(proxy: Proxy, ada: httpx.Client, method: str, path: str) -> None:
    # With a ROOT_PATH, the API answers both with and without the prefix.
    for prefix in {"", httpx.URL(proxy.url).path.rstrip("/")}:
        with proxy.client() as sender:
            sender.headers["Authorization"] = ada.headers["Authorization"]

            *passed, refused = flood(sender, method, prefix + path)
            others = [sender.get(path).status_code for path in ("/contacts", "/users/me", "/auth/sessions")]

        assert {answer.status_code for answer in passed} <= {415, 422}
        assert len(passed) > 20
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
        assert refused.json() == {
            "type": "about:blank",
            "title": "Too many requests",
            "status": 429,
            "detail": "Slow down.",
            "code": "too_many_requests",
        }
        assert others == [200, 200, 200]


@pytest.mark.parametrize("path", ["//auth/login", "/auth/./login", "/x/../auth/login", "/auth//login"])
def test_a_spelling_without_a_route_is_limited_too(client: httpx.Client, path: str) -> None:
    *passed, refused = flood(client, "POST", path)

    assert ({answer.status_code for answer in passed}, refused.status_code) == ({404}, 429)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/contacts"),
        ("GET", "/auth/sessions"),
        ("DELETE", "/auth/sessions/0"),
        ("GET", "/users/me"),
        ("POST", "/contacts"),
        ("PATCH", "/contacts/0"),
        ("POST", "/contacts/batch"),
    ],
)
def test_requests_that_hash_no_password_are_not_limited(client: httpx.Client, method: str, path: str) -> None:
    assert 429 not in {answer.status_code for answer in flood(client, method, path)}
