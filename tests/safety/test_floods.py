"""Floods: the fullest bodies and queries that the limits allow, both invalid ones and expensive ones.

Each gets a documented answer. None blocks the event loop, because that would delay all other requests.
"""

import asyncio
import gc
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from copy import deepcopy
from typing import Any
from urllib.parse import quote_from_bytes
from uuid import uuid4

import httpx
import psycopg2
import pytest

from tests.client import A_PASSWORD, Client
from tests.faults.reference import slowness
from tests.safety.document import BOUNDARY, FILE, FORM, Operation, operations
from tests.safety.test_hostile_input import WITH_BODY, check_answer, every

LONGEST_HOLD = 0.1
KIB, MIB = 1024, 1024 * 1024
CHUNK = 64 * KIB
# The limit on files is a setting. This size is enough to see whether a file is read in pieces or all at once.
FILE_BYTES = 8 * MIB
QUERY_BYTES = 60 * KIB

Fill = Callable[[int], bytes]
"""Returns a flood of at most this many bytes."""


class Watch:
    """Measures the longest time that the event loop was blocked.

    It counts the CPU time of this process. Time that other processes take does not count; time that another thread
    spends while it holds the interpreter does.
    """

    longest = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        self.longest = 0.0
        beating = asyncio.create_task(self._beat())
        await asyncio.sleep(0.002)
        try:
            yield
            await asyncio.sleep(0.002)
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            self.longest = max(self.longest, now - last)
            last = now


class Flooder:
    """Sends floods to one operation and checks each answer and its cost."""

    def __init__(self, client: Client, operation: Operation) -> None:
        self.client, self.operation = client, operation
        self._watch = Watch()
        self.failures: list[str] = []

    async def send(self, what: str, content: bytes = b"", media_type: str = "", query: str = "") -> httpx.Response:
        limit = LONGEST_HOLD
        for _ in range(5):
            response = await self._send(content, media_type, query)
            # On a busy machine the database may time out on the most expensive floods, which gives a 503.
            if self._watch.longest <= limit and response.status_code != 503:
                break
            # Retry: the delay may have had another cause, or the machine may be slow.
            limit = LONGEST_HOLD * slowness(time.process_time)
        check_answer(self.operation, response, what)
        held = self._watch.longest
        if held > limit:
            self.failures.append(f"{what}: the loop was held for {held * 1000:.0f} ms, of {limit * 1000:.0f}")
        return response

    async def _send(self, content: bytes, media_type: str, query: str) -> httpx.Response:
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))} if media_type else {}
        url = self.operation.url() + query
        body = pieces(content) if media_type else None
        # Build the request before measuring: that is the client's work.
        request = self.client.build_request(self.operation.method, url, content=body, headers=headers)
        async with self._watch.watching():
            return await self.client.send(request)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield the body in pieces of the size that the server reads."""
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]
        await asyncio.sleep(0)


@pytest.fixture(scope="module", autouse=True)
def no_garbage_of_others() -> None:
    """Freeze the objects that the tests have imported, as the application does with its own."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def flooder(ada: Client, operation: Operation) -> Flooder:
    return Flooder(ada, operation)


def limit_of(operation: Operation) -> int:
    return (2 * MIB if "/batch" in operation.path else 64 * KIB) - KIB


def repeated(piece: bytes, size: int, start: bytes = b"", between: bytes = b"", end: bytes = b"") -> bytes:
    """Return the piece as often as it fits. %d in it is the number of the repetition."""
    count = (size - len(start + end)) // (len(piece + between) + 4 * piece.count(b"%d"))
    if b"%d" in piece:
        return start + between.join(piece % n for n in range(count)) + end
    return start + (piece + between) * (count - 1) + piece + end


def text_of(piece: bytes | str) -> Fill:
    encoded = piece if isinstance(piece, bytes) else piece.encode()
    return lambda size: repeated(encoded, size)


