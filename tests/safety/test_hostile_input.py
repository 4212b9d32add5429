"""Hostile input in every place that the OpenAPI document lists gets a documented answer and reveals no secret."""

import json
import logging
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
import pytest
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import BaseModel
from sqlmodel import SQLModel

from tests.client import A_CONTACT, A_PASSWORD, Client
from tests.conftest import Execute
from tests.safety.document import BOUNDARY, FILE, FORM, Operation, as_file, document, operations
from tests.safety.test_ownership import objects, planted

# The test client logs its own requests: that is not the application's log.
OTHERS_LOGS = ("httpx", "httpcore", "hpack")
CANARY = "canary-c0ffee"
MAX_ERRORS = 100
MARK = "the value goes here"

TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" \t ",
    "NUL": b"a\x00b",
    "control": b"a\x01\x7fb",
    "newline": b"a\nb",
    "C1": "a\x85b".encode(),
    "lone surrogate": b"\xed\xa0\x80",
    "invalid UTF-8": b"a\xff\xfe",
    "overlong NUL": b"\xc0\x80",
    "right to left": "\u202ea\ufeff".encode(),
    "beyond the BMP": "🐎".encode() * 300,
    "marks": b"e" + "\u0301".encode() * 500,
    "huge": b"x" * 60_000,
    "-1": b"-1",
    "2^31": b"2147483648",
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "digits": b"9" * 5_000,
    "fraction": b"1.5",
    "exponent": b"1e400",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "null": b"null",
    "boolean": b"true",
    "year 0": b"0000-00-00",
    "year 1": b"0001-01-01",
    "year 9999": b"9999-12-31",
    "seconds": b"631152000",
    "other digits": "١٩٩٠-٠٣-٠٩".encode(),
    "address with a name": b"Bob <bob@example.com>",
    "address of a machine": b"ada@[127.0.0.1]",
    "file": b"../../../../etc/passwd",
    "SQL": b"' OR 1=1; --",
    "pattern": b"%_\\",
    "template": b"{0}{x}%s${7*7}",
    "base64": b"AAAAAAAAAAAAAAAAAAAAAA",
    "entity tags": b'"1", W/"x", *, "',
}
JSON_VALUES: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "zero": b"0",
    "-1": b"-1",
    "2^31": b"2147483648",
    "2^63": b"9223372036854775808",
    "-2^63": b"-9223372036854775809",
    "fraction": b"1.5",
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "digits": b"9" * 5_000,
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "escaped NUL": b'"a\\u0000b"',
    "escaped surrogate": b'"\\ud800"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "array": b"[]",
    "nulls": b"[null, null]",
    "object": b"{}",
    "operator": b'{"$ne": null}',
    "depth": b"[" * 30_000 + b"]" * 30_000,
    "depth of 100,000": b"[" * 100_000 + b"]" * 100_000,
    "depth of objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "no value": b"",
    "unfinished": b'"',
    "comment": b"/**/1",
}
BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "number": b"1",
    "digits": b"9" * 5_000,
    "text": b'"x"',
    "array": b"[]",
    "array of objects": b"[{}]",
    "object": b"{}",
    "unfinished": b"{",
    "two": b"{} {}",
    "empty key": b'{"": 1}',
    "key with NUL": b'{"\\u0000": 1}',
    "key with surrogate": b'{"\\ud800": 1}',
    "huge key": b'{"' + b"x" * 60_000 + b'": 1}',
    "many keys": b"{" + b",".join(b'"%d":1' % n for n in range(6_000)) + b"}",
    "depth": b"[" * 60_000,
    "depth of 100,000": b"[" * 100_000,
    "invalid UTF-8": b'{"\xff": "\xff"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "form": b"a=b&a=c&=&&%00=%FF&;",
    "many fields": b"&".join(b"a%d=" % n for n in range(6_000)),
    "multipart": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
}
MEDIA_TYPES = [
    b"",
    b"text/plain",
    b"application/xml",
    b"application/json; charset=utf-16",
    b"application/json;;=",
    b"application/x-www-form-urlencoded; charset=nonsense",
    b"multipart/form-data",
    b"multipart/form-data; boundary=x",
    b"/",
    b"\xff",
    b"x" * 9_000,
]
# Names that Python, Pydantic and SQLModel use. {"cls": 1} once passed an argument twice and caused a 500.
MEMBERS = sorted(
    {"cls", "self", "__pydantic_self__", "__class__", "data", "args", "kwargs", "obj", "value", "values", "context"}
    | {*dir(object), *dir(BaseModel), *dir(SQLModel)}
)
# HTTP forbids control characters in headers: the server refuses them before the application runs.
HEADERS = [text for text in TEXTS.values() if not any(byte < 32 or byte == 127 for byte in text)]

