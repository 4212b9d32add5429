"""Random operations of two users, compared with a model of two dicts: each user sees exactly their own contacts."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from contacts_api.app import create_app
from contacts_api.contacts.collation import sort_form
from contacts_api.contacts.fields import last_date_of_birth
from contacts_api.contacts.models import FIELDS
from contacts_api.features.exchange import csv_file as csv
from contacts_api.features.exchange.reader import ImportedContact, Reading
from contacts_api.settings import Settings
from contacts_api.text import fold
from tests.client import Client, Clock
from tests.conftest import Execute, client_of

NOW = datetime.now(UTC)
TODAY = NOW.date()
SORTS = ["name", "-name", "created_at", "-created_at", "updated_at", "-updated_at"]
FILTERS = ["q", "first_name", "last_name", "email"]

# Few and similar names, so that searches find some of them and sorting meets ties.
NAMES = ["Zoë", "zoe", "ZOE", "Łukasz", "lukasz", "Тарас", "тарас", "Straße", "STRASSE", "İlkay", "ﬁn", "Ølsen"]
NAMES += ["O'Brien", "O’Brien", "Doe", "Jo", "Zo–Zo", "Þóra", "Z\u200boe"]
NAMES += ["100%", "a_b", "a\\b", "a'b", "de la Cruz", " padded ", "e\u0301", "Ὀδυσσεύς", "名前", "🐎"]
EMAILS = ["ada@Example.com", "Ada@example.com", "zoë@bücher.example", "a_b%c@example.org", "100@example.com"]
PHONES = ["+380 44 123-45-67", "(044) 123 45 67", "100", "1-0-0", "+1 (202) 555-0143 ext 7", "12.34.56"]
LABELS = ["Friends", "FRIENDS", "friends", "Work & play", "a/b", "Zoë", "100"]
DETAILS: list[dict[str, Any]] = [
    {"kind": "email", "label": "work", "value": "acme@example.net"},
    {"kind": "phone", "label": None, "value": "+1 202 555 0199"},
    {"kind": "organization", "label": None, "value": "Acme"},
    {"kind": "nickname", "label": None, "value": "Zo-Zo"},
    {"kind": "other", "label": "Shoe size", "value": "obrien"},
]
WORDS = [
    "zoe",
    "ZOË",
    "lukasz",
    "ТАРАС",
    "strasse",
    "example",
    "%",
    "_",
    "\\",
    "100",
    "0441234567",
    "44 123",
    "a",
    "🐎",
]
WORDS += ["obrien", "O’Brien", "Doe, Jo", "555-0199", "(555) 0199", "acme", "zo-zo", "zo\u2010zo"]
WORDS += ["\u0301", "ilkay", "fi", "cruz de", "@", "'", "nobody at all", ""]

names = st.sampled_from(NAMES) | st.text("aeÉß%_ ", min_size=1, max_size=4).filter(str.strip)
# Dates in the next days, around 29 February, and anywhere.
births = (
    st.integers(-3, 0).map(lambda days: TODAY + timedelta(days=days))
    | st.builds(
        lambda years, days: _in_year(TODAY.year - years, TODAY + timedelta(days=days)),
        st.integers(1, 90),
        st.integers(0, 9),
    )
    | st.sampled_from([date(2000, 2, 28), date(2000, 2, 29), date(2000, 3, 1), date(1999, 12, 31), date(1999, 1, 1)])
    | st.dates(date(1900, 1, 1), TODAY)
)
contacts = st.fixed_dictionaries(
    {
        "first_name": names,
        "last_name": st.none() | names,
        "email": st.none() | st.sampled_from(EMAILS),
        "phone_number": st.none() | st.sampled_from(PHONES),
        "date_of_birth": st.none() | births.map(str),
    },
    optional={
        "birthday": st.none() | births.map("{:%m-%d}".format),
        "additional_info": st.none() | st.sampled_from(["", "a\nb", "x" * 2000]),
        "labels": st.none() | st.lists(st.sampled_from(LABELS), max_size=3),
        "details": st.none() | st.lists(st.sampled_from(DETAILS), max_size=3),
    },
)
queries = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FILTERS, st.sampled_from(WORDS)),
        "label": st.lists(st.sampled_from([*LABELS, "Nobody's"]), max_size=2),
    },
)
users = st.sampled_from(["ada", "grace"])
positions = st.integers(0, 30)

Contact = dict[str, Any]


def _in_year(year: int, day: date) -> date:
    try:
        return day.replace(year=year)
    except ValueError:
        return date(year, 2, 28)


class World:
    """The application in its own event loop, with its two users."""

    def __init__(self, execute: Execute) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.execute = execute
        self.clients: dict[str, Client] = {}

    async def _open(self, settings: Settings) -> None:
        # Tokens and birthdays all depend on this one time.
        clock = Clock()
        clock.now = NOW
        app = create_app(settings, clock)
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        for name in "ada", "grace":
            client = await self._stack.enter_async_context(client_of(app))
            self.clients[name] = await client.sign_up(f"{name}@example.com")

    def open(self, settings: Settings) -> None:
        self.run(self._open(settings))

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def request(self, user: str, method: str, path: str, **options: Any) -> httpx.Response:
        response: httpx.Response = self.run(self.clients[user].request(method, path, **options))
        return response

    def pages(self, user: str, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Follow the cursors to the end of a list."""
        cursor: dict[str, str] = {}
        while True:
            response = self.request(user, "GET", path, params={**query, **cursor})
            assert response.status_code == 200, response.text
            page = response.json()
            yield page
            if page["next_cursor"] is None:
                return
            assert len(page["items"]) == query["limit"]
            cursor = {"cursor": page["next_cursor"]}


