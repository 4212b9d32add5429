"""The floor: the same seven jobs written by hand with only the necessary code. No validation, no ORM, no log.

It uses asyncpg's pool with its defaults, which resets a connection after each use, and encodes rows as dicts by orjson.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import jwt
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uuid_utils.compat import uuid7

SECRET = os.environ["JWT_SECRET"]
SHOWN = """
    id::text, first_name, last_name, email, phone_number, date_of_birth, birthday, additional_info, labels, details,
    created_at, updated_at
"""
GET = f"SELECT {SHOWN} FROM contact WHERE owner_id = $1 AND id = $2"
LIST = f"SELECT {SHOWN} FROM contact WHERE owner_id = $1 ORDER BY sort_name, id LIMIT 50"
SEARCH = f"SELECT {SHOWN} FROM contact WHERE owner_id = $1 AND search_text LIKE $2 ORDER BY sort_name, id LIMIT 50"
BIRTHDAYS = f"SELECT {SHOWN} FROM contact WHERE owner_id = $1 AND birthday = ANY($2) ORDER BY sort_name, id"
CREATE = f"""
    INSERT INTO contact (owner_id, id, first_name, last_name, email, phone_number, date_of_birth, birthday,
                         additional_info, search_text, sort_name)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING {SHOWN}
"""
LOCK = f"{GET} FOR UPDATE"
CHANGE = f"""
    UPDATE contact SET additional_info = $3, version = version + 1, updated_at = now()
    WHERE owner_id = $1 AND id = $2 RETURNING {SHOWN}
"""
DELETE = "DELETE FROM contact WHERE owner_id = $1 AND id = $2 RETURNING id"


def answer(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, media_type="application/json")


def contact_of(row: asyncpg.Record) -> dict[str, Any]:
    contact, number = dict(row), row["birthday"]
    contact["birthday"] = f"{number // 100:02}-{number % 100:02}"
    contact["labels"], contact["details"] = orjson.Fragment(row["labels"]), orjson.Fragment(row["details"])
    return contact


def owner_of(request: Request) -> UUID:
    token = request.headers["authorization"].removeprefix("Bearer ")
    return UUID(jwt.decode(token, SECRET, algorithms=["HS256"], audience="contacts:access")["sub"])


async def get_contact(request: Request) -> Response:
    row = await request.app.state.pool.fetchrow(GET, owner_of(request), UUID(request.path_params["id"]))
    return answer(contact_of(row))


async def list_contacts(request: Request) -> Response:
    owner, q = owner_of(request), request.query_params.get("q")
    if q is None:
        rows = await request.app.state.pool.fetch(LIST, owner)
    else:
        rows = await request.app.state.pool.fetch(SEARCH, owner, f"%{q.lower()}%")
    return answer({"items": [contact_of(row) for row in rows]})


async def list_birthdays(request: Request) -> Response:
    today = datetime.now(UTC).date()
    days = [today + timedelta(days=n) for n in range(int(request.query_params.get("days", 7)) + 1)]
    upcoming = {day.month * 100 + day.day: day for day in days}
    rows = await request.app.state.pool.fetch(BIRTHDAYS, owner_of(request), list(upcoming))
    items = []
    for row in rows:
        day = upcoming[row["birthday"]]
        turns = day.year - row["date_of_birth"].year
        items.append({"contact": contact_of(row), "birthday_on": day, "days_until": (day - today).days, "turns": turns})
    items.sort(key=lambda item: item["days_until"])
    return answer({"items": items})


async def create_contact(request: Request) -> Response:
    owner, new = owner_of(request), orjson.loads(await request.body())
    born = date.fromisoformat(new["date_of_birth"])
    searched = (new["first_name"], new["last_name"], new["email"], new["phone_number"])
    row = await request.app.state.pool.fetchrow(
        CREATE,
        owner,
        uuid7(),
        *searched,
        born,
        born.month * 100 + born.day,
        new.get("additional_info"),
        "\n".join(searched).lower(),
        f"{new['last_name']}\n{new['first_name']}".lower(),
    )
    return answer(contact_of(row), 201)


async def change_contact(request: Request) -> Response:
    key, patch = (owner_of(request), UUID(request.path_params["id"])), orjson.loads(await request.body())
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(LOCK, *key)
        if row["additional_info"] != patch["additional_info"]:
            row = await connection.fetchrow(CHANGE, *key, patch["additional_info"])
    return answer(contact_of(row))


async def delete_contact(request: Request) -> Response:
    deleted = await request.app.state.pool.fetchrow(DELETE, owner_of(request), UUID(request.path_params["id"]))
    return Response(status_code=204 if deleted else 404)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10) as app.state.pool:
        yield


app = Starlette(
    routes=[
        Route("/contacts", list_contacts, methods=["GET"]),
        Route("/contacts", create_contact, methods=["POST"]),
        Route("/contacts/birthdays", list_birthdays, methods=["GET"]),
        Route("/contacts/{id}", get_contact, methods=["GET"]),
        Route("/contacts/{id}", change_contact, methods=["PATCH"]),
        Route("/contacts/{id}", delete_contact, methods=["DELETE"]),
    ],
    lifespan=lifespan,
)
