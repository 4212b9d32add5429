"""Hostile headers and paths, sent through ASGI because the HTTP server itself would refuse some of them."""

import httpx
import pytest

from tests.client import Client
from tests.safety.document import Operation, operations
from tests.safety.test_hostile_input import WITH_BODY, Caller, caller, every

__all__ = ["caller"]

DIGITS = b"9" * 5_000
LENGTHS = [
    DIGITS,
    b"-" + DIGITS,
    b"+5",
    b"1_0",
    b"-1",
    b"abc",
    b"",
    b" ",
    b"1e3",
    b"0x10",
    b"1, 1",
    "١٢".encode(),
    b"\xff",
]
HOSTS = [
    b"[",
    b"]",
    b"[::1",
    b"[x]:1",
    b"a b",
    b"a/b",
    b"a@b",
    b"a?b#c",
    b"x:",
    b"x:y",
    b"x:-1",
    b"x:99999999",
    b"x:" + DIGITS,
    b"x" * 60_000,
    b"\xff\xfe",
    "приклад".encode(),
    "x:١".encode(),
    "\uff0f\u2100".encode(),
    b"",
]
DATES = [
    b"",
    b"x",
    b"0",
    DIGITS,
    b"Mon, 99 Foo 99999 99:99:99 GMT",
    b"Thu, 01 Jan 0000 00:00:00 GMT",
    b"Fri, 31 Dec 9999 23:59:59 GMT",
    b"Fri, 31 Dec 9999 23:59:59 -2400",
    b"Fri, 31 Dec 9999 23:59:59 +" + DIGITS,
    b"Thu, 01 Jan 1 00:00:00 GMT",
    b"Thu, 01 Jan " + DIGITS + b" 00:00:00 GMT",
    b"\xff",
]
TAGS = [b"", b'"', b"*", b'W/"', b"x", b'"' + b"x" * 60_000, b'"x", ' * 9_000, b"\xff"]
RANGES = [
    b"",
    b"x",
    b"bytes",
    b"bytes=",
    b"bytes=-",
    b"bytes=0-",
    b"bytes=-0",
    b"bytes=-1",
    b"bytes=--1",
    b"bytes=5-2",
    b"bytes=x-y",
    b"bytes=1_0-",
    b"bytes=+1-2",
    b"bytes=99999999999-",
    b"bytes=0-" + DIGITS,
    b"bytes=" + DIGITS + b"-",
    b"bytes=-" + DIGITS,
    b"bytes=0-0,1-1",
    b"bytes=" + b"0-," * 9_000,
    b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(0, 9_000, 2)),
    "bytes=١-٢".encode(),
    b"\xff",
]
HEADERS: dict[str, list[bytes]] = {
    "Host": HOSTS,
    "Range": RANGES,
    "If-Range": DATES + TAGS,
    "If-Modified-Since": DATES,
    "If-Unmodified-Since": DATES,
    "If-None-Match": TAGS,
    "If-Match": TAGS,
    "Accept": [b"*/*;q=" + DIGITS, b"a/b;q=x", b"," * 9_000],
    "Accept-Encoding": [b"gzip;q=" + DIGITS, b"gzip;q=nan", b"gzip;q=-1", b"gzip, " * 9_000, b"\xff"],
    "Accept-Language": [b"\xff", b"x;q=" + DIGITS],
    "Cookie": [b"a=b; " * 9_000, b"=;=;", b"\xff=\xff"],
    "Origin": [b"null", b"http://[", b"http://x:99999999", b"\xff"],
    "Forwarded": [b"for=[", b'for="[::1', b"\xff"],
    "X-Forwarded-For": [b"[", b"x:" + DIGITS, b"1.2.3.4, " * 5_000, b"\xff"],
    "X-Forwarded-Proto": [b"x", b"\xff", b"http, " * 5_000],
    "X-Forwarded-Host": HOSTS,
    "X-Forwarded-Port": [b"x", DIGITS],
    "Expect": [b"100-continue", b"x"],
    "Upgrade": [b"websocket", b"h2c"],
    "Max-Forwards": [DIGITS],
    "Prefer": [b"wait=" + DIGITS],
}
OTHERS = [(name, value) for name, values in HEADERS.items() for value in values]
PAGES = ["/", "/docs", "/redoc", "/openapi.json", "/health/live"]
# One file of Swagger UI and one of this project.
ASSETS = ["swagger-ui.css", "docs.js"]