def stored(sent: Contact) -> Contact:
    """Return the fields as they must be stored."""
    kept = {name: value.strip() if name.endswith("_name") and value else value for name, value in sent.items()}
    if kept.get("email"):
        local_part, _, domain = kept["email"].partition("@")
        kept["email"] = f"{local_part}@{domain.lower()}"
    if "labels" in kept:
        labels = kept["labels"] or []
        earlier = [[each.lower() for each in labels[:n]] for n in range(len(labels))]
        kept["labels"] = [label for label, before in zip(labels, earlier, strict=True) if label.lower() not in before]
    if "details" in kept:
        kept["details"] = kept["details"] or []
    return kept


def whole(sent: Contact, before: Contact | None = None) -> Contact:
    """Return all fields of a contact that was created or changed."""
    contact = {"birthday": None, "additional_info": None, "labels": [], "details": [], **(before or {}), **stored(sent)}
    if contact["date_of_birth"]:
        contact["birthday"] = contact["date_of_birth"][5:]
    return contact


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def by_name(contact: Contact) -> tuple[str, str, str]:
    return sort_form(contact["last_name"] or ""), sort_form(contact["first_name"]), contact["id"]


def sort_key(sort: str) -> Callable[[Contact], tuple[str, ...]]:
    field = sort.lstrip("-")
    return by_name if field == "name" else lambda contact: (contact[field], contact["id"])


def values_of(contact: Contact, *kinds: str) -> list[str]:
    return [detail["value"] for detail in contact["details"] if detail["kind"] in kinds]


def is_found(contact: Contact, query: dict[str, Any]) -> bool:
    numbers = [contact["phone_number"] or "", *values_of(contact, "phone")]
    emails = [contact["email"] or "", *values_of(contact, "email")]
    names = [contact["first_name"], contact["last_name"] or ""]
    others = values_of(contact, "nickname", "organization", "title", "relation", "address")
    others.append(contact["additional_info"] or "")
    texts = [fold(text) for text in (*names, *numbers, *emails, *others)]
    texts += [digits_of(number) for number in numbers]
    q = query.get("q", "")
    words = [q] if re.fullmatch("[-0-9 ()+.]*[0-9]{3}[-0-9 ()+.]*", q) else q.replace(",", " ").split()

    def occurs(word: str) -> bool:
        is_number = re.fullmatch("[-0-9 ()+.]+", word) and len(digits_of(word)) >= 3
        digits = digits_of(word)
        if len(digits.lstrip("0")) >= 7:
            digits = digits.lstrip("0")[-9:]
        return any(fold(word) in text or (is_number and digits in text) for text in texts)

    labels = {label.lower() for label in contact["labels"]}
    return (
        all(map(occurs, words))
        and all(label.lower() in labels for label in query.get("label", ()))
        and fold(query.get("first_name", "").strip()) in fold(names[0])
        and fold(query.get("last_name", "").strip()) in fold(names[1])
        and any(fold(query.get("email", "").strip()) in fold(email) for email in emails)
    )


