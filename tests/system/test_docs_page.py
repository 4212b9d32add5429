"""The docs page in Chromium, with the server as a newcomer starts it.

`python tests/system/test_docs_page.py` takes the screenshot for the README.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Response, expect, sync_playwright

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests" / "features" / "exchange" / "samples"
AXE = ROOT / "tests" / "clients" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",  # CI runs as root, where Chromium has no sandbox
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EMAIL, PASSWORD = "ada@example.com", "correct horse battery staple"
START_SECONDS = 60
# A busy machine needs more time.
expect.set_options(timeout=30_000)


@contextmanager
def running_server(directory: Path, root_path: str = "", **settings: str) -> Iterator[str]:
    """Serve from an empty directory on a free port and yield the URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own = {"DATA_DIR": str(directory), "PYTHONPATH": str(ROOT), "ROOT_PATH": root_path, **settings}
    inherited = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "JWT_SECRET")}
    command = [sys.executable, "-m", "contacts_api", "serve", "--port", port]
    server = subprocess.Popen(command, cwd=directory, env=inherited | own)
    url = f"http://127.0.0.1:{port}{root_path}"
    try:
        wait_until(lambda: server.poll() is not None or is_up(url), START_SECONDS)
        assert server.poll() is None
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(START_SECONDS)


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def running_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class DocsPage:
    """The docs page and the actions of a person on it. It records requests and errors.

    Buttons are pressed with the keyboard: before a click, Playwright waits for two frames, and headless Chromium once
    drew none for half a minute after a reload.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 1180}, **options})
        self.requested: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self.requested.append(request.url))
        self.context.on("console", self._note)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page = self.open("/docs")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, path: str) -> Page:
        page = self.context.new_page()
        page.goto(self.url + path)
        return page

    def call(self, operation: str) -> Response:
        """Make a call with "Try it out" and the unchanged example, and return the answer."""
        block = self.page.locator(f"[id$=-{operation}]")
        if not block.locator(".opblock-body").count():
            block.locator(".opblock-summary-control").press("Enter")
        path = block.locator(".opblock-summary-path").get_attribute("data-path") or ""
        with self.page.expect_response(lambda response: urlsplit(response.url).path.endswith(path)) as answer:
            block.get_by_role("button", name="Execute").press("Enter")
        shown = block.locator(".live-responses-table tbody .response-col_status")
        expect(shown).to_contain_text(str(answer.value.status))
        return answer.value

    def sign_in(self, email: str = EMAIL, password: str = PASSWORD) -> None:
        dialog = self.open_dialog()
        dialog.get_by_label("e-mail address").fill(email)
        dialog.get_by_label("password").fill(password)
        dialog.get_by_label("password").press("Enter")
        expect(dialog).not_to_be_visible()

    def sign_out(self) -> Response:
        with self.page.expect_response(f"{self.url}/auth/logout") as answer:
            self.open_dialog().get_by_text("Logout").press("Enter")
        return answer.value

    def open_dialog(self) -> Locator:
        """Open the dialog and return its form for an address and a password."""
        self.page.locator("button.authorize").first.press("Enter")
        return self.page.locator(".auth-container").first

    def tokens(self) -> dict[str, str]:
        stored: dict[str, str] = json.loads(self.page.evaluate("localStorage['contacts-api.tokens'] ?? '{}'"))
        return stored

    def storage(self) -> str:
        """Return everything that the browser stores for the page: storage, cookies and databases."""
        kept = self.context.storage_state(indexed_db=True)
        return json.dumps([kept, self.page.evaluate("({...sessionStorage})")])

    def hosts(self) -> set[str | None]:
        return {urlsplit(url.removeprefix("blob:")).hostname for url in self.requested if not url.startswith("data:")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.fixture
def docs(browser: Browser, server: str) -> Iterator[DocsPage]:
    page = DocsPage(browser, server)
    yield page
    page.context.close()


def test_the_examples_work_unchanged_on_the_page(docs: DocsPage) -> None:
    assert docs.call("register").status == 201
    docs.sign_in()
    created = docs.call("create_contact")
    assert created.status == 201
    assert docs.call("list_contacts").json()["items"] == [created.json()]

    docs.page.reload()

    assert docs.call("get_me").json()["email"] == EMAIL
    assert (docs.hosts(), docs.errors) == ({"127.0.0.1"}, [])


def test_a_file_can_be_imported_and_downloads_have_names(docs: DocsPage) -> None:
    docs.sign_in(register(docs.url))
    block = docs.page.locator("[id$=-import_contacts]")
    block.locator(".opblock-summary-control").press("Enter")
    block.locator("input[type=file]").set_input_files(SAMPLES / "google.csv")

    imported = docs.call("import_contacts")
    exported = docs.call("export_csv")
    with docs.page.expect_download() as download:
        docs.page.locator("[id$=-export_csv]").get_by_text("Download file").click()

    assert (imported.status, imported.json()["created"]) == (200, 3)
    assert exported.headers["content-disposition"] == 'attachment; filename="contacts.csv"'
    assert download.value.suggested_filename == "contacts.csv"
    assert docs.errors == []


def test_reloads_and_other_tabs_stay_signed_in(docs: DocsPage) -> None:
    docs.sign_in(register(docs.url))
    docs.page.reload()
    assert docs.call("get_me").status == 200

    docs.page = docs.open("/docs")

    assert docs.call("get_me").status == 200


def test_the_browser_stores_the_tokens_and_no_password(docs: DocsPage) -> None:
    docs.sign_in(register(docs.url))
    docs.call("get_me")

    kept = docs.storage()

    assert docs.tokens()["access_token"] in kept
    assert PASSWORD not in kept


def test_the_dialog_asks_for_an_address_and_a_password_or_for_a_token(docs: DocsPage) -> None:
    dialog = docs.open_dialog()

    fields = docs.page.locator(".auth-container").locator("input, select")
    asked = [field.get_attribute("id") for field in fields.all() if field.is_visible()]

    assert asked == ["oauth_username", "oauth_password", "auth-bearer-value"]
    expect(dialog.get_by_label("e-mail address")).to_be_focused()


def test_a_token_or_a_key_can_be_pasted(docs: DocsPage, browser: Browser) -> None:
    email = register(docs.url)
    token = httpx.post(f"{docs.url}/auth/login", json={"email": email, "password": PASSWORD}).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    made = httpx.post(f"{docs.url}/auth/keys", json={"name": "x", "scope": "read"}, headers=headers).json()
    with_key = DocsPage(browser, docs.url)
    for page, text in (docs, token), (with_key, made["key"]):
        page.open_dialog()
        page.page.locator("#auth-bearer-value").fill(text)
        page.page.locator("#auth-bearer-value").press("Enter")
        expect(page.page.locator(".auth-container").first).not_to_be_visible()

    assert docs.call("get_me").json()["email"] == email
    assert with_key.call("list_contacts").json()["items"] == []
    assert with_key.call("create_contact").status == 403
    with_key.context.close()


def test_the_first_steps_of_a_newcomer_come_first(docs: DocsPage) -> None:
    expect(docs.page.locator(".opblock-summary-path").first).to_have_attribute("data-path", "/auth/register")
    chapters = docs.page.locator(".opblock-tag").evaluate_all("tags => tags.map(tag => tag.dataset.tag)")

    assert chapters[:3] == ["Start here", "Signing in", "Contacts"]
    for words in "No links", "Successful Response":
        expect(docs.page.get_by_text(words)).not_to_be_visible()


def test_the_call_is_shown_for_curl_and_for_python(docs: DocsPage) -> None:
    email = register(docs.url)
    docs.sign_in(email)
    docs.call("create_contact")
    block = docs.page.locator("[id$=-create_contact]")
    expect(block.locator(".request-snippets")).to_contain_text("curl -X 'POST'")

    block.get_by_text("Python (httpx)").click()
    snippet = block.locator(".request-snippets pre").inner_text()
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, timeout=60)

    assert done.stdout.startswith('201 {"id":'), snippet + done.stderr


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen_and_is_accessible(
    browser: Browser, server: str, color_scheme: str, width: int
) -> None:
    docs = DocsPage(browser, server, viewport={"width": width, "height": 900}, color_scheme=color_scheme)
    page = docs.page
    expect(page.locator("[id$=-register]")).to_be_visible()
    for operation in "create_contact", "list_contacts", "import_contacts":
        page.locator(f"[id$=-{operation}] .opblock-summary-control").press("Enter")
        expect(page.locator(f"[id$=-{operation}] .responses-table")).to_be_visible()

    widths = [page.evaluate("document.documentElement.scrollWidth")]
    problems = serious_problems(page)
    docs.open_dialog()
    problems += serious_problems(page)
    page.goto(f"{server}/docs/errors")
    widths.append(page.evaluate("document.documentElement.scrollWidth"))
    problems += serious_problems(page)
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    assert widths == [width, width]
    assert problems == []
    assert (background == "rgb(255, 255, 255)") == (color_scheme == "light")
    docs.context.close()


def serious_problems(page: Page) -> list[str]:
    """Return the serious and critical accessibility problems that axe-core finds."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [
        f"{problem['id']}: {node['html'][:120]}"
        for problem in found
        if problem["impact"] in ("serious", "critical")
        for node in problem["nodes"]
    ]