async def get(client: Client, path: str, *headers: tuple[str, bytes], method: str = "GET") -> httpx.Response:
    """Send a path unchanged."""
    url = httpx.URL("http://testserver").copy_with(raw_path=path.encode())
    return await client.request(method, url, headers=[(name.encode(), value) for name, value in headers])


@every(WITH_BODY)
async def test_an_invalid_content_length_is_refused(caller: Caller, operation: Operation) -> None:
    for media_type in operation.media_types:
        for length in LENGTHS:
            headers = [(b"Content-Type", media_type.encode()), (b"Content-Length", length)]
            response = await caller.send(content=b"{", headers=headers)

            assert response.status_code >= 400, length


@every([operation for operation in operations() if not operation.media_types])
async def test_any_content_length_where_no_body_belongs_has_a_documented_answer(caller: Caller) -> None:
    for length in LENGTHS:
        await caller.send(headers=[(b"Content-Length", length)])


# Without operations that end something, because each call would need a new object.
@every([operation for operation in operations() if 204 not in operation.statuses])
async def test_any_value_of_an_undocumented_header_has_a_documented_answer(
    caller: Caller, operation: Operation
) -> None:
    is_dear = operation.secrets or "application/json" not in operation.media_types
    body = {} if is_dear else {"json": operation.example}
    for name, value in OTHERS:
        await caller.send(headers=[(name.encode(), value)], **body)


@pytest.mark.parametrize("path", [*PAGES, *(f"/assets/{name}" for name in ASSETS)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_any_header_on_a_page_causes_no_server_error(client: Client, path: str, method: str) -> None:
    headers = [[each] for each in OTHERS]
    for name, values in ("If-Range", DATES + TAGS), ("If-Modified-Since", DATES), ("If-None-Match", TAGS):
        headers += [[("Range", b"bytes=0-0"), (name, value)] for value in values]
    answers = {str(each)[:80]: (await get(client, path, *each, method=method)).status_code for each in headers}

    assert (await get(client, path, method=method)).status_code in (200, 307)
    assert {each: status for each, status in answers.items() if status >= 500} == {}


ODD_NAMES = [
    "%00",
    "swagger-ui.css%00",
    "swagger-ui.css%00.js",
    "a%00/b",
    "%FF",
    "%ED%A0%80",
    "%C0%AE%C0%AE/%C0%AE%C0%AE/etc/passwd",
    "%E2%80%AE",
    "%0d%0aX-Odd:%20y",
    "%zz",
    "%",
    "",
    ".",
    "..",
    "../../../../../etc/passwd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%5c..%5cetc",
    "%2Fetc%2Fpasswd",
    "//etc/passwd",
    "~root",
    "%20",
    "swagger-ui.css/",
    "swagger-ui.css/x",
    "swagger-ui.css%20",
    "x" * 255,
    "x" * 256,
    "x" * 5_000,
    "x/" * 3_000,
    "%41" * 5_000,
    "%F0%9F%90%8E" * 100,
]


@pytest.mark.parametrize("folder", ["/assets/", "/docs/", "/docs/errors/", "/redoc/", "/", "/contacts/", "/health/"])
async def test_odd_names_in_a_path_cause_no_server_error(client: Client, folder: str) -> None:
    failures = {}

    for name in ODD_NAMES:
        for method in "GET", "HEAD", "POST":
            response = await get(client, folder + name, method=method)
            is_problem = response.headers.get("content-type") == "application/problem+json"
            if response.status_code >= 500 or (response.status_code >= 400 and not is_problem):
                failures[f"{method} {name[:40]}"] = response.status_code
            assert "root:" not in response.text

    assert not failures
