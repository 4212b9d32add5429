"""Contacts: always those of whoever signed in."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import AfterValidator, Field
from sqlalchemy import Executable
from uuid_utils.compat import uuid7

from contacts_api.accounts.tokens import InvalidToken, Owner
from contacts_api.contacts import queries
from contacts_api.contacts.birthdays import upcoming_birthdays
from contacts_api.contacts.models import (
    Contact,
    ContactBase,
    ContactCreate,
    ContactPage,
    ContactPublic,
    ContactUpdate,
    UpcomingBirthday,
    columns_of,
)
from contacts_api.contacts.quota import TooManyContacts, create_within
from contacts_api.database import Autocommit, Database, Row, Session
from contacts_api.etags import matches_etag
from contacts_api.pagination import Cursors, InvalidCursor, Page, PageQuery
from contacts_api.problems import Busy, DatabaseUnavailable, NotFound, Problem, Unauthorized, documented
from contacts_api.query_parameters import QueryParameters
from contacts_api.routing import Route
from contacts_api.settings import known_time_zone

PRIVATE = {"Cache-Control": "private, no-cache"}
JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
_CONTACT_UPDATE = "#/components/schemas/ContactUpdate"


class ContactNotFound(NotFound):
    code, title = "contact_not_found", "Contact not found"


class PreconditionFailed(Problem):
    status, code, title = 412, "precondition_failed", "The contact has changed since you read it"


class BirthdayQuery(PageQuery):
    days: Annotated[int, Field(ge=0, le=365, description="How many days to look ahead.")] = 7
    tz: Annotated[
        str | None,
        AfterValidator(known_time_zone),
        Field(description="Whose today it is: a time zone of the IANA database.", examples=["Europe/Kyiv"]),
    ] = None


async def get_own_contact(
    contact_id: UUID, owner: Owner, session: Session, if_match: Annotated[str | None, Header()] = None
) -> Contact:
    """Return the contact, locked until the request is through."""
    contact = await session.scalar(queries.LOCK, {"owner_id": owner.user_id, "contact_id": contact_id})
    if contact is None:
        raise ContactNotFound
    if if_match is not None and not matches_etag(if_match, contact.version):
        raise PreconditionFailed
    return contact


def today_in(tz: str | None, request: Request) -> date:
    """Return the date of now in the time zone, by the application's clock."""
    state = request.app.state
    today: date = state.clock().astimezone(ZoneInfo(tz or state.settings.time_zone)).date()
    return today


class Pager:
    """Reads from a cursor where a list goes on, and answers with the page from there."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._cursors: Cursors = request.app.state.cursors
        self._database: Database = request.app.state.database

    async def read(self, statement: Executable, **parameters: Any) -> list[Row]:
        return await self._database.read(statement, **parameters)

    def position(self, query: PageQuery, *which: object) -> dict[str, str]:
        return {} if query.cursor is None else self._cursors.read(query.cursor, *which)

    def answer(self, row: Row, position: Mapping[str, str], *which: object, **members: int | None) -> Response:
        headers, next_cursor = dict(PRIVATE), None
        if row.has_more:
            next_cursor = self._cursors.write({**position, **queries.position_of(row)}, *which)
            path = self._request.scope["root_path"] + self._request.scope["route"].path
            headers["Link"] = f'<{path}?{urlencode({**self._request.query_params, "cursor": next_cursor})}>; rel="next"'
        rest = json.dumps({"next_cursor": next_cursor, **members})
        return Response(f'{{"items":{row.body},{rest[1:]}', 200, headers, JSON)


OwnContact: TypeAlias = Annotated[Contact, Depends(get_own_contact)]
"""The contact in the path: the caller's own and, with If-Match, as the caller saw it last."""
IfNoneMatch: TypeAlias = Annotated[str | None, Header()]
ListQuery: TypeAlias = Annotated[queries.ContactQuery, Depends(QueryParameters(queries.ContactQuery))]
BirthdaysQuery: TypeAlias = Annotated[BirthdayQuery, Depends(QueryParameters(BirthdayQuery))]


def answer(body: str, version: int, status: int = 200, **headers: str) -> Response:
    """Return one contact, as PostgreSQL wrote it."""
    return Response(body, status, {"ETag": f'"{version}"', **PRIVATE, **headers}, JSON)


async def save(contact: Contact, new: ContactBase, session: Session) -> Response:
    contact.sqlmodel_update(columns_of(new))
    await session.flush()
    key = {"owner_id": contact.owner_id, "contact_id": contact.id}
    return answer(*(await session.execute(queries.GET, key)).one())


def with_headers(*headers: str) -> dict[str, Any]:
    """Return what documents the headers of a response."""
    return {"headers": {name: {"schema": {"type": "string"}} for name in headers}}