def in_quotes(fill: Fill) -> Fill:
    return lambda size: b'"' + fill(size - 2) + b'"'


def in_percents(fill: Fill) -> Fill:
    return lambda size: quote_from_bytes(fill(size // 3)).encode()


TEXT_FLOODS: dict[str, Fill] = {
    "letters": text_of("a"),
    "blanks": text_of(" "),
    "ligatures": text_of("\ufdfa"),
    "marks in the wrong order": text_of("\u0301\u0327"),
    "invisible": text_of("\u200b"),
    "at signs": text_of("@"),
    "domains": lambda size: b"a@" + repeated(b"a.", size),
    "digits": text_of("9"),
    "phone number": text_of("1x"),
    "dashes": text_of("-"),
    "percent": text_of("%"),
}
JSON_FLOODS: dict[str, Fill] = {
    **{name: in_quotes(fill) for name, fill in TEXT_FLOODS.items()},
    "escapes": lambda size: repeated(b"\\u1f82", size, b'"', b"", b'"'),
    "NULs": lambda size: repeated(b"\\u0000", size, b'"', b"", b'"'),
    "surrogates": lambda size: repeated(b"\\ud800", size, b'"', b"", b'"'),
    "a long number": lambda size: b"9" * size,
    "a long fraction": lambda size: b"0." + b"9" * (size - 2),
    "keys": lambda size: repeated(b'"%d":1', size, b"{", b",", b"}"),
    "one key": lambda size: repeated(b'"a":1', size, b"{", b",", b"}"),
    "numbers": lambda size: repeated(b"1", size, b"[", b",", b"]"),
    "texts": lambda size: repeated(b'""', size, b"[", b",", b"]"),
    "nulls": lambda size: repeated(b"null", size, b"[", b",", b"]"),
    "empty lists": lambda size: repeated(b"[]", size, b"[", b",", b"]"),
    "empty objects": lambda size: repeated(b"{}", size, b"[", b",", b"]"),
    "objects of keys": lambda size: repeated(repeated(b'"%d":1', 4 * KIB, b"{", b",", b"}"), size, b"[", b",", b"]"),
    "depth of lists": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "depth of objects": lambda size: b'{"":' * (size // 5) + b"1" + b"}" * (size // 5),
}
FORM_FLOODS: dict[str, Fill] = {
    "fields": lambda size: repeated(b"a%d=", size, between=b"&"),
    "one field": lambda size: repeated(b"a=", size, between=b"&"),
    "ampersands": text_of("&"),
    "equals signs": text_of("="),
    "escapes": text_of(b"%41"),
    "escapes that are none": text_of(b"%zz"),
    "plus signs": text_of("+"),
}
QUERY_FLOODS = {name: in_percents(fill) for name, fill in TEXT_FLOODS.items()}

_PART = b'--%s\r\nContent-Disposition: form-data; name="%s"' % (BOUNDARY.encode(), b"%s")
_FILE = _PART % b"file" + b'; filename="a"'
_CARD = b"BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ada\r\n%sEND:VCARD\r\n"


def as_part(content: bytes) -> bytes:
    return b"%s\r\n\r\n%s\r\n--%s--\r\n" % (_FILE, content, BOUNDARY.encode())


def in_a_card(piece: bytes, start: bytes = b"") -> bytes:
    return as_part(_CARD % repeated(piece, FILE_BYTES, start, end=b"\r\n"))


MULTIPART_FLOODS: dict[str, Callable[[], bytes]] = {
    "parts": lambda: repeated(_PART % b"a%d" + b"\r\n\r\n\r\n", FILE_BYTES),
    "parts of one name": lambda: repeated(_PART % b"a" + b"\r\n\r\n\r\n", FILE_BYTES),
    "files": lambda: repeated(_FILE + b"\r\n\r\n\r\n", FILE_BYTES),
    "headers in a part": lambda: repeated(b"a%d: b\r\n", FILE_BYTES, _FILE + b"\r\n", end=b"\r\n\r\n"),
    "one header": lambda: repeated(b"a", FILE_BYTES, _FILE + b"\r\na: ", end=b"\r\n\r\n"),
    "options of a header": lambda: as_part(b"").replace(b"file", b"file" + b"; a=b" * 800),
    "name of a file": lambda: repeated(b"\xff", FILE_BYTES, _FILE[:-1], end=b'"\r\n\r\n'),
    "before the first part": lambda: repeated(b"\r\n-", FILE_BYTES),
    "almost boundaries": lambda: as_part(repeated(b"\r\n--" + BOUNDARY.encode()[:-1], FILE_BYTES)),
    "line ends": lambda: as_part(b"\r" * FILE_BYTES),
    "NULs": lambda: as_part(bytes(FILE_BYTES)),
    "one cell": lambda: as_part(b"a" * FILE_BYTES),
    "one quoted cell": lambda: as_part(b'"' + b"a" * FILE_BYTES),
    "quotes": lambda: as_part(b'"' * FILE_BYTES),
    "columns": lambda: as_part(repeated(b"a%d", FILE_BYTES, between=b",")),
    "columns of one name": lambda: as_part(repeated(b"first_name", FILE_BYTES, between=b",")),
    "cells": lambda: as_part(b"first_name,last_name\n" + b"," * FILE_BYTES),
    "empty lines": lambda: as_part(b"first_name,last_name" + b"\n" * FILE_BYTES),
    "marks in the wrong order": lambda: as_part(repeated("\u0301\u0327".encode(), FILE_BYTES, b"first_name\n")),
    "cards that do not end": lambda: as_part(repeated(b"BEGIN:VCARD\r\n", FILE_BYTES)),
    "properties": lambda: in_a_card(b"X:\r\n"),
    "addresses": lambda: in_a_card(b"EMAIL:a\r\n"),
    "one folded line": lambda: in_a_card(b"\r\n a", b"NOTE:"),
    "one line": lambda: in_a_card(b"a", b"NOTE:"),
    "parts of a name": lambda: in_a_card(b";", b"N:"),
    "parameters": lambda: in_a_card(b";A=B", b"NOTE"),
    "quoted-printable": lambda: in_a_card(b"=\r\n", b"NOTE;ENCODING=QUOTED-PRINTABLE:"),
}


def places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the places in a body: the value itself, every value within, and an unknown member of each object."""
    yield place
    if isinstance(value, dict):
        yield (*place, "unknown")
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*place, key))


def with_value(body: Any, place: tuple[str | int, ...], text: bytes) -> bytes:
    """Return the body as JSON, with the text as the value at this place."""
    root = [deepcopy(body)]
    *above, last = (0, *place)
    target: Any = root
    for key in above:
        target = target[key]
    target[last] = "the value"
    return json.dumps(root)[1:-1].encode().replace(b'"the value"', text)


WITH_JSON = [operation for operation in WITH_BODY if operation.media_types[0] not in (FILE, FORM)]
WITH_FORM = [operation for operation in WITH_BODY if operation.media_types[0] == FORM]
WITH_FILE = [operation for operation in WITH_BODY if operation.media_types[0] == FILE]
OF_MANY = [operation for operation in WITH_JSON if isinstance(operation.example.get("items"), list)]


@every(WITH_JSON)
async def test_a_flood_at_any_place_in_a_body_is_refused_in_time(flooder: Flooder, operation: Operation) -> None:
    for flood, fill in JSON_FLOODS.items():
        for place in places(operation.example):
            rest = len(with_value(operation.example, place, b""))
            body = with_value(operation.example, place, fill(limit_of(operation) - rest))
            response = await flooder.send(f"{flood} at {place}", body, operation.media_types[0])

            # The answer does not tell whether a text is the address of an account.
            taken = operation.name == "forgot_password" and response.status_code == 202
            assert taken or 400 <= response.status_code < 500, f"{flood} at {place}"
    assert not flooder.failures, "\n".join(flooder.failures)


@every(WITH_FORM)
async def test_a_flood_in_a_form_does_not_block_the_loop(flooder: Flooder, operation: Operation) -> None:
    for flood, fill in (FORM_FLOODS | TEXT_FLOODS).items():
        await flooder.send(flood, fill(limit_of(operation)), FORM)
        for name in operation.fields:
            others = {key: value for key, value in operation.example.items() if key != name}
            start = str(httpx.QueryParams({**others, name: ""})).encode()
            await flooder.send(f"{flood} in {name}", start + fill(limit_of(operation) - len(start)), FORM)
    assert not flooder.failures, "\n".join(flooder.failures)


@every(WITH_FILE)
async def test_a_flood_in_a_file_or_around_it_does_not_block_the_loop(flooder: Flooder) -> None:
    for flood, fill in MULTIPART_FLOODS.items():
        await flooder.send(flood, fill(), f"{FILE}; boundary={BOUNDARY}")
    assert not flooder.failures, "\n".join(flooder.failures)


@every(operations())
async def test_a_flood_in_the_query_does_not_block_the_loop(flooder: Flooder, operation: Operation) -> None:
    floods = {"parameters": repeated(b"a%d=1", QUERY_BYTES, between=b"&"), "one": repeated(b"a=", QUERY_BYTES)}
    for name in operation.named("query"):
        floods |= {
            f"{flood} in {name}": b"%s=%s" % (name.encode(), fill(QUERY_BYTES)) for flood, fill in QUERY_FLOODS.items()
        }
    for flood, query in floods.items():
        await flooder.send(flood, query=f"?{query.decode()}")
    assert not flooder.failures, "\n".join(flooder.failures)


# Characters that are expensive to compare without case and accents, to validate and to encode.
RARE = {
    "U+1F82, which becomes four": "\u1f82",
    "U+0390, whose capital is three": "\u0390",
    "a Hangul syllable": "\ubdc1",
    "an Arabic ligature of eighteen": "\ufdfa",
    "a letter beyond the BMP": "\U0001d15e",
    "marks in the wrong order": "\u0301\u0327",
}
ADDRESSES = {
    "a plain address": "grace%d@example.com",
    "an internationalised address": "пошта%d@приклад%d.укр",
    "a long internationalised address": "пошта%d@" + "бджілка-і-ведмідь%d." * 4 + "укр",
    "an Arabic address": "بريد%d@" + "عنوان-طويل-جدا%d." * 5 + "com",
    "a decomposed address": "e\u0301%d@" + "e\u0301u\u0308o\u0302%d." * 8 + "com",
}
DEAR = [(rare, "a plain address") for rare in RARE] + [("U+1F82, which becomes four", each) for each in ADDRESSES]


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@every(OF_MANY)
async def test_500_expensive_items_do_not_block_the_loop(flooder: Flooder, operation: Operation) -> None:
    """The items are valid, and as expensive as valid items can be."""
    for rare, address in dict.fromkeys(DEAR):
        letters, items = RARE[rare], []
        for n in range(500):
            name = (f"{n}" + letters * 100)[:100]
            item = {**operation.example["items"][0], "first_name": name, "last_name": name, "additional_info": ""}
            item["email"] = ADDRESSES[address].replace("%d", str(n))
            if "id" in item:
                item["id"] = str(uuid4())
            # Fill the rest of the body's limit, up to the limit of a note.
            room = limit_of(operation) // 500 - len(as_json(item)) - 1
            item["additional_info"] = (letters * (room // len(letters.encode())))[:2000]
            items.append(item)
        response = await flooder.send(f"{rare}, {address}", as_json({"items": items}), "application/json")

        assert response.status_code in (201, 200, 404), response.text
    assert not flooder.failures, "\n".join(flooder.failures)


def with_addresses(item: dict[str, Any], address: str, count: int, n: int) -> dict[str, Any]:
    """Return the item with this many e-mail addresses, each with its own domain."""
    values = [address.replace("%d", f"{n}x{k}") for k in range(count)]
    return {**item, "details": [{"kind": "email", "label": None, "value": value} for value in values]}


@pytest.mark.parametrize(
    "address", [*ADDRESSES.values(), "grace%d@xn--mnchen-3ya.example"], ids=[*ADDRESSES, "Punycode"]
)
async def test_internationalised_addresses_in_small_bodies_do_not_block_the_loop(ada: Client, address: str) -> None:
    create, batch = (each for each in operations() if each.name in ("create_contact", "create_contacts"))
    one = as_json(with_addresses(create.example, address, 100, 0))
    many = [{**create.example, "details": [], "email": address.replace("%d", str(n))} for n in range(230)]
    small = as_json({"items": many[: 56_000 // len(as_json(many[0]))]})

    single = await (creating := Flooder(ada, create)).send("100 details", one, "application/json")
    batched = await (batching := Flooder(ada, batch)).send("230 contacts", small, "application/json")

    # A contact may have only a few addresses that take milliseconds to validate.
    assert single.status_code == 201 or single.json()["errors"][0]["code"] == "too_many"
    assert batched.status_code == 201
    assert [*creating.failures, *batching.failures] == []


async def test_a_valid_batch_of_the_largest_size_is_created(ada: Client) -> None:
    batch = next(each for each in operations() if each.name == "create_contacts")
    item = {**batch.example["items"][0], "additional_info": None}
    items = [with_addresses(item, ADDRESSES["an internationalised address"], 40, n) for n in range(500)]
    body = as_json({"items": items})
    assert 1.6 * MIB < len(body) < 2 * MIB

    response = await (flooder := Flooder(ada, batch)).send("addresses", body, "application/json")

    assert (response.status_code, len(response.json()["items"])) == (201, 500)
    assert flooder.failures == []


def statuses_of(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def test_one_account_cannot_use_up_all_connections(
    ada: Client, grace: Client, client: Client, database_url: str
) -> None:
    contact = await ada.create_contact()
    await grace.create_contact()
    change = {"additional_info": "slow"}
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM contact WHERE id = %s FOR UPDATE", (contact["id"],))
        slow = [asyncio.create_task(ada.patch(f"/contacts/{contact['id']}", json=change)) for _ in range(40)]
        await asyncio.sleep(0.3)
        reads = await asyncio.gather(*(grace.get("/contacts?limit=1") for _ in range(40)))
        credentials = {"email": grace.email, "password": A_PASSWORD}
        sign_in = await asyncio.create_task(client.post("/auth/login", json=credentials))
        are_still_slow = not any(task.done() for task in slow)
        changes = await asyncio.gather(*slow)

    assert (statuses_of(reads), sign_in.status_code) == ({200: 40}, 200)
    assert are_still_slow
    assert statuses_of(changes) == {503: 40}
    assert all("Retry-After" in answer.headers for answer in changes)
    assert (await ada.get("/contacts?limit=1")).status_code == 200


async def test_large_bodies_without_a_token_do_not_keep_out_a_user(ada: Client, client: Client) -> None:
    batch = next(each for each in operations() if each.name == "create_contacts")
    many = as_json({"items": [{**batch.example["items"][0], "details": []}] * 500})
    one = {"items": [{**batch.example["items"][0], "details": []}]}

    async def send_without_token() -> int:
        answer = await client.post(batch.path, content=pieces(many), headers={"Content-Type": "application/json"})
        return answer.status_code

    strangers = [asyncio.create_task(send_without_token()) for _ in range(30)]
    users = [(await ada.post(batch.path, json=one)).status_code for _ in range(10)]

    assert set(await asyncio.gather(*strangers)) == {401}
    assert users == [201] * 10
