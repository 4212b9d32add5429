"""Every statement on contacts but the ORM's. Each names its owner, is built once, and has PostgreSQL write the JSON."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    Integer,
    Select,
    SmallInteger,
    String,
    Subquery,
    Text,
    and_,
    bindparam,
    cast,
    column,
    extract,
    func,
    insert,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from contacts_api.contacts.models import Contact, ContactBase, ContactTally
from contacts_api.database import Row, table_of
from contacts_api.pagination import PageQuery
from contacts_api.text import SearchTerm, fold

Sort = Literal["name", "-name", "created_at", "-created_at", "updated_at", "-updated_at"]
MAX_WORDS = 5

_LINES: dict[str, ColumnElement[int]] = {
    "first_name": literal_column("1"),
    "last_name": literal_column("2"),
    "email": literal_column("3"),
}

_CONTACT = table_of(Contact)
_SORT_COLUMNS = {
    "name": _CONTACT.c.sort_name,
    "created_at": _CONTACT.c.created_at,
    "updated_at": _CONTACT.c.updated_at,
}
_SHOWN = ("id", *ContactBase.model_fields, "created_at", "updated_at")
_LISTED = [_CONTACT.c[name] for name in (*_SHOWN, "sort_name")]
_OWNED = _CONTACT.c.owner_id == bindparam("owner_id")
_LIMIT: ColumnElement[int] = bindparam("limit", type_=BigInteger)
_TEN: ColumnElement[int] = literal_column("10")
# Walks that are enough for what one contact in four has, and one in twenty.
_SHORT, _LONG = _LIMIT * literal_column("4"), _LIMIT * literal_column("20")

Columns: TypeAlias = ReadOnlyColumnCollection[str, Any]


def _shown(value: ColumnElement[Any]) -> ColumnElement[Any]:
    if not isinstance(value.type, DateTime):
        return value
    # Left to itself, PostgreSQL writes the time of the connection's zone, without the zeros at its end.
    in_utc = func.timezone(literal_column("'UTC'"), value)
    return func.to_char(in_utc, literal_column("""'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""))


