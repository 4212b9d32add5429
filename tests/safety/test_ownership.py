"""Users see and change only their own objects: for every operation that names an object or takes a body."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.client import Client
from tests.conftest import Execute
from tests.safety.document import BOUNDARY, FILE, Operation, as_file, operations

NAMING = [operation for operation in operations() if operation.named("path")]
WRITING = [operation for operation in operations() if operation.media_types]
FORBIDDEN = {
    "owner_id": str(uuid4()),
    "id": str(uuid4()),
    "is_superuser": True,
    "is_active": False,
    "hashed_password": "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA",
    "seq": 7,
    "version": 7,
}
# Members that are ignored: clients may send back what they have read, and OAuth clients may send unknown parameters. In
# a change of several contacts, the id names one of them.
TAKEN = {("replace_contact", "id"), ("update_contact", "id"), ("update_contacts", "id")}
TAKEN |= {("issue_token", name) for name in FORBIDDEN}
CONDITIONS: list[dict[str, str]] = [{}, {"If-Match": "*"}, {"If-Match": '"1"'}, {"If-Match": '"2"'}]
CONDITIONS += [{"If-None-Match": condition["If-Match"]} for condition in CONDITIONS[1:]]


def as_sent(response: httpx.Response, *ids: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return the whole answer, except for the requested ids and the request id."""
    headers = [(name, value) for name, value in response.headers.raw if name != b"x-request-id"]
    content = response.content
    for each in ids:
        content = content.replace(each.encode(), b"<id>")
    return response.status_code, headers, content


def snapshot(execute: Execute) -> list[list[tuple[Any, ...]]]:
    """Return every row of every table."""
    tables = execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return [execute(f'SELECT t::text FROM "{table}" t ORDER BY 1') for (table,) in tables]


@pytest.mark.parametrize("operation", NAMING, ids=str)
async def test_objects_of_others_answer_exactly_like_missing_ones(
    ada: Client, grace: Client, execute: Execute, operation: Operation
) -> None:
    theirs, nobodys, own = await operation.make_ids(grace), [str(uuid4())], await operation.make_ids(ada)
    before = snapshot(execute)
    bodies: list[Any] = [operation.example, {"unknown": 1}] if operation.media_types else [None]
    methods = ["GET", "HEAD"] if operation.method == "GET" else [operation.method]
    # All ids belong to the other user, or only the last ones.
    prefixes = [own[:n] for n in range(len(own))]

    for method, body, headers, prefix in (
        (m, b, h, p) for m in methods for b in bodies for h in CONDITIONS for p in prefixes
    ):
        if operation.name == "replace_contact" and headers == {"If-None-Match": "*"}:
            # This creates a contact of one's own: see tests/contacts/test_contacts.py.
            continue
        urls = [operation.url(*prefix, *ids[-(len(own) - len(prefix)) :]) for ids in (theirs, nobodys)]
        their_answer, nobodys_answer = [await ada.request(method, url, json=body, headers=headers) for url in urls]

        # An invalid body may be refused before the contact is looked up.
        expected = (404,) if body == operation.example or body is None else (404, 422)
        assert their_answer.status_code in expected, (method, body, headers, prefix)
        assert as_sent(their_answer, *theirs, *nobodys) == as_sent(nobodys_answer, *theirs, *nobodys)
    assert snapshot(execute) == before


async def test_own_ids_give_a_success(ada: Client) -> None:
    """Otherwise the test above would prove nothing. Ending the session comes last."""
    for operation in sorted(NAMING, key=lambda operation: operation.name == "end_session"):
        own = await operation.make_ids(ada)

        response = await ada.request(
            operation.method, operation.url(*own), json=operation.example if operation.media_types else None
        )

        assert response.status_code < 300, operation


def planted(body: Any, name: str, value: object) -> Iterator[Any]:
    """Yield copies of the body, each with the member added to another of its objects."""
    for place in objects(body, ()):
        changed = deepcopy(body)
        target = changed
        for key in place:
            target = target[key]
        target[name] = value
        yield changed


def objects(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        yield place
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from objects(member, (*place, key))


@pytest.mark.parametrize("operation", WRITING, ids=str)
async def test_no_body_sets_a_read_only_member(ada: Client, execute: Execute, operation: Operation) -> None:
    url = operation.url(*await operation.make_ids(ada))
    before = snapshot(execute)
    attempts = [
        (name, body, media_type)
        for name, value in FORBIDDEN.items()
        if (operation.name, name) not in TAKEN
        for body in planted(operation.example, name, value)
        for media_type in operation.media_types
    ]

    for name, body, media_type in attempts:
        if media_type == FILE:
            content, media_type = as_file(b"first_name\r\nGrace\r\n", **{name: "1"}), f"{FILE}; boundary={BOUNDARY}"
        else:
            content = (json.dumps(body) if media_type.endswith("json") else str(httpx.QueryParams(body))).encode()
        response = await ada.request(operation.method, url, content=content, headers={"Content-Type": media_type})

        assert response.status_code == 422, (name, response.text)
        assert name in [error["loc"][-1] for error in response.json()["errors"]]
    assert len(attempts) >= len(FORBIDDEN) - len([name for taker, name in TAKEN if taker == operation.name])
    assert snapshot(execute) == before