_number = count()


def check_answer(operation: Operation, response: httpx.Response, sent: str) -> None:
    """Check what holds for every answer."""
    assert response.status_code < 500, f"{response.text}, to {sent}"
    assert response.status_code in operation.statuses, f"{response.text}, to {sent}"
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code
        assert len(response.json().get("errors", ())) <= MAX_ERRORS


class Caller:
    """A user who is always signed in and owns the objects that the operation names."""

    def __init__(self, client: Client, operation: Operation) -> None:
        self.client, self.operation = client, operation
        self._ids: list[str] = []
        self.statuses: set[int] = set()

    async def url(self) -> str:
        if not self._ids or self.operation.method == "DELETE":
            self._ids = await self.operation.make_ids(self.client)
        return self.operation.url(*self._ids)

    async def send(self, **options: Any) -> httpx.Response:
        """Send the request and check the answer."""
        url = options.pop("url", None) or await self.url()
        response = await self.client.request(self.operation.method, url, **options)
        self.statuses.add(response.status_code)
        check_answer(self.operation, response, f"{self.operation.method} {url} {options}"[:300])
        is_over = response.status_code == 204 or (response.status_code == 401 and self.operation.is_secured)
        if is_over and b"Authorization" not in dict(options.get("headers", ())):
            self._ids = []
            await self.client.sign_up(f"caller{next(_number)}@example.com")
        return response

    async def send_field(self, name: str, value: bytes) -> httpx.Response:
        """Send a valid body, except that this field has these bytes as its value."""
        (media_type, *_) = self.operation.media_types
        others = {key: field for key, field in self.operation.example.items() if key != name}
        if media_type == FILE:
            body, media_type = as_file(value), f"{FILE}; boundary={BOUNDARY}"
        elif media_type == FORM:
            body = str(httpx.QueryParams({**others, name: ""})).encode() + value
        else:
            members = [
                b"%s: %s" % (json.dumps(key).encode(), json.dumps(field).encode()) for key, field in others.items()
            ]
            body = b"{" + b", ".join([*members, b'"%s": %s' % (name.encode(), value)]) + b"}"
        return await self.send(content=body, headers={"Content-Type": media_type})


@pytest.fixture
async def caller(ada: Client, operation: Operation) -> Caller:
    return Caller(ada, operation)


