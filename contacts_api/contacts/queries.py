"""The SQL statements on contacts. Each is built once, and is limited to one owner."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import orjson
import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError
from sqlalchemy.types import TypeEngine

from contacts_api.contacts.birthdays import in_steps
from contacts_api.contacts.fields import MAX_LABELS, About, digits_to_find, is_number, parts_of_number
from contacts_api.contacts.models import ABOUT, FIELDS, STORED, Contact, label_tag, month_and_day, search_tag
from contacts_api.database.connecting import Row
from contacts_api.database.engine import Reader, table_of
from contacts_api.http.answers import as_json
from contacts_api.http.paging import Listing, PageQuery, Position, count_fitting, read_in_steps
from contacts_api.text import SearchTerm, fold

Sort = Literal["name", "-name", "created_at", "-created_at", "updated_at", "-updated_at"]
MAX_WORDS = 8
# A search first scans this many contacts for each requested one, which is enough if one in twenty matches.
WALK_PER_ITEM, SHORTEST_WALK = 20, 500

_COMMA = re.compile("[,\u3001\u060c]")

_contact = table_of(Contact).c
_SORT_KEYS = {"name": _contact.sort_name, "created_at": _contact.created_at, "updated_at": _contact.updated_at}
_SHOWN = ("id", *FIELDS, "created_at", "updated_at")
_LISTED = [_contact[name] for name in (*_SHOWN, "sort_name")]
_OWNED = _contact.owner_id == sa.bindparam("owner_id")
_THIS = _contact.id == sa.bindparam("contact_id")
# The size of the columns that may be long. PostgreSQL knows it without reading the values.
_SIZE = sum(
    (sa.func.coalesce(sa.func.octet_length(_contact[name]), 0) for name in ("additional_info", "labels")),
    start=sa.func.octet_length(_contact.details),
)


def shown(row: Any) -> dict[str, Any]:
    """Return the public members of a contact, ready for JSON."""
    members = as_json(row, _SHOWN)
    members["birthday"] = month_and_day(members["birthday"])
    # These are stored as JSON, so they need not be parsed. Most are empty.
    for name in ("labels", "details"):
        members[name] = [] if members[name] == "[]" else orjson.Fragment(members[name])
    return members


GET = sa.select(*(_contact[name] for name in _SHOWN), _contact.version).where(_OWNED, _THIS)
EXISTS = sa.select(_contact.id).where(_OWNED, _THIS)
_AS_READ = _contact.version == sa.bindparam("version")
UPDATE = (
    sa.update(table_of(Contact))
    .where(_OWNED, _THIS, _AS_READ)
    # now() is the start of this statement, which is a transaction of its own. (Citus allows no clock in an UPDATE.)
    .values(
        {name: sa.bindparam(name) for name in STORED} | {"version": _contact.version + 1, "updated_at": sa.func.now()}
    )
    .returning(_contact.version, _contact.updated_at)
)
"""Change a contact if it still has the version that was read. Otherwise returns no row."""
DELETE = sa.delete(table_of(Contact)).where(_OWNED, _THIS).returning(_contact.id)
DELETE_AS_READ = DELETE.where(_AS_READ)
_THESE = _contact.id.in_(sa.bindparam("ids", expanding=True))
# Ordered by id, so that two requests cannot deadlock.
LOCK_ALL = sa.select(Contact).where(_OWNED, _THESE).order_by(_contact.id).with_for_update()
LOCK_SIZES = sa.select(_contact.id, _SIZE.label("size")).where(_OWNED, _THESE).order_by(_contact.id).with_for_update()
"""Lock these contacts and return their sizes in bytes, without reading the values."""
LOCK_FIELDS = (
    sa.select(_contact.id, *(_contact[name] for name in FIELDS)).where(_OWNED, _THESE).order_by(_contact.id)
).with_for_update()
DELETE_ALL = sa.delete(Contact).where(_OWNED, _THESE).returning(_contact.id)
# A separate query, because Citus allows no clock in an UPDATE. Not now(), which is the start of the transaction: the
# later of two updates may be in the transaction that started first.
NOW = sa.select(sa.func.clock_timestamp())

LABELS = Listing(
    sa.select(_contact.labels, _contact.created_at, _contact.id).where(_OWNED),
    _contact.created_at,
    _contact.id,
    size=sa.func.octet_length(_contact.labels),
)
"""The labels of each contact of an owner, in the order of creation of the contacts."""
LABELLED = Listing(
    sa.select(_contact.id, _contact.search_text.like(sa.bindparam("tag", type_=sa.Text)).label("is_labelled")).where(
        _OWNED
    ),
    _contact.id,
)
"""All contacts of an owner, with a column that tells which of them have a label. Each statement scans one page.

