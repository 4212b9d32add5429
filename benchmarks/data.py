"""Test data: the rows in the database, and the requests for them."""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import jwt
import psycopg2
from psycopg2 import extensions, extras

from benchmarks.machine import SECRET
from contacts_api.contacts.models import STORED, columns_of

FIRST_NAMES = "Ada Alan Barbara Claude Dennis Donald Edsger Frances Grace Hedy Jean Ken Margaret Niklaus Radia Sophie"
LAST_NAMES = (
    "Allen Backus Bartik Boole Cerf Church Codd Conway Curry Dahl Dijkstra Engelbart Floyd Goldberg Hamilton Hamming "
    "Hoare Hopper Huffman Iverson Kay Kernighan Knuth Lamarr Lamport Liskov Lovelace McCarthy Milner Minsky Naur "
    "Nygaard Perlis Perlman Ritchie Shannon Thompson Turing Wilkes Wirth"
)
CREATED = "Created"
DOMAINS = "example.com example.org mail.example.net hopper.navy.example.com"

_USERS = """
    INSERT INTO "user" (id, email, hashed_password, is_active, is_superuser, is_verified)
    SELECT gen_random_uuid(), %(prefix)s || n || '@example.com', %(hash)s, true, false, false
    FROM generate_series(1, %(owners)s) AS n RETURNING id
"""
_SESSIONS = """
    INSERT INTO auth_session (user_id, id, seq, expires_at)
    SELECT id, gen_random_uuid(), 0, now() + interval '1 day' FROM unnest(%(ids)s::uuid[]) AS id RETURNING user_id, id
"""
_COLUMNS = ", ".join(STORED)
# A temporary table with the contacts that every owner gets.
_BEGIN_MADE = f"CREATE TEMPORARY TABLE made AS SELECT 0 AS n, {_COLUMNS} FROM contact LIMIT 0"
_MAKE = f"INSERT INTO made (n, {_COLUMNS}) VALUES %s"
_CONTACTS = f"""
    INSERT INTO contact (owner_id, id, created_at, {_COLUMNS})
    SELECT owner_id, gen_random_uuid(), now() - n * interval '1 second', {_COLUMNS}
    FROM unnest(%(ids)s::uuid[]) AS owner_id, made
"""
DELETED_EACH = 300
_COPIED = ", ".join(name for name in STORED if name != "first_name")
_DELETABLE = f"""
    INSERT INTO contact (owner_id, id, first_name, {_COPIED})
    SELECT owner_id, md5(owner_id || ' ' || n)::uuid, %(first_name)s, {_COPIED}
    FROM (SELECT DISTINCT ON (owner_id) * FROM contact ORDER BY owner_id, id) AS one, generate_series(1, %(each)s) AS n
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True)
class Owner:
    id: str
    email: str
    token: str
    contact_ids: list[str]


@contextmanager
def cursor(url: str) -> Iterator[extensions.cursor]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        yield connection.cursor()


def fill(
    url: str, prefix: str, owners: int, contacts: int, hashed_password: str = "none", *, are_whole: bool = False
) -> list[Owner]:
    """Create `owners` users who are signed in for a day, with `contacts` contacts each.

    Return the users with the ids of some of their contacts. With `are_whole`, each contact has a label and a detail.
    """
    with cursor(url) as sql:
        sql.execute(_USERS, {"prefix": prefix, "hash": hashed_password, "owners": owners})
        ids = [row[0] for row in sql.fetchall()]
        sql.execute(_SESSIONS, {"ids": ids})
        sessions = dict(sql.fetchall())
        sql.execute(_BEGIN_MADE)
        extras.execute_values(sql, _MAKE, _rows(contacts, are_whole), page_size=1000)
        sql.execute(_CONTACTS, {"ids": ids})
        settle(sql)
        made = []
        for n, owner_id in enumerate(ids, 1):
            sql.execute("SELECT id FROM contact WHERE owner_id = %s LIMIT 20", (owner_id,))
            some = [row[0] for row in sql.fetchall()]
            made.append(Owner(owner_id, f"{prefix}{n}@example.com", _token(owner_id, sessions[owner_id]), some))
        return made


def _rows(contacts: int, are_whole: bool) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of `contacts` contacts. A third of them has a note."""
    labels = ["Conference"] if are_whole else []
    details = [{"kind": "organization", "label": "work", "value": "Analytical Engines"}] if are_whole else []
    first, last = FIRST_NAMES.split(), LAST_NAMES.split()
    for n in range(1, contacts + 1):
        columns = columns_of(
            {
                "first_name": first[n * 31 % len(first)],
                "last_name": last[n * 17 % len(last)],
                "email": f"friend{n}@example.com",
                "phone_number": f"+1 202 {n // 10000:03}-{n % 10000:04}",
                "date_of_birth": date(1940, 1, 1) + timedelta(days=n * 7919 % 25_000),
                "additional_info": None if n % 3 else "Met at the conference, wrote twice.",
                "labels": labels,
                "details": details,
            }
        )
        yield n, *(columns[name] for name in STORED)