def every(operation_list: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("operation", operation_list, ids=str)


def as_form(text: bytes) -> bytes:
    return quote_from_bytes(text, safe="").encode()


def as_json(text: bytes) -> bytes:
    """Return a JSON string of exactly these bytes, valid UTF-8 or not. Only mandatory escapes are applied."""
    escapes = {b: b"\\u%04x" % b for b in [*range(32), 34, 92]}
    return b'"' + b"".join(escapes.get(byte, bytes([byte])) for byte in text) + b'"'


WITH_BODY = [operation for operation in operations() if operation.media_types]
WITH_QUERY = [operation for operation in operations() if operation.named("query")]
WITH_PATH = [operation for operation in operations() if operation.named("path")]


@every(WITH_BODY)
async def test_any_value_in_any_field_has_a_documented_answer(caller: Caller, operation: Operation) -> None:
    is_form = operation.media_types[0] == FORM
    texts = [as_form(text) if is_form else as_json(text) for text in TEXTS.values()]
    raw = [b"%", b"%zz", b"\xff", b"%ud800", b"a&&=;"] if is_form else list(JSON_VALUES.values())

    for name in operation.fields:
        again = b"&%s=x" % name.encode() if is_form else b', "%s": "x"' % name.encode()
        for value in [*texts, *raw, (b"" if is_form else b'"x"') + again]:
            await caller.send_field(name, value)

    assert 422 in caller.statuses or 401 in caller.statuses


NESTED = [each for each in WITH_BODY if any(place for place in objects(each.example, ()))]


@every(NESTED)
async def test_any_value_in_a_nested_field_has_a_documented_answer(caller: Caller, operation: Operation) -> None:
    values = [*map(as_json, TEXTS.values()), *JSON_VALUES.values()]
    # In a list of objects, test only the first.
    places = [
        place for place in objects(operation.example, ()) if place and set(map(str, place)).isdisjoint("123456789")
    ]

    for place in places:
        (marked,) = (body for body in planted(operation.example, "", MARK) if is_at(body, place))
        target = json.loads(json.dumps(marked))
        for key in place:
            target = target[key]
        for name in [name for name in target if name]:
            body = json.dumps(marked).replace(f'"": "{MARK}"', f'"{name}": "{MARK}"').encode()
            for value in values:
                await caller.send(
                    content=body.replace(b'"%s"' % MARK.encode(), value), headers={"Content-Type": "application/json"}
                )

    assert 422 in caller.statuses


def is_at(body: Any, place: tuple[str | int, ...]) -> bool:
    """Return True if the object at this place has the mark."""
    for key in place:
        body = body[key]
    return bool(body.get("") == MARK)


@every(WITH_BODY)
async def test_any_body_of_any_media_type_has_a_documented_answer(caller: Caller, operation: Operation) -> None:
    for body in BODIES.values():
        for media_type in operation.media_types:
            await caller.send(content=body, headers={"Content-Type": media_type})
        await caller.send(content=body)
    for header in MEDIA_TYPES:
        await caller.send(content=b"{}", headers=[(b"Content-Type", header)])

    # The limit of these operations is higher than the largest body here.
    takes_more = operation.name in ("create_contacts", "update_contacts", "import_contacts")
    assert caller.statuses >= ({415, 422} if takes_more else {413, 415, 422})


@every(WITH_BODY)
async def test_any_member_name_has_a_documented_answer(caller: Caller, operation: Operation) -> None:
    """Each name alone, beside the others, in each object within the body, and all names together."""
    (media_type, *_) = operation.media_types
    bodies = [{name: 1} for name in MEMBERS] + [dict.fromkeys(MEMBERS, 1)]
    bodies += [body for name in MEMBERS for body in planted(operation.example, name, 1)]
    bodies += planted(operation.example, "cls", dict.fromkeys(MEMBERS, 1))

    for body in bodies:
        if media_type == FILE:
            fields = {name: str(value) for name, value in body.items()}
            await caller.send(
                content=as_file(b"a\r\n", **fields), headers={"Content-Type": f"{FILE}; boundary={BOUNDARY}"}
            )
        elif media_type == FORM:
            await caller.send(data=body)
        else:
            await caller.send(json=body)

    assert 422 in caller.statuses


@every(operations())
async def test_any_query_parameter_name_has_a_documented_answer(caller: Caller) -> None:
    for query in [*MEMBERS, "&".join(MEMBERS)]:
        await caller.send(url=f"{await caller.url()}?{query}=1")


@every([operation for operation in operations() if not operation.media_types])
async def test_a_body_on_an_operation_without_one_has_a_documented_answer(caller: Caller) -> None:
    for body in BODIES["invalid UTF-8"], BODIES["depth of 100,000"], BODIES["object"]:
        await caller.send(content=body, headers={"Content-Type": "application/json"})


@every(WITH_QUERY)
async def test_any_value_of_a_query_parameter_has_a_documented_answer(caller: Caller, operation: Operation) -> None:
    raw = [b"%", b"%zz", b"%C0%80", b"%ED%A0%80", b"%ud800", b"+", b";", b"a&", b"a=b=c"]
    url = await caller.url()

    for name in operation.named("query"):
        for value in [*map(as_form, TEXTS.values()), *raw]:
            await caller.send(url=f"{url}?{name}={value.decode()}")
        await caller.send(url=f"{url}?{name}&{name}=x&{name}[]=y")

    assert 422 in caller.statuses


@every(operations())
async def test_an_undocumented_query_is_refused(caller: Caller) -> None:
    for query in "x=1", "=", "&", "%00=%00", "%FF", "x" * 60_000, "&".join(f"x{n}" for n in range(3_000)):
        response = await caller.send(url=f"{await caller.url()}?{query}")

        assert response.status_code in (401, 413, 422) or not query.strip("&")


@every(WITH_PATH)
async def test_any_value_in_the_path_has_a_documented_answer(caller: Caller, operation: Operation) -> None:
    own = await caller.url()
    identifier = next(part for part in reversed(own.split("/")) if len(part) == 36)
    values = [*map(as_form, TEXTS.values()), identifier.upper().encode(), identifier.replace("-", "").encode()]
    values += [b"{%s}" % identifier.encode(), identifier.encode() + b"%00", b"%zz", b"%", b"%2E%2E", b"a/b"]

    for value in filter(None, values):
        url = httpx.URL(own).copy_with(raw_path=own.replace(identifier, "{}").encode().replace(b"{}", value))
        response = await caller.client.request(operation.method, url, json=operation.example or None)

        assert response.status_code in operation.statuses, value
        assert response.status_code < 300 or response.headers["content-type"] == "application/problem+json"


@every(operations())
async def test_any_value_of_a_header_has_a_documented_answer(caller: Caller, operation: Operation) -> None:
    own = [(name, value) for name in operation.named("header") for value in HEADERS]
    general = ["User-Agent", "Accept", "X-Request-ID", "Cookie", "Range", "Origin"]
    anywhere = [(name, TEXTS[which]) for name in general for which in ("nothing", "invalid UTF-8", "huge")]
    tokens = [("Authorization", b"Bearer " + value) for value in HEADERS[::4]] if operation.is_secured else []
    body = {"json": operation.example} if operation.media_types and operation.media_types[0] != FORM else {}

    for name, value in own + anywhere + tokens:
        await caller.send(headers=[(name.encode(), value)], **body)


@pytest.mark.parametrize("cursor_of", ["list_contacts", "list_birthdays"])
async def test_a_cursor_with_any_change_is_refused(ada: Client, cursor_of: str) -> None:
    path, query = {"list_contacts": ("/contacts", "sort=name"), "list_birthdays": ("/contacts/birthdays", "days=365")}[
        cursor_of
    ]
    for _ in range(2):
        await ada.create_contact()
    cursor = (await ada.get(f"{path}?{query}&limit=1")).json()["next_cursor"]
    changed = [cursor[:n] + ("A" if cursor[n] != "A" else "B") + cursor[n + 1 :] for n in range(len(cursor))]

    for each in [*changed, cursor[:-1], cursor + "A", cursor + "=", cursor * 2, cursor[::-1]]:
        response = await ada.get(path, params={"cursor": each, "limit": 1, **dict([query.split("=")])})

        assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")


def shapes_of(secret: str) -> Iterator[Any]:
    yield from (secret, secret * 50, f"\x00{secret}", f"\ud800{secret}", [secret], {secret: secret}, {"x": [secret]})


def lines(caplog: pytest.LogCaptureFixture) -> str:
    # As printed, including a traceback.
    printed = logging.Formatter()
    return "\n".join(printed.format(r) for r in caplog.records if r.name.partition(".")[0] not in OTHERS_LOGS)


@every([operation for operation in operations() if operation.secrets])
async def test_no_secret_is_in_an_answer_or_in_the_log(
    caller: Caller, operation: Operation, caplog: pytest.LogCaptureFixture
) -> None:
    answers = []
    with caplog.at_level(logging.DEBUG):
        for name in operation.secrets:
            for value in shapes_of(CANARY):
                sent = f"{value}".encode(errors="surrogatepass")
                answers.append(
                    await caller.send_field(
                        name, as_form(sent) if operation.media_types[0] == FORM else json.dumps(value).encode()
                    )
                )
            unreadable = [b'"%s', b'"%s\xff"', b"%s", b'"%s", "unknown": 1']
            answers += [await caller.send_field(name, each % CANARY.encode()) for each in unreadable]

    assert not any(CANARY in f"{answer.headers}{answer.text}" for answer in answers)
    assert operation.path in lines(caplog)
    assert CANARY not in lines(caplog)


@every(operations())
async def test_no_token_and_no_query_is_in_an_answer_or_in_the_log(
    caller: Caller, operation: Operation, caplog: pytest.LogCaptureFixture
) -> None:
    own = await caller.url()
    with caplog.at_level(logging.DEBUG):
        answers = [
            await caller.client.request(operation.method, f"{own}{query}", headers={"Authorization": value})
            for value in (f"Bearer {CANARY}", f"Bearer {CANARY}.{CANARY}.{CANARY}", f"Basic {CANARY}", CANARY)
            for query in ("", f"?key={CANARY}", f"?cursor={CANARY}&q={CANARY}&%FF")
        ]

    assert not any(CANARY in f"{answer.headers}{answer.text}" for answer in answers)
    assert operation.path.partition("{")[0] in lines(caplog)
    assert CANARY not in lines(caplog)


NEW_EMAIL = "a.new.address@example.com"


async def test_an_internal_error_reveals_no_secret(
    ada: Client, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL's message about a violated constraint quotes the whole row, including the password hash."""
    weak = Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1).hash(A_PASSWORD)
    execute('UPDATE "user" SET hashed_password = %s', weak)
    for table in '"user"', "contact":
        execute(f"ALTER TABLE {table} ADD CONSTRAINT impossible CHECK (false) NOT VALID")
    try:
        with caplog.at_level(logging.DEBUG):
            answers = [
                await ada.patch("/users/me", json={"current_password": A_PASSWORD, "email": NEW_EMAIL}),
                await ada.post("/contacts", json={**A_CONTACT, "first_name": CANARY}),
            ]
    finally:
        for table in '"user"', "contact":
            execute(f"ALTER TABLE {table} DROP CONSTRAINT impossible")

    assert [answer.status_code for answer in answers] == [500, 500]
    for secret in CANARY, A_PASSWORD, weak, ada.email, NEW_EMAIL:
        assert secret not in lines(caplog)
        assert not any(secret in answer.text for answer in answers)
    assert all(answer.headers["x-request-id"] in lines(caplog) for answer in answers)
    assert lines(caplog).count("impossible") == 2


def test_the_document_lists_the_operations_tested_here() -> None:
    """Otherwise the tests above might run on nothing."""
    secrets = {(operation.name, name) for operation in WITH_BODY for name in operation.secrets}

    assert len(operations()) == sum(len(methods) for methods in document()["paths"].values())
    assert len(WITH_BODY) >= 9
    assert {"list_contacts", "list_birthdays"} <= {operation.name for operation in WITH_QUERY}
    assert secrets >= {("login", "password"), ("refresh", "refresh_token"), ("issue_token", "client_secret")}
    assert all(
        ("token" not in n and "password" not in n and "secret" not in n) or (o.name, n) in secrets
        for o in WITH_BODY
        for n in o.fields
    )