def _object(members: dict[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    pairs: Iterator[tuple[ColumnElement[Any], ColumnElement[Any]]] = (
        (literal_column(f"'{name}'"), value) for name, value in members.items()
    )
    return func.json_build_object(*(part for pair in pairs for part in pair))


def _item(columns: Columns) -> ColumnElement[Any]:
    """Return the JSON of a contact with these columns."""
    return _object({name: _shown(columns[name]) for name in _SHOWN})


_ANSWER = (cast(_item(_CONTACT.c), Text).label("body"), _CONTACT.c.version)

GET = select(*_ANSWER).where(_OWNED, _CONTACT.c.id == bindparam("contact_id"))
_STORED = ("owner_id", "id", *ContactBase.model_fields, "search_text", "sort_name")

_TALLY = table_of(ContactTally)
_TALLY_OF_OWNER = _TALLY.c.owner_id == bindparam("owner_id")
_raised = _TALLY.c.at_most + bindparam("count", type_=Integer)
RAISE_TALLY = (
    update(_TALLY)
    .where(_TALLY_OF_OWNER, _raised <= bindparam("max_contacts", type_=Integer))
    .values(at_most=_raised)
    .returning(_TALLY.c.at_most)
)
"""Count `count` new contacts of an owner, if there may be so many. Returns no row where there may not."""
START_TALLY = upsert(_TALLY).values(owner_id=bindparam("owner_id"), at_most=0).on_conflict_do_nothing()
LOCK_TALLY = select(_TALLY.c.at_most).where(_TALLY_OF_OWNER).with_for_update()
COUNT_TALLY = (
    update(_TALLY)
    .where(_TALLY_OF_OWNER)
    .values(at_most=select(func.count()).select_from(_CONTACT).where(_OWNED).scalar_subquery())
    .returning(_TALLY.c.at_most)
)

_room = RAISE_TALLY.cte("room")
CREATE = (
    insert(Contact)
    .from_select(
        list(_STORED), select(*(bindparam(name, type_=_CONTACT.c[name].type) for name in _STORED)).select_from(_room)
    )
    .returning(*_ANSWER)
)
"""Create a contact, if there may be one more. Returns no row where there may not."""


def _create_all() -> Select[Any]:
    """Return the statement that creates a contact for each of `ids`; its other parameters are lists as well.

    Where there may not be so many, its `body` is null.
    """
    stored = [_CONTACT.c[name] for name in _STORED[1:]]
    lists = (
        bindparam(f"{each.key}s", type_=ARRAY(Text if isinstance(each.type, String) else each.type)) for each in stored
    )
    rows = (
        func.unnest(*lists).table_valued(*(column(each.key, each.type) for each in stored), name="new").render_derived()
    )
    owned = select(bindparam("owner_id", type_=_CONTACT.c.owner_id.type), *rows.c).join_from(_room, rows, true())
    created = insert(Contact).from_select(["owner_id", *(each.key for each in stored)], owned)
    items = created.returning(_CONTACT.c.id, _item(_CONTACT.c).label("item")).cte("created").c
    return select(cast(func.json_agg(aggregate_order_by(items.item, items.id)), Text).label("body"))


CREATE_ALL = _create_all()
LOCK = select(Contact).where(_OWNED, _CONTACT.c.id == bindparam("contact_id")).with_for_update()


@dataclass(frozen=True)
class _Order:
    """The order of a list, and whether it begins where it begins or after the position it is given."""

    keys: list[ColumnElement[Any]]
    is_first: bool
    is_descending: bool = False

    def of(self, columns: Columns) -> list[ColumnElement[Any]]:
        """Return those of `columns` that are called as the keys are."""
        return [columns[str(key.key)] for key in self.keys]

    def by(self, keys: list[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
        return [key.desc() if self.is_descending else key.asc() for key in keys]

    def rest(self, rows: Select[Any]) -> Select[Any]:
        """Return the statement for those of `rows` that the list has yet to show."""
        if self.is_first:
            return rows
        there = tuple_(*(bindparam(f"after_{key.key}", type_=key.type) for key in self.keys))
        return rows.where(tuple_(*self.keys) < there if self.is_descending else tuple_(*self.keys) > there)

    def first(self, rows: Select[Any], count: ColumnElement[int] = _LIMIT) -> Select[Any]:
        """Return the statement for the first `count` of them, in order."""
        return self.rest(rows).order_by(*self.by(self.keys)).limit(count)


def _order_of(sort: Sort, is_first: bool) -> _Order:
    return _Order([_SORT_COLUMNS[sort.lstrip("-")], _CONTACT.c.id], is_first, sort.startswith("-"))


def like(term: str) -> str:
    """Return the LIKE pattern of what contains `term`, which is taken literally."""
    for special in ("\\", "%", "_"):
        term = term.replace(special, f"\\{special}")
    return f"%{term}%"


def _few_words(q: str) -> str:
    if len(q.split()) > MAX_WORDS:
        raise PydanticCustomError("too_many_words", f"Must have at most {MAX_WORDS} words.")
    return q


class ContactFilter(BaseModel):
    """Which contacts: all conditions together, and an empty one as if absent."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[
        SearchTerm,
        Field(max_length=100, description="Up to 5 words, each in a name, the e-mail address or the phone number."),
        AfterValidator(_few_words),
    ] = ""
    first_name: Annotated[SearchTerm, Field(max_length=100, description="A part of the first name.")] = ""
    last_name: Annotated[SearchTerm, Field(max_length=100, description="A part of the last name.")] = ""
    email: Annotated[SearchTerm, Field(max_length=254, description="A part of the e-mail address.")] = ""
    sort: Annotated[
        Sort, Field(description="By last, then first name, or by a time; with a minus, the other way round.")
    ] = "name"

    def terms(self) -> dict[str, str]:
        """Return the folded terms by the names of their parameters."""
        words = {f"word_{n}": word for n, word in enumerate(self.q.split())}
        fields = {name: getattr(self, name) for name in _LINES}
        return {name: folded for name, term in (words | fields).items() if (folded := fold(term))}

    def patterns(self) -> dict[str, str]:
        """Return the parameters of a statement that has these terms."""
        return {name: like(term) for name, term in self.terms().items()}


class ContactQuery(ContactFilter, PageQuery):
    """A page of which contacts."""

    with_total: Annotated[bool, Field(description="Also count all contacts that match.")] = False

    def statement(self, terms: Iterable[str], *, is_first: bool) -> Select[Any]:
        return _page_of_contacts(self.sort, frozenset(terms), is_first, self.with_total)


@cache
def _page_of_contacts(sort: Sort, terms: frozenset[str], is_first: bool, with_total: bool) -> Select[Any]:
    """Return the statement for a page, by the shape of its filters.

    Its row: body (JSON text of the items), has_more, the position of the last item, total.
    """
    order, conditions, rows = _order_of(sort, is_first), _conditions(terms), select(*_LISTED).where(_OWNED)
    if conditions:
        first = _first_of_a_search(and_(*conditions), order)
        found = rows.join(first, first.c.id == _CONTACT.c.id)
    else:
        found = order.first(rows, _LIMIT + 1)
    total = select(func.count()).select_from(_CONTACT).where(_OWNED, *conditions).scalar_subquery()
    return _page(found, order, _item).add_columns((total if with_total else null()).label("total"))


def _first_of_a_search(matches: ColumnElement[bool], order: _Order) -> Subquery:
    """Return the keys of the first contacts that match: `limit` and one more.

    To walk the contacts in their order is best for a word that many have, and takes for ever where those few that
    have it come late (all Hoppers stand together); to fetch all that the trigram index finds is the other way round.
    PostgreSQL guesses, as if matches were spread evenly. So a short walk comes first. It goes on where it promises to
    meet enough; it will do where it has met enough, or the end of the list; and else the index finds them.
    """
    owned = select(*order.keys).where(_OWNED)
    steps = owned.add_columns(matches.label("matches"))
    short = order.first(steps, _SHORT).cte("short")
    met = func.count().filter(short.c.matches)
    # Half of what the longer walk needs to meet.
    promises = select(and_(func.count() == _SHORT, (met * _TEN).between(_LIMIT, _LIMIT * _TEN))).select_from(short)
    further = order.first(steps.where(promises.scalar_subquery()), _LONG - _SHORT).offset(_SHORT).subquery("further")
    walked = union_all(select(short), select(further)).cte("walked")
    is_at_end, is_full = func.count().not_in([_SHORT, _LONG]), func.count().filter(walked.c.matches) > _LIMIT
    verdict = select(or_(is_at_end, is_full).label("will_do")).select_from(walked).cte("verdict")
    will_do = select(verdict.c.will_do).scalar_subquery()
    # With an offset PostgreSQL plans it by itself; knowing of the order and the limit, it would walk again.
    indexed = order.rest(owned.where(matches, not_(will_do))).offset(literal_column("0"))
    both = union_all(
        select(*order.of(walked.c)).where(walked.c.matches, will_do),
        select(indexed.subquery("indexed")),
    ).subquery("both")
    return select(both).order_by(*order.by(order.of(both.c))).limit(_LIMIT + 1).subquery("first")


@cache
def rows_of_contacts(sort: Sort, terms: frozenset[str], is_first: bool) -> Select[Any]:
    """Return the statement for `limit` contacts as rows: UID, the fields, the position of the row."""
    order = _order_of(sort, is_first)
    uid = func.coalesce(_CONTACT.c.uid, cast(_CONTACT.c.id, Text)).label("uid")
    rows = select(uid, *(_CONTACT.c[name] for name in ContactBase.model_fields), *order.keys)
    return order.first(rows.where(_OWNED, *_conditions(terms)))


@cache
def rows_of_birthdays(is_first: bool) -> Select[Any]:
    """Return the statement for `limit` birthdays as rows: id, names, date of birth, time of the last change."""
    names = ("id", "first_name", "last_name", "date_of_birth", "updated_at")
    rows = select(*(_CONTACT.c[name] for name in names)).where(_OWNED, _CONTACT.c.date_of_birth.is_not(None))
    return _Order([_CONTACT.c.id], is_first).first(rows)


# All that changes a calendar changes one of these.
STATE_OF_BIRTHDAYS = select(
    func.count().label("count"),
    func.coalesce(func.sum(_CONTACT.c.version), 0).label("versions"),
    func.max(_CONTACT.c.updated_at).label("updated_at"),
).where(_OWNED, _CONTACT.c.date_of_birth.is_not(None))


def _conditions(terms: Iterable[str]) -> list[ColumnElement[bool]]:
    return [condition for name in sorted(terms) for condition in _containing(name)]


def _containing(name: str) -> Iterator[ColumnElement[bool]]:
    pattern: ColumnElement[str] = bindparam(name, type_=Text)
    # The trigram index serves this one; the next says which line of search_text it must be.
    yield _CONTACT.c.search_text.like(pattern)
    if name in _LINES:
        yield func.split_part(_CONTACT.c.search_text, literal_column(r"E'\n'"), _LINES[name]).like(pattern)


@cache
def page_of_birthdays(is_first: bool) -> Select[Any]:
    """Return the statement for a page of upcoming birthdays.

    Its parameters `keys` and `dates` say which birthday comes when; its row is as that of a page of contacts.
    """
    upcoming = (
        func.unnest(bindparam("keys", type_=ARRAY(SmallInteger)), bindparam("dates", type_=ARRAY(Date)))
        .table_valued(column("key", SmallInteger), column("date", Date), name="upcoming")
        .render_derived()
    )

    def item(columns: Columns) -> ColumnElement[Any]:
        turns = extract("year", columns.date) - extract("year", columns.date_of_birth)
        return _object(
            {
                "contact": _item(columns),
                "birthday_on": columns.date,
                "days_until": columns.date - bindparam("today", type_=Date),
                "turns": cast(turns, SmallInteger),
            }
        )

    order = _Order([upcoming.c.date, _CONTACT.c.sort_name, _CONTACT.c.id], is_first)
    rows = select(*_LISTED, upcoming.c.date).join_from(_CONTACT, upcoming, _CONTACT.c.birthday == upcoming.c.key)
    return _page(order.first(rows.where(_OWNED), _LIMIT + 1), order, item)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "sort_name": str,
    "created_at": datetime.fromisoformat,
    "updated_at": datetime.fromisoformat,
    "date": date.fromisoformat,
    "id": UUID,
}


def after(position: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that make a statement for a page go on after `position`."""
    return {f"after_{name}": parse(position[name]) for name, parse in _PARSERS.items() if name in position}


def position_of(row: Row) -> dict[str, str]:
    """Return the position of the last item of a page."""
    return {name: str(value) for name, value in row.items() if name in _PARSERS}


def _page(rows: Select[Any], order: _Order, item: Callable[[Columns], ColumnElement[Any]]) -> Select[Any]:
    """Return the statement for the page of an `item` each of `rows`, which are `limit` and one that says of more."""
    found = rows.subquery("found")
    numbered = func.row_number().over(order_by=order.by(order.of(found.c))).label("n")
    page = select(found, numbered).subquery("page")
    # PostgreSQL before 18 has no max() of UUIDs.
    last = (cast(key, Text).label("id") if key.key == "id" else key for key in order.of(page.c))
    items = func.json_agg(aggregate_order_by(item(page.c), page.c.n)).filter(page.c.n <= _LIMIT)
    return select(
        func.coalesce(cast(items, Text), literal_column("'[]'")).label("body"),
        (func.count() > _LIMIT).label("has_more"),
        *(func.max(key).filter(page.c.n == _LIMIT).label(key.key) for key in last),
    )