The trigram index would not help: a frequent label occurs on every page, and the trigrams of an unused label also occur
in other labels.
"""
RELABEL = sa.text(
    """
    UPDATE contact SET labels = :labels, search_text = :search_text, sort_name = :sort_name, identity = :identity,
        folding = :folding, version = version + 1, updated_at = :now
    WHERE owner_id = :owner_id AND id = :contact_id
    """
)

RAISE_TALLY = sa.text(
    """
    UPDATE contact_tally SET at_most = at_most + :count
    WHERE owner_id = :owner_id AND at_most + :count <= :max_contacts RETURNING at_most
    """
).columns(sa.column("at_most", sa.Integer))
"""Add `count` new contacts to the tally of an owner. Returns no row if this would exceed the limit."""
START_TALLY = sa.text("INSERT INTO contact_tally (owner_id, at_most) VALUES (:owner_id, 0) ON CONFLICT DO NOTHING")
LOCK_TALLY = sa.text("SELECT at_most FROM contact_tally WHERE owner_id = :owner_id FOR UPDATE")
COUNT_TALLY = sa.text(
    """
    UPDATE contact_tally SET at_most = (SELECT count(*) FROM contact WHERE owner_id = :owner_id)
    WHERE owner_id = :owner_id RETURNING at_most
    """
)

_STORED = ("owner_id", "id", "version", *STORED)
CREATE = (
    sa.insert(Contact)
    .from_select(
        list(_STORED),
        sa.select(*(sa.bindparam(name, type_=_contact[name].type) for name in _STORED)).select_from(
            RAISE_TALLY.cte("room")
        ),
    )
    .returning(_contact.created_at, _contact.updated_at, _contact.version)
)
"""Create a contact and return the columns that PostgreSQL sets. Returns no row if the limit has been reached."""
CREATE_ALL = sa.insert(table_of(Contact)).returning(*(_contact[name] for name in _SHOWN))


class Shape(NamedTuple):
    """The number of terms of each kind in a search. The SQL statement depends on nothing else."""

    words: int
    numbers: int
    fields: tuple[str, ...]
    has_labels: bool


@dataclass(frozen=True)
class Terms:
    """The terms of a search. A contact matches if it matches all of them."""

    words: tuple[str, ...] = ()
    """Texts that occur anywhere in the search text."""
    numbers: tuple[str, ...] = ()
    """Phone numbers with separators, found as written or by `digits_to_find`."""
    fields: tuple[tuple[str, str], ...] = ()
    """Names of fields, each with a text that its value contains."""
    labels: tuple[str, ...] = ()
    """The tags of labels, sorted as in the search text."""

    @property
    def shape(self) -> Shape:
        return Shape(len(self.words), len(self.numbers), tuple(name for name, _ in self.fields), bool(self.labels))

    @property
    def parameters(self) -> dict[str, str]:
        """Return the parameters of the statement: a LIKE pattern for each name."""
        patterns = {f"word_{n}": like(word) for n, word in enumerate(self.words)}
        patterns |= {f"number_{n}": like(number) for n, number in enumerate(self.numbers)}
        patterns |= {f"digits_{n}": like(digits_to_find(number)) for n, number in enumerate(self.numbers)}
        patterns |= {f"in_{name}": like(part) for name, part in self.fields}
        return patterns | ({"labels": f"%{'%'.join(self.labels)}%"} if self.labels else {})


def _words(q: str) -> list[str]:
    """Return the folded words of a search. Spaces within a phone number do not separate words."""
    folded = fold(q)
    words = [folded] if is_number(folded) else _COMMA.sub(" ", folded).split()
    return [part for word in words for part in (parts_of_number(word) if is_number(word) else [word])]


def _few_words(q: str) -> str:
    if len(_words(q)) > MAX_WORDS:
        raise PydanticCustomError("too_many", f"Must have at most {MAX_WORDS} words.")
    return q


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    q: Annotated[
        SearchTerm,
        Field(
            max_length=100,
            description=(
                f"Up to {MAX_WORDS} words, each in a name, an e-mail address, a phone number, the additional info, a "
                "nickname, an organization, a title, an address or a relation; or one phone number, however it is "
                "written, with or without the code of its country."
            ),
            examples=["grace hopper"],
        ),
        AfterValidator(_few_words),
    ] = ""
    label: list[Annotated[SearchTerm, Field(max_length=64)]] = Field(
        [],
        max_length=MAX_LABELS,
        description="A label, whole; given several times, the contact has all of them.",
        examples=[["Navy"]],
    )


def _filter(name: str, about: About) -> Any:
    description = f"A part of the {name.replace('_', ' ')}."
    rule = Field(max_length=about.filter_length, description=description, examples=[about.example])
    return Annotated[SearchTerm, rule], ""


_FILTERS = {name: _filter(name, about) for name, about in ABOUT.items() if about.filter_length}


class ContactFilter(create_model("ContactFilterByField", __base__=_Words, **_FILTERS)):  # type: ignore[misc]  # of the fields
    """The filters and the order of a list of contacts. All filters must match. Empty ones are ignored."""

    sort: Sort = Field(
        "name",
        description="By last, then first name, or by a time; with a minus, the other way round.",
        examples=["-created_at"],
    )

    def terms(self) -> Terms:
        words = _words(self.q)
        with_marks = [word for word in words if is_number(word) and not word.isdecimal()]
        fields = ((name, fold(getattr(self, name))) for name in _FILTERS)
        return Terms(
            words=tuple(digits_to_find(word) if is_number(word) else word for word in words if word not in with_marks),
            numbers=tuple(with_marks),
            fields=tuple((name, part) for name, part in fields if part),
            labels=tuple(sorted({label_tag(label) for label in self.label if label})),
        )


class ContactQuery(ContactFilter, PageQuery):
    """The filters, the order and the page of a list of contacts."""

    with_total: bool = Field(False, description="Also count all contacts that match.", examples=[True])


def like(text: str) -> str:
    """Return the LIKE pattern for texts that contain `text` literally."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"