contacts = APIRouter(
    prefix="/contacts",
    tags=["contacts"],
    route_class=Route,
    responses=documented(Unauthorized, InvalidToken, DatabaseUnavailable, Busy),
)


@contacts.get("", response_model=ContactPage, responses=documented(InvalidCursor, onto={200: with_headers("Link")}))
async def list_contacts(query: ListQuery, request: Request, owner: Owner) -> Response:
    """List and search your contacts; case and accents do not matter."""
    pages, terms = Pager(request), query.terms()
    which = ("contacts", owner.user_id, query.sort, terms)
    position = pages.position(query, *which)
    statement = query.statement(terms, is_first=not position)
    (row,) = await pages.read(
        statement, owner_id=owner.user_id, limit=query.limit, **query.patterns(), **queries.after(position)
    )
    return pages.answer(row, position, *which, total=row.total)


@contacts.get(
    "/birthdays",
    response_model=Page[UpcomingBirthday],
    responses=documented(InvalidCursor, onto={200: with_headers("Link")}),
)
async def list_birthdays(query: BirthdaysQuery, request: Request, owner: Owner) -> Response:
    """List your contacts whose birthday is today or in the next days, the next one first."""
    pages, which = Pager(request), ("birthdays", owner.user_id, query.days, query.tz)
    position = pages.position(query, *which)
    statement = queries.page_of_birthdays(not position)
    # A list that was begun yesterday goes on as of yesterday.
    today = date.fromisoformat(position.setdefault("today", str(today_in(query.tz, request))))
    upcoming = upcoming_birthdays(today, query.days)
    days = {"today": today, "keys": list(upcoming), "dates": list(upcoming.values())}
    (row,) = await pages.read(statement, owner_id=owner.user_id, limit=query.limit, **days, **queries.after(position))
    return pages.answer(row, position, *which)


@contacts.post(
    "",
    status_code=201,
    response_model=ContactPublic,
    responses=documented(TooManyContacts, onto={201: with_headers("ETag", "Location")}),
)
async def create_contact(new: ContactCreate, request: Request, owner: Owner, database: Autocommit) -> Response:
    """Create a contact."""
    contact_id = uuid7()
    row = await create_within(
        database,
        queries.CREATE,
        owner_id=owner.user_id,
        count=1,
        max_contacts=request.app.state.settings.max_contacts,
        id=contact_id,
        **columns_of(new),
    )
    return answer(row.body, row.version, 201, Location=f"{request.scope['root_path']}/contacts/{contact_id}")


@contacts.get(
    "/{contact_id:uuid}",
    response_model=ContactPublic,
    responses=documented(ContactNotFound, onto={200: with_headers("ETag"), 304: with_headers("ETag")}),
)
async def get_contact(
    contact_id: UUID, owner: Owner, database: Autocommit, if_none_match: IfNoneMatch = None
) -> Response:
    """Return one of your contacts."""
    found = await database.read(queries.GET, owner_id=owner.user_id, contact_id=contact_id)
    if not found:
        raise ContactNotFound
    (row,) = found
    if if_none_match is not None and matches_etag(if_none_match.replace("W/", ""), row.version):
        return Response(status_code=304, headers={"ETag": f'"{row.version}"', **PRIVATE})
    return answer(*row)


@contacts.put(
    "/{contact_id:uuid}",
    response_model=ContactPublic,
    responses=documented(ContactNotFound, PreconditionFailed, onto={200: with_headers("ETag")}),
)
async def replace_contact(new: ContactCreate, contact: OwnContact, session: Session) -> Response:
    """Replace one of your contacts; what the body leaves out becomes null."""
    return await save(contact, new, session)


@contacts.patch(
    "/{contact_id:uuid}",
    response_model=ContactPublic,
    responses=documented(ContactNotFound, PreconditionFailed, onto={200: with_headers("ETag")}),
    openapi_extra={"requestBody": {"content": {MERGE_PATCH: {"schema": {"$ref": _CONTACT_UPDATE}}}}},
)
async def update_contact(changes: ContactUpdate, contact: OwnContact, session: Session) -> Response:
    """Change some fields of one of your contacts (a JSON merge patch, RFC 7396)."""
    merged = ContactBase.model_validate(contact, update=changes.model_dump(exclude_unset=True))
    return await save(contact, merged, session)


@contacts.delete(
    "/{contact_id:uuid}",
    status_code=204,
    response_class=Response,
    responses=documented(ContactNotFound, PreconditionFailed),
)
async def delete_contact(contact: OwnContact, session: Session) -> None:
    """Delete one of your contacts."""
    await session.delete(contact)
