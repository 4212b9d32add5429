"""The routes of contacts and labels. Each request sees only the contacts of its owner."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, TypeAlias
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, Field
from uuid_utils.compat import uuid7

from contacts_api.accounts.strategy import FOR_OWNERS, Owner
from contacts_api.contacts import labels, models, queries, quota, store
from contacts_api.contacts.birthdays import upcoming_birthdays
from contacts_api.contacts.labels import LabelInPath, LabelNotFound
from contacts_api.contacts.models import ContactId, ContactPublic, columns_of
from contacts_api.contacts.own import ContactNotFound, PreconditionFailed
from contacts_api.contacts.quota import TooManyContacts
from contacts_api.database.connecting import Row
from contacts_api.database.engine import Autocommit, Reads
from contacts_api.http.answers import PRIVATE, json_answer, with_headers
from contacts_api.http.etags import TAKES_IF_NONE_MATCH, IfMatch, IfNoneMatch, etag_of, is_known
from contacts_api.http.paging import InvalidCursor, Page, PageQuery, Pages, count_fitting
from contacts_api.http.query import QueryParameters
from contacts_api.http.route import Route
from contacts_api.problems import documented
from contacts_api.settings import known_time_zone

MERGE_PATCH = "application/merge-patch+json"
_CONTACT_UPDATE = "#/components/schemas/ContactUpdate"


class BirthdayQuery(PageQuery):
    days: int = Field(7, ge=0, le=365, description="How many days after today to look ahead.", examples=[7])
    tz: Annotated[
        str | None,
        AfterValidator(known_time_zone),
        Field(
            description="The time zone that decides what today is, by its name in the IANA database.",
            examples=["Europe/Kyiv"],
        ),
    ] = None


def today_in(tz: str | None, request: Request) -> date:
    """Return the current date in the time zone, by the application's clock."""
    state = request.app.state
    today: date = state.clock().astimezone(ZoneInfo(tz or state.settings.time_zone)).date()
    return today


ListQuery: TypeAlias = Annotated[queries.ContactQuery, Depends(QueryParameters(queries.ContactQuery))]
BirthdaysQuery: TypeAlias = Annotated[BirthdayQuery, Depends(QueryParameters(BirthdayQuery))]