def _matches(search_text: sa.ColumnElement[str], shape: Shape) -> sa.ColumnElement[bool]:
    def has(name: str, text: sa.ColumnElement[str] = search_text) -> sa.ColumnElement[bool]:
        return text.like(sa.bindparam(name, type_=sa.Text))

    conditions = [has(f"word_{n}") for n in range(shape.words)]
    conditions += [sa.or_(has(f"number_{n}"), has(f"digits_{n}")) for n in range(shape.numbers)]
    for name in shape.fields:
        from_value = sa.func.split_part(search_text, f"\n{search_tag(name)}", 2)
        # The first condition can use the trigram index. The second one checks the line of the field.
        conditions += [has(f"in_{name}"), has(f"in_{name}", sa.func.split_part(from_value, "\n", 1))]
    if shape.has_labels:
        conditions.append(has("labels"))
    return sa.and_(sa.true(), *conditions)


def _sorted(rows: sa.Select[Any], sort: Sort, **bounds: Any) -> Listing:
    return Listing(rows, _SORT_KEYS[sort.lstrip("-")], _contact.id, descending=sort.startswith("-"), **bounds)


@cache
def contacts(sort: Sort) -> Listing:
    """Return the list of all contacts of an owner."""
    return _sorted(sa.select(*_LISTED).where(_OWNED), sort)


@lru_cache(maxsize=256)
def exported(sort: Sort, shape: Shape) -> Listing:
    """Return the list of matching contacts with the columns for a file: their fields and vCard UIDs.

    Its pages scan all contacts, because the index takes too long if most of them match.
    """
    uid = sa.func.coalesce(_contact.uid, sa.cast(_contact.id, sa.Text)).label("vcard_uid")
    columns = (_contact[name] for name in (*FIELDS, _SORT_KEYS[sort.lstrip("-")].name, "id"))
    rows = sa.select(uid, *columns).where(_OWNED)
    return _sorted(rows, sort, size=_SIZE, found=_matches(_contact.search_text, shape))


@lru_cache(maxsize=256)
def _walk(sort: Sort, shape: Shape, is_first: bool) -> sa.Select[Any]:
    """Return the statement that scans the next `limit` contacts of a list for terms of this shape.

    It returns the matching contacts. `goes_on` is true if the list has more contacts after the scanned ones.
    """
    listing = contacts(sort)
    steps = listing.first if is_first else listing.rest
    walked = steps.add_columns(_contact.search_text).subquery("walked")
    next_one = steps.with_only_columns(_contact.id).limit(1).offset(sa.bindparam("limit", type_=sa.BigInteger))
    goes_on = next_one.scalar_subquery().is_not(None).label("goes_on")
    found = sa.select(walked, goes_on).where(_matches(walked.c.search_text, shape))
    return found.order_by(*listing.order_of(walked.c)).limit(sa.bindparam("page", type_=sa.BigInteger))