def digits_of(text: str) -> str:
    return re.sub("[^0-9]", "", text)


def next_birthday(contact: Contact) -> date:
    born = date.fromisoformat(f"2000-{contact['birthday']}")
    this_year, next_year = (_in_year(year, born) for year in (TODAY.year, TODAY.year + 1))
    return this_year if this_year >= TODAY else next_year


class TwoUsers(RuleBasedStateMachine):
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.execute("DELETE FROM contact")
        self.books: dict[str, dict[str, Contact]] = {"ada": {}, "grace": {}}

    def _pick(self, user: str, position: int) -> str:
        """Return the id of one of the user's contacts, or an unused id if there are none."""
        ids = list(self.books[user])
        return ids[position % len(ids)] if ids else str(uuid4())

    def _keep(self, user: str, response: httpx.Response, expected: Contact) -> None:
        answer = response.json()
        assert {name: answer[name] for name in expected} == expected
        self.books[user][answer["id"]] = answer

    @rule(user=users, sent=contacts)
    def create(self, user: str, sent: Contact) -> None:
        response = self.world.request(user, "POST", "/contacts", json=sent)

        assert response.status_code == 201, response.text
        self._keep(user, response, whole(sent))

    @rule(user=users, position=positions, sent=contacts)
    def replace(self, user: str, position: int, sent: Contact) -> None:
        contact_id = self._pick(user, position)

        response = self.world.request(user, "PUT", f"/contacts/{contact_id}", json=sent)

        if contact_id in self.books[user]:
            self._keep(user, response, {"id": contact_id, **whole(sent)})
        else:
            assert response.status_code == 404

    @rule(
        user=users,
        position=positions,
        sent=contacts,
        names=st.sets(st.sampled_from(["first_name", "email", "date_of_birth", "birthday", "labels", "details"])),
    )
    def patch(self, user: str, position: int, sent: Contact, names: set[str]) -> None:
        contact_id = self._pick(user, position)
        changes = {name: sent[name] for name in names if name in sent}

        response = self.world.request(user, "PATCH", f"/contacts/{contact_id}", json=changes)

        if contact_id in self.books[user]:
            before = self.books[user][contact_id]
            expected = whole(changes, before)
            if changes:
                del expected["updated_at"]
            self._keep(user, response, expected)
        else:
            assert response.status_code == 404

    @rule(user=users, position=positions)
    def delete(self, user: str, position: int) -> None:
        contact_id = self._pick(user, position)

        response = self.world.request(user, "DELETE", f"/contacts/{contact_id}")

        assert response.status_code == (204 if self.books[user].pop(contact_id, None) else 404)

    @rule(user=users, whose=users, position=positions)
    def get(self, user: str, whose: str, position: int) -> None:
        contact_id = self._pick(whose, position)

        response = self.world.request(user, "GET", f"/contacts/{contact_id}")

        if contact_id in self.books[user]:
            assert response.json() == self.books[user][contact_id]
        else:
            assert response.status_code == 404

    @rule(
        intruder=users,
        position=positions,
        method=st.sampled_from(["PUT", "PATCH", "DELETE"]),
        sent=contacts,
    )
    def touch_anothers(self, intruder: str, position: int, method: str, sent: Contact) -> None:
        theirs = self._pick("grace" if intruder == "ada" else "ada", position)

        response = self.world.request(
            intruder, method, f"/contacts/{theirs}", json=None if method == "DELETE" else sent
        )

        assert response.status_code == 404

    @rule(
        user=users,
        sort=st.sampled_from(SORTS),
        query=queries,
        limit=st.integers(1, 4) | st.just(500),
        counts=st.booleans(),
    )
    def list(self, user: str, sort: str, query: dict[str, Any], limit: int, counts: bool) -> None:
        own = sorted(self.books[user].values(), key=sort_key(sort), reverse=sort.startswith("-"))
        expected = [contact for contact in own if is_found(contact, query)]

        options = {**query, "sort": sort, "limit": limit, "with_total": str(counts).lower()}
        pages = [*self.world.pages(user, "/contacts", options)]

        assert [contact for page in pages for contact in page["items"]] == expected
        assert {page["total"] for page in pages} == {len(expected) if counts else None}

    @rule(user=users, sort=st.sampled_from(SORTS), query=queries)
    def export(self, user: str, sort: str, query: dict[str, Any]) -> None:
        own = sorted(self.books[user].values(), key=sort_key(sort), reverse=sort.startswith("-"))
        expected = [{name: contact[name] for name in FIELDS} for contact in own if is_found(contact, query)]

        response = self.world.request(user, "GET", "/contacts/export.csv", params={**query, "sort": sort})

        rows = [*csv.parse([response.content], Reading(last_date_of_birth(datetime.now(UTC))), {})]
        exported = [row.fields for row in rows if isinstance(row, ImportedContact)]
        assert [{**fields, "date_of_birth": _text(fields["date_of_birth"])} for fields in exported] == expected

    @rule(user=users)
    def list_labels(self, user: str) -> None:
        counts: dict[str, int] = {}
        for contact in self.books[user].values():
            for label in contact["labels"]:
                counts[label.lower()] = counts.get(label.lower(), 0) + 1

        listed = self.world.request(user, "GET", "/contacts/labels").json()["items"]

        assert {each["label"].lower(): each["contacts"] for each in listed} == counts
        assert [each["label"] for each in listed] == sorted((each["label"] for each in listed), key=fold)

    @rule(user=users, label=st.sampled_from(LABELS), new=st.none() | st.sampled_from(LABELS))
    def relabel(self, user: str, label: str, new: str | None) -> None:
        path, before = f"/contacts/labels/{quote(label, safe='')}", self.books[user]
        labelled = [each for each in before.values() if label.lower() in map(str.lower, each["labels"])]

        if new is None:
            response = self.world.request(user, "DELETE", path)
        else:
            response = self.world.request(user, "PATCH", path, json={"label": new})

        changed = 0
        for contact in labelled:
            replaced = [new if old.lower() == label.lower() else old for old in contact["labels"]]
            expected = stored({"labels": [each for each in replaced if each is not None]})["labels"]
            changed += expected != contact["labels"]
            answer = self.world.request(user, "GET", f"/contacts/{contact['id']}")
            self._keep(user, answer, {"labels": expected, "details": contact["details"]})
        assert (response.status_code, response.json().get("contacts")) == ((200, changed) if labelled else (404, None))

    @rule(user=users, days=st.sampled_from([0, 1, 7, 40, 364, 365]), limit=st.integers(1, 4) | st.just(500))
    def list_birthdays(self, user: str, days: int, limit: int) -> None:
        last_day = TODAY + timedelta(days=days)
        born = [contact for contact in self.books[user].values() if contact["birthday"]]
        celebrating = [contact for contact in born if next_birthday(contact) <= last_day]
        expected = [
            {
                "contact": contact,
                "birthday_on": str(next_birthday(contact)),
                "days_until": (next_birthday(contact) - TODAY).days,
                "turns": next_birthday(contact).year - int(contact["date_of_birth"][:4])
                if contact["date_of_birth"]
                else None,
            }
            for contact in sorted(celebrating, key=lambda contact: (next_birthday(contact), by_name(contact)))
        ]

        pages = self.world.pages(user, "/contacts/birthdays", {"days": days, "limit": limit, "tz": "UTC"})

        assert [item for page in pages for item in page["items"]] == expected

    def teardown(self) -> None:
        for user in self.books:
            self.list(user, "name", {}, 500, True)


@pytest.fixture
def world(make_settings: Callable[..., Settings], execute: Execute) -> Iterator[World]:
    world = World(execute)
    world.open(make_settings())
    yield world
    world.close()


def test_two_users_see_exactly_their_own_contacts(world: World) -> None:
    class Machine(TwoUsers):
        pass

    Machine.world = world

    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=30, stateful_step_count=30, derandomize=True, database=None),
    )