def test_logout_deletes_the_tokens_and_ends_the_session(docs: DocsPage) -> None:
    docs.sign_in(register(docs.url))
    tokens = docs.tokens()

    docs.sign_out()

    assert docs.tokens() == {}
    assert tokens["access_token"] not in docs.storage()
    wait_until(lambda: status_of(docs.url, tokens["access_token"]) == 401, seconds=2)
    assert refresh(docs.url, tokens["refresh_token"]) == 401
    docs.page.reload()
    assert docs.call("get_me").status == 401


def test_the_page_refreshes_an_expired_access_token(browser: Browser, tmp_path: Path) -> None:
    # Use a path prefix to check that the page finds the token endpoint under it.
    with running_server(tmp_path, root_path="/address-book", ACCESS_TOKEN_SECONDS="2") as url:
        ada, grace = DocsPage(browser, url), DocsPage(browser, url)
        ada.sign_in(register(url))
        grace.sign_in(register(url))
        # The leeway for clocks is half a minute.
        wait_until(lambda: status_of(url, grace.tokens()["access_token"]) == 401, seconds=60)

        answer = ada.call("get_me")
        logout = grace.sign_out()

        assert (answer.status, logout.status) == (200, 204)
        assert ada.requested[-2:] == [f"{url}/auth/token", f"{url}/users/me"]
        assert answer.request.headers["authorization"] == f"Bearer {ada.tokens()['access_token']}"
        assert (ada.hosts(), ada.errors, grace.errors) == ({"127.0.0.1"}, [], [])