@lru_cache(maxsize=256)
def _search_by_index(sort: Sort, shape: Shape) -> Listing:
    """Return the list of matching contacts. PostgreSQL first finds all of them by the trigram index.

    Without MATERIALIZED, it would often scan the contacts in order, because it assumes that matches are spread evenly.
    """
    found = sa.select(*_LISTED).where(_OWNED, _matches(_contact.search_text, shape)).cte("found")
    found = found.prefix_with("MATERIALIZED")
    return Listing(sa.select(found), *contacts(sort).keys_of(found.c), descending=sort.startswith("-"))


async def find(
    database: Reader, sort: Sort, terms: Terms, limit: int, position: Position, owner_id: UUID
) -> Sequence[Row]:
    """Return the next matching contacts, at most `limit`, and fewer if they are very large (see `read_in_steps`)."""

    async def find_step(limit: int, position: Position) -> Sequence[Row]:
        return await _find_step(database, sort, terms, limit, position, owner_id)

    return await read_in_steps(find_step, contacts(sort), limit, position)


async def _find_step(
    database: Reader, sort: Sort, terms: Terms, limit: int, position: Position, owner_id: UUID
) -> Sequence[Row]:
    """Return the next matching contacts, at most `limit`.

    The first statement scans a limited number of contacts in order. If it neither fills the page nor reaches the end of
    the list, a second statement searches all contacts by the trigram index.
    """
    listing, shape, patterns = contacts(sort), terms.shape, terms.parameters
    if not patterns:
        return await listing.read(database, limit, position, owner_id=owner_id)
    length = max(SHORTEST_WALK, WALK_PER_ITEM * limit)
    walk = _walk(sort, shape, not position)
    matching = await database.read(
        walk, owner_id=owner_id, limit=length, page=limit, **patterns, **listing.after(position)
    )
    if len(matching) >= limit or (matching and not matching[0].goes_on):
        return matching[:limit]
    return await _search_by_index(sort, shape).read(database, limit, position, owner_id=owner_id, **patterns)


async def count(database: Reader, terms: Terms, owner_id: UUID) -> int:
    ((total,),) = await database.read(_count(terms.shape), owner_id=owner_id, **terms.parameters)
    return int(total)


@lru_cache(maxsize=256)
def _count(shape: Shape) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(Contact).where(_OWNED, _matches(_contact.search_text, shape))


def _array(name: str, kind: TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Return an array whose parameter is comma-separated text.

    With array parameters, asyncpg would look up each array type once for each connection. This query takes 20 ms, and
    700 ms on Citus.
    """
    return sa.cast(sa.func.string_to_array(sa.bindparam(name, type_=sa.Text), ","), sa.ARRAY(kind))


_upcoming = (
    sa.func.unnest(_array("keys", sa.SmallInteger()), _array("dates", sa.Date()))
    .table_valued(sa.column("key", sa.SmallInteger), sa.column("birthday_on", sa.Date), name="upcoming")
    .render_derived()
)
BIRTHDAYS = Listing(
    sa.select(*_LISTED, _upcoming.c.birthday_on)
    .join_from(Contact, _upcoming, _contact.birthday == _upcoming.c.key)
    .where(_OWNED),
    _upcoming.c.birthday_on,
    _contact.sort_name,
    _contact.id,
)
"""The contacts with upcoming birthdays. `keys` and `dates`, both comma-separated, map each birthday to its date."""


async def find_birthdays(
    database: Reader, upcoming: Mapping[int, date], limit: int, position: Position, owner_id: UUID
) -> list[Row]:
    """Return the next birthdays, at most `limit`.

    The nearest days are queried first, so that PostgreSQL does not sort the birthdays of a whole year for one page.
    """
    begin = position.get("birthday_on", "")
    ahead = {key: day for key, day in upcoming.items() if str(day) >= begin}
    rows: list[Row] = []
    for step in in_steps(ahead):
        keys, dates = (",".join(map(str, values)) for values in (step.keys(), step.values()))
        room = limit - len(rows)
        rows += await BIRTHDAYS.read(database, room, position, owner_id=owner_id, keys=keys, dates=dates)
        if len(rows) == limit or count_fitting(rows[:-1]) is not None:
            break
    return rows