def _token(owner_id: str, session_id: str) -> str:
    now = int(time.time())
    whose = {"sub": owner_id, "sid": session_id, "aud": "contacts:access"}
    return jwt.encode(whose | {"iat": now, "exp": now + 86400}, SECRET, algorithm="HS256")


def settle(sql: extensions.cursor) -> None:
    """Do PostgreSQL's maintenance now, so that it does not run during a measurement."""
    sql.execute("VACUUM ANALYZE")
    sql.execute("CHECKPOINT")


def forget_created(url: str) -> None:
    """Delete the contacts that the load has created, so that every server finds the same rows."""
    with cursor(url) as sql:
        sql.execute("DELETE FROM contact WHERE first_name = %s", (CREATED,))
        settle(sql)


def create_deletable(url: str) -> None:
    """Create the contacts for the job "delete". Each is a copy of the first contact of its owner."""
    with cursor(url) as sql:
        sql.execute(_DELETABLE, {"each": DELETED_EACH, "first_name": CREATED})
        settle(sql)


Request = tuple[str, str, str]
"""Method, path and body."""


def _one_contact(owner: Owner, n: int) -> Request:
    return "GET", f"/contacts/{owner.contact_ids[n]}", ""


def _list_of_50(owner: Owner, n: int) -> Request:
    return "GET", "/contacts", ""


def _search(owner: Owner, n: int) -> Request:
    return "GET", f"/contacts?q={quote(random.choice(LAST_NAMES.split()))}", ""


def _birthdays(owner: Owner, n: int) -> Request:
    return "GET", "/contacts/birthdays?days=7", ""


def _create(owner: Owner, n: int) -> Request:
    last_name, domain = random.choice(LAST_NAMES.split()), random.choice(DOMAINS.split())
    contact = {
        "first_name": CREATED,
        "last_name": last_name,
        "email": f"{last_name}.{random.randrange(10**6)}@{domain}",
        "phone_number": f"+1 (202) 555-{random.randrange(10**4):04}",
        "date_of_birth": str(date(1940, 1, 1) + timedelta(days=random.randrange(25_000))),
        "additional_info": "Found the first bug.",
    }
    return "POST", "/contacts", json.dumps(contact)


def _change(owner: Owner, n: int) -> Request:
    # Alternate the text each time a contact's turn comes, so that every request changes something.
    body = json.dumps({"additional_info": f"Called {'once' if n // 10 % 2 else 'twice'}."})
    return "PATCH", f"/contacts/{owner.contact_ids[n % 10]}", body


def _delete(owner: Owner, n: int) -> Request:
    # The same ids as in create_deletable().
    digest = md5(f"{owner.id} {n + 1}".encode(), usedforsecurity=False).hexdigest()
    return "DELETE", f"/contacts/{UUID(digest)}", ""


JOBS: dict[str, Callable[[Owner, int], Request]] = {
    "one contact": _one_contact,
    "list of 50": _list_of_50,
    "search": _search,
    "birthdays": _birthdays,
    "create": _create,
    "change": _change,
    "delete": _delete,
}
EACH = {"change": 20, "delete": DELETED_EACH}
"""The number of requests for each owner in a job, if it is not ten."""


def write_requests(path: Path, owners: Iterable[Owner], job: Callable[[Owner, int], Request], each: int = 10) -> Path:
    """Write the requests of a job in the format of load.lua: `each` for every owner, rotating over the owners."""
    owners = list(owners)
    with path.open("w") as file:
        for n in range(each):
            for owner in owners:
                method, where, body = job(owner, n)
                print(method, where, owner.token, body, sep="\t", file=file)
    return path