def test_redoc_shows_the_document_without_external_resources(docs: DocsPage) -> None:
    page = docs.open("/redoc")

    expect(page.get_by_role("heading", name="Contacts API")).to_be_visible()
    expect(page.get_by_role("heading", name="Replace one of your contacts")).to_be_visible()
    expect(page.get_by_alt_text("redocly logo")).to_be_attached()
    assert (docs.hosts(), docs.errors) == ({"127.0.0.1"}, [])


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_mailed_links_verify_the_address_and_reset_the_password(
    browser: Browser, tmp_path: Path, color_scheme: Literal["light", "dark"]
) -> None:
    with running_server(tmp_path) as url:
        email = register(url)
        httpx.post(f"{url}/auth/forgot-password", json={"email": email}).raise_for_status()
        links = mailed_links(tmp_path / "outbox", 2)
        context = browser.new_context(viewport={"width": 390, "height": 700}, color_scheme=color_scheme)
        page = context.new_page()

        page.goto(links["verify"])
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert serious_problems(page) == []
        page.get_by_role("button").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("verified")
        page.goto(links["reset-password"])
        assert page.url == f"{url}/reset-password"
        page.get_by_label("New password").fill("password")
        page.get_by_role("button").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("commonest")
        page.get_by_label("New password").fill("another long phrase")
        page.get_by_role("button").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("The password is set")
        assert serious_problems(page) == []

        signed_in = httpx.post(f"{url}/auth/login", json={"email": email, "password": "another long phrase"})
        assert signed_in.status_code == 200
        context.close()


def mailed_links(outbox: Path, count: int) -> dict[str, str]:
    """Return the links in the mails, keyed by the page that they lead to."""
    wait_until(lambda: len(list(outbox.glob("*.eml"))) == count, 20)
    texts = [path.read_text() for path in outbox.glob("*.eml")]
    return {found[2]: found[0] for text in texts if (found := re.search(r"(http\S+)/([a-z-]+)#token=\S+", text))}


def register(url: str) -> str:
    """Create an account and return its address."""
    email = f"{uuid4().hex}@example.com"
    httpx.post(f"{url}/auth/register", json={"email": email, "password": PASSWORD}).raise_for_status()
    return email


def status_of(url: str, access_token: str) -> int:
    return httpx.get(f"{url}/users/me", headers={"Authorization": f"Bearer {access_token}"}).status_code


def refresh(url: str, refresh_token: str) -> int:
    return httpx.post(f"{url}/auth/refresh", json={"refresh_token": refresh_token}).status_code


def take_picture(path: Path) -> None:
    with TemporaryDirectory() as directory, running_server(Path(directory)) as url, running_browser() as browser:
        page = DocsPage(browser, url).page
        expect(page.locator("[id$=-register]")).to_be_visible()
        page.screenshot(path=path)


if __name__ == "__main__":
    take_picture(ROOT / "docs" / "docs-page.png")
