"""Rows to serve, and requests for them."""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import psycopg2
from psycopg2 import extensions

from benchmarks.machine import SECRET

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
_CONTACTS = """
    INSERT INTO contact (owner_id, id, first_name, last_name, email, phone_number, date_of_birth, additional_info,
                         created_at, search_text, sort_name, identity, folding)
    SELECT owner_id, gen_random_uuid(), first, last, email, phone, date '1940-01-01' + (n * 7919 %% 25000)::int,
           CASE WHEN n %% 3 = 0 THEN 'Met at the conference, wrote twice.' END, now() - n * interval '1 second',
           concat(E'\\nFIRSTNAME ', lower(first), E'\\nLASTNAME ', lower(last), E'\\nEMAIL ', email, E'\\nPHONENUMBER ',
                  phone, ' ', regexp_replace(phone, '[^0-9]', '', 'g')),
           lower(last || E'\\n' || first), lower(last || E'\\n' || first || E'\\n' || email), 2
    FROM unnest(%(ids)s::uuid[]) AS owner_id, generate_series(1, %(contacts)s) AS n,
         LATERAL (SELECT (%(first)s)[1 + n * 31 %% %(firsts)s] AS first, (%(last)s)[1 + n * 17 %% %(lasts)s] AS last,
                         'friend' || n || '@example.com' AS email,
                         '+1 202 ' || to_char(n %% 10000000, 'FM000"-"0000') AS phone) AS made
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


def fill(url: str, prefix: str, owners: int, contacts: int, hashed_password: str = "none") -> list[Owner]:
    """Create users, signed in for a day, with `contacts` each; return them, with some of their contacts."""
    first, last = FIRST_NAMES.split(), LAST_NAMES.split()
    names: dict[str, Any] = {"first": first, "firsts": len(first), "last": last, "lasts": len(last)}
    with cursor(url) as sql:
        sql.execute(_USERS, {"prefix": prefix, "hash": hashed_password, "owners": owners})
        ids = [row[0] for row in sql.fetchall()]
        sql.execute(_SESSIONS, {"ids": ids})
        sessions = dict(sql.fetchall())
        sql.execute(_CONTACTS, {"ids": ids, "contacts": contacts, **names})
        settle(sql)
        made = []
        for n, owner_id in enumerate(ids, 1):
            sql.execute("SELECT id FROM contact WHERE owner_id = %s LIMIT 20", (owner_id,))
            some = [row[0] for row in sql.fetchall()]
            made.append(Owner(owner_id, f"{prefix}{n}@example.com", _token(owner_id, sessions[owner_id]), some))
        return made


def _token(owner_id: str, session_id: str) -> str:
    now = int(time.time())
    whose = {"sub": owner_id, "sid": session_id, "aud": "contacts:access"}
    return jwt.encode(whose | {"iat": now, "exp": now + 86400}, SECRET, algorithm="HS256")


def settle(sql: extensions.cursor) -> None:
    """Have done what PostgreSQL would do by itself, while something is measured."""
    sql.execute("VACUUM ANALYZE")
    sql.execute("CHECKPOINT")


def forget_created(url: str) -> None:
    """Delete what the load has created, so that every server finds the same rows."""
    with cursor(url) as sql:
        sql.execute("DELETE FROM contact WHERE first_name = %s", (CREATED,))
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


JOBS: dict[str, Callable[[Owner, int], Request]] = {
    "one contact": _one_contact,
    "list of 50": _list_of_50,
    "search": _search,
    "birthdays": _birthdays,
    "create": _create,
}


def write_requests(path: Path, owners: Iterable[Owner], job: Callable[[Owner, int], Request], each: int = 10) -> Path:
    """Write the requests of a job for load.lua, `each` for an owner, the owners in turn."""
    owners = list(owners)
    with path.open("w") as file:
        for n in range(each):
            for owner in owners:
                method, where, body = job(owner, n)
                print(method, where, owner.token, body, sep="\t", file=file)
    return path