def answer(row: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    """Return a response with one contact and its ETag."""
    return json_answer(queries.shown(row), {"ETag": etag_of(row["version"]), **PRIVATE, **headers}, status)


def location_of(contact_id: ContactId, request: Request) -> str:
    return f"{request.scope['root_path']}/contacts/{contact_id}"


class RelabellingRoute(Route):
    """A route that reads up to a million contacts in batches, with a longer deadline."""

    seconds = 300.0


# Routes are matched in order, so the most frequent ones come first.
contacts = APIRouter(prefix="/contacts", route_class=Route, responses=FOR_OWNERS)
relabelling = APIRouter(prefix="/contacts", route_class=RelabellingRoute, responses=FOR_OWNERS)


@contacts.get(
    "", response_model=models.ContactPage, responses=documented(InvalidCursor, onto={200: with_headers("Link")})
)
async def list_contacts(query: ListQuery, pages: Pages, owner: Owner) -> Response:
    """List and search your contacts. Case and accents do not matter."""
    terms = query.terms()
    which = (query.sort, terms, owner.user_id)
    position = pages.position(query, *which)
    rows = await queries.find(pages.database, query.sort, terms, query.limit + 1, position, owner.user_id)
    total = await queries.count(pages.database, terms, owner.user_id) if query.with_total else None
    listing, limit = queries.contacts(query.sort), count_fitting(rows[: query.limit])
    return pages.answer(listing, query, rows, queries.shown, *which, limit=limit, total=total)


@contacts.post(
    "",
    status_code=201,
    response_model=ContactPublic,
    responses=documented(TooManyContacts, onto={201: with_headers("ETag", "Location")}),
)
async def create_contact(new: models.ContactCreate, request: Request, owner: Owner, database: Autocommit) -> Response:
    """Create a contact.

    The fields from `first_name` to `date_of_birth` are required; all except `first_name` may be null.
    """
    key = {"owner_id": owner.user_id, "id": uuid7(), "version": 1}
    max_contacts = request.app.state.settings.max_contacts
    row = await quota.create(database, max_contacts, **key, **columns_of(new.model_dump()))
    return answer(row, 201, Location=location_of(row["id"], request))


@contacts.get(
    "/{contact_id:uuid}",
    response_model=ContactPublic,
    responses=documented(ContactNotFound, onto={200: with_headers("ETag"), 304: with_headers("ETag")}),
    openapi_extra=TAKES_IF_NONE_MATCH,
)
async def get_contact(contact_id: ContactId, request: Request, owner: Owner, database: Autocommit) -> Response:
    """Return one of your contacts."""
    row = await store.find(database, owner.user_id, contact_id)
    if is_known(request, row["version"]):
        return Response(status_code=304, headers={"ETag": etag_of(row["version"]), **PRIVATE})
    return answer(row)


@contacts.put(
    "/{contact_id:uuid}",
    response_model=ContactPublic,
    responses=documented(
        ContactNotFound,
        PreconditionFailed,
        TooManyContacts,
        onto={
            200: with_headers("ETag"),
            201: {
                "description": "Created",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ContactPublic"}}},
                **with_headers("ETag", "Location"),
            },
        },
    ),
)
async def replace_contact(
    contact_id: ContactId,
    new: models.ContactReplace,
    request: Request,
    owner: Owner,
    database: Autocommit,
    if_none_match: IfNoneMatch,
    if_match: IfMatch,
) -> Response:
    """Replace one of your contacts. Optional fields that are omitted become null or empty.

    With `If-None-Match: *`, this creates a contact with an id that you choose, so that a create can be repeated safely.
    """
    fields = new.model_dump()
    if if_none_match == "*":
        max_contacts = request.app.state.settings.max_contacts
        row = await store.create_under(database, owner.user_id, contact_id, fields, max_contacts)
        return answer(row, 201, Location=location_of(contact_id, request))
    return answer(await store.change(database, owner.user_id, contact_id, lambda _: fields, if_match))


@contacts.patch(
    "/{contact_id:uuid}",
    response_model=ContactPublic,
    responses=documented(ContactNotFound, PreconditionFailed, onto={200: with_headers("ETag")}),
    openapi_extra={"requestBody": {"content": {MERGE_PATCH: {"schema": {"$ref": _CONTACT_UPDATE}}}}},
)
async def update_contact(
    contact_id: ContactId, patch: models.ContactUpdate, owner: Owner, database: Autocommit, if_match: IfMatch
) -> Response:
    """Change some fields of one of your contacts. The body is a JSON merge patch (RFC 7396)."""
    return answer(await store.change(database, owner.user_id, contact_id, patch.apply_to, if_match))


@contacts.delete("/{contact_id:uuid}", status_code=204, responses=documented(ContactNotFound, PreconditionFailed))
async def delete_contact(contact_id: ContactId, owner: Owner, database: Autocommit, if_match: IfMatch) -> None:
    """Delete one of your contacts."""
    await store.delete(database, owner.user_id, contact_id, if_match)


@contacts.get(
    "/birthdays",
    response_model=Page[models.UpcomingBirthday],
    responses=documented(InvalidCursor, onto={200: with_headers("Link")}),
)
async def list_birthdays(query: BirthdaysQuery, request: Request, pages: Pages, owner: Owner) -> Response:
    """List the birthdays of today and the next days, the nearest first."""
    which = (query.days, query.tz, owner.user_id)
    position = pages.position(query, *which)
    # The next page of a list that was started yesterday uses yesterday's date.
    today = date.fromisoformat(position["today"]) if position else today_in(query.tz, request)
    coming = upcoming_birthdays(today, query.days)
    rows = await queries.find_birthdays(pages.database, coming, query.limit + 1, position, owner.user_id)

    def upcoming(row: Row) -> dict[str, Any]:
        on = row["birthday_on"]
        born = row["date_of_birth"]
        turns = on.year - born.year if born else None
        return {"contact": queries.shown(row), "birthday_on": on, "days_until": (on - today).days, "turns": turns}

    limit = count_fitting(rows[: query.limit])
    return pages.answer(queries.BIRTHDAYS, query, rows, upcoming, *which, keep={"today": str(today)}, limit=limit)


@relabelling.get("/labels", response_model=models.LabelList)
async def list_labels(owner: Owner, database: Reads) -> Response:
    """List your labels, and how many contacts have each.

    At most 10,000 labels are listed, the most used ones. With more than 50,000 labels, some rarely used ones may be
    missing, and counts may be too low.
    """
    return json_answer({"items": await labels.list_labels(database, owner.user_id)}, PRIVATE)


@relabelling.patch("/labels/{label:path}", responses=documented(LabelNotFound))
async def rename_label(
    label: LabelInPath, new: models.LabelChange, request: Request, owner: Owner
) -> models.LabelledContacts:
    """Rename a label on every contact that has it. If a contact already has the new label, the two are merged."""
    changed = await labels.replace_label(request.app.state.database, owner.user_id, label, [new.label])
    return models.LabelledContacts(contacts=changed)


@relabelling.delete("/labels/{label:path}", responses=documented(LabelNotFound))
async def delete_label(label: LabelInPath, request: Request, owner: Owner) -> models.LabelledContacts:
    """Take a label off every contact. No contact is deleted."""
    return models.LabelledContacts(
        contacts=await labels.replace_label(request.app.state.database, owner.user_id, label, [])
    )
