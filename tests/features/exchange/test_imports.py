"""Imports over HTTP: the contacts, the report, and that a failed import leaves nothing behind."""

import asyncio
import itertools
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import psutil
import psycopg2
import pytest
from fastapi import FastAPI
from starlette.types import Message

from contacts_api.app import create_app
from contacts_api.contacts.models import AN_EXAMPLE, FIELDS, ContactCreate, columns_of
from contacts_api.database.engine import copy_into
from contacts_api.features.exchange import budget, imports
from contacts_api.settings import Settings
from tests.client import A_CONTACT, A_PASSWORD, Client, Clock
from tests.conftest import Execute, client_of
from tests.features.exchange.contacts import SAMPLES
from tests.safety.document import BOUNDARY, as_file

CSV = "first_name,last_name,email,phone_number,date_of_birth,additional_info\r\n"
ADA = "Ada,Lovelace,ada@example.com,+44 20 7946 0001,1815-12-10,\r\n".replace("1815", "1915")
GRACE = "Grace,Hopper,grace@example.com,+1 202 555 0143,1906-12-09,Found the first bug.\r\n"


async def post(client: Client, content: str | bytes, **query: Any) -> httpx.Response:
    return await client.post("/contacts/import", files={"file": ("file", content)}, params=query)


async def report(client: Client, content: str | bytes, **query: Any) -> dict[str, Any]:
    response = await post(client, content, **query)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def counts(client: Client, content: str | bytes, **query: Any) -> tuple[int, ...]:
    numbers = await report(client, content, **query)
    return tuple(numbers[name] for name in ("created", "updated", "skipped", "failed"))


def card(**properties: str) -> str:
    lines = "".join(f"{name}:{value}\r\n" for name, value in properties.items())
    return f"BEGIN:VCARD\r\nVERSION:3.0\r\n{lines}END:VCARD\r\n"


@pytest.mark.parametrize(
    ("sample", "format_", "first_names"),
    [
        ("google.csv", "csv", ["Analytical Engines Ltd", "Grace Brewster", "Łuki"]),
        ("google-2014.csv", "csv", None),
        ("outlook.csv", "csv", None),
        ("outlook-classic.csv", "csv", None),
        ("google.vcf", "vcard", None),
        ("icloud.vcf", "vcard", None),
        ("android.vcf", "vcard", None),
        ("outlook.vcf", "vcard", None),
        ("nextcloud.vcf", "vcard", None),
    ],
)
async def test_a_file_of_another_application_is_imported_once(
    ada: Client, grace: Client, sample: str, format_: str, first_names: list[str] | None
) -> None:
    file = (SAMPLES / sample).read_bytes()
    dry = await report(ada, file, dry_run=True)
    nothing = await ada.list_contacts()
    first = await report(ada, file)
    second = await report(ada, file)
    third = await report(ada, file, on_duplicate="update")

    assert nothing == await grace.list_contacts() == []
    assert dry == {**first, "dry_run": True}
    assert (first["format"], first["failed"], first["errors"]) == (format_, 0, [])
    assert first["created"] == second["skipped"] == third["skipped"] == len(await ada.list_contacts()) > 0
    assert (second["created"], third["created"], third["updated"]) == (0, 0, 0)


async def test_what_is_imported_is_found_and_sorted_as_what_is_created(ada: Client) -> None:
    await report(ada, CSV + "Żaneta,Łoś,zaneta@example.com,+48 22 123-45-67,1990-02-28,\r\n" + GRACE)

    assert await ada.first_names(sort="name") == ["Grace", "Żaneta"]
    assert await ada.first_names(q="los 48221234567") == ["Żaneta"]
    (found,) = await ada.list_contacts(first_name="grace")
    assert {name: found[name] for name in A_CONTACT} == {
        **A_CONTACT,
        "phone_number": "+1 202 555 0143",
        "additional_info": "Found the first bug.",
    }
    assert len((await ada.get("/contacts/birthdays?days=365")).json()["items"]) == 2


async def test_a_bad_row_is_named_and_loses_no_good_one(ada: Client) -> None:
    file = CSV + ADA + "Bob,,bob,x,2999-01-01,\r\n" + GRACE + ',,,,,"a note, and no name"\r\n'

    dry, real = await report(ada, file, dry_run=True), await report(ada, file)

    assert {**dry, "dry_run": False} == real
    assert (real["created"], real["failed"]) == (3, 1)
    assert [(each["row"], each["line"], each["field"], each["code"]) for each in real["errors"]] == [
        (5, 5, "first_name", "missing")
    ]
    assert [(each["row"], each["line"], each["field"], each["code"]) for each in real["warnings"]] == [
        (3, 3, "email", "moved_to_details"),
        (3, 3, "phone_number", "moved_to_details"),
        (3, 3, "date_of_birth", "moved_to_details"),
    ]
    assert "bob" not in str(real).lower()
    (bob,) = await ada.list_contacts(first_name="bob")
    assert [detail["value"] for detail in bob["details"]] == ["bob", "x", "2999-01-01"]


async def test_warnings_come_in_the_order_of_their_rows(ada: Client) -> None:
    numbers = await report(ada, "First Name,Email,Birthday\nAda,x,1990-04-12\nGrace,,3/4/1990\nBob,y,\n")

    codes = [(each["row"], each["code"]) for each in numbers["warnings"]]
    assert codes == [(2, "moved_to_details"), (3, "ambiguous_date"), (4, "moved_to_details")]


async def test_of_many_rows_a_thousand_are_named_and_all_counted(ada: Client) -> None:
    file = CSV + ",,,,,nobody\r\n" * 1500 + "Bob,,bob,,,\r\n" * 1500 + GRACE

    numbers = await report(ada, file)

    assert (numbers["created"], numbers["failed"], numbers["skipped"]) == (2, 1500, 1499)
    assert [len(numbers[name]) for name in ("errors", "warnings", "skips")] == [1000] * 3
    assert [skip["row"] for skip in numbers["skips"][:2]] == [1503, 1504]


async def test_a_duplicate_is_skipped_updated_or_created(ada: Client) -> None:
    await counts(ada, CSV + ADA + GRACE)
    before = {contact["first_name"]: contact for contact in await ada.list_contacts()}
    changed = CSV + "GRACE,hopper,Grace@Example.com,,,Rear admiral\r\nAlan,Turing,,+44 161 496 0000,,\r\n"

    skipped = await counts(ada, changed, dry_run=True)
    updated = await counts(ada, changed, on_duplicate="update")
    after = {contact["first_name"]: contact for contact in await ada.list_contacts()}
    created = await counts(ada, changed, on_duplicate="create")

    assert (skipped, updated, created) == ((1, 0, 1, 0), (1, 1, 0, 0), (2, 0, 0, 0))
    # Fields that are empty in the file do not change.
    assert after["GRACE"] == {
        **before["Grace"],
        **{name: after["GRACE"][name] for name in ("first_name", "last_name", "email", "updated_at")},
        "additional_info": "Rear admiral",
    }
    assert after["GRACE"]["updated_at"] > before["Grace"]["updated_at"]
    assert after["Ada"] == before["Ada"]
    assert len(await ada.list_contacts()) == 5
    assert await ada.first_names(q="12025550143 admiral") == ["GRACE"]


async def test_contacts_without_an_address_are_the_same_by_name_and_number(ada: Client) -> None:
    await counts(ada, card(N="Łoś;Zoë", TEL="+48 600 000 001"))

    assert await counts(ada, card(N="LOS;ZOE", TEL="(+48) 600-000001")) == (0, 0, 1, 0)
    assert await counts(ada, card(N="Los;Zoe", TEL="+48 600-000-002")) == (1, 0, 0, 0)


async def test_a_row_with_an_address_is_not_a_contact_that_has_only_a_number(ada: Client) -> None:
    number, address = {"TEL": "+1 202 555 0111"}, {"EMAIL": "ann@example.com"}

    first = await counts(ada, card(N="Lee;Ann", **number) + card(N="Lee;Ann", **number, **address))
    again = await counts(ada, card(N="Lee;Ann", **number) + card(N="LEE;ANN", EMAIL="ANN@example.com"))

    assert first == (2, 0, 0, 0)
    assert again == (0, 0, 2, 0)


async def test_a_vcard_is_known_by_its_uid_and_by_nothing_of_another_owner(ada: Client, grace: Client) -> None:
    await counts(ada, card(UID="u-1", N="Lovelace;Ada", EMAIL="ada@example.com"))
    moved = card(UID="urn:uuid:u-1", N="King;Ada", EMAIL="countess@example.com")

    assert await counts(grace, moved, dry_run=True) == (1, 0, 0, 0)
    assert await counts(ada, moved) == (0, 0, 1, 0)
    assert await counts(ada, moved, on_duplicate="update") == (0, 1, 0, 0)
    assert await counts(ada, moved, on_duplicate="update") == (0, 0, 1, 0)
    (contact,) = await ada.list_contacts()
    assert (contact["last_name"], contact["email"]) == ("King", "countess@example.com")
    assert await ada.first_names(q="king", sort="name") == ["Ada"]


@pytest.mark.parametrize("name", ["contacts.csv", "contacts.vcf"])
async def test_the_samples_of_the_docs_page_import_whole(ada: Client, client: Client, name: str) -> None:
    description = (await client.get("/openapi.json")).json()["paths"]["/contacts/import"]["post"]["description"]
    sample = await client.get(f"/assets/{name}")

    imported = await report(ada, sample.content)

    assert f"(assets/{name})" in description
    assert "| first name, given name" in description
    assert {**imported, "format": "any"} == {
        "format": "any",
        "dry_run": False,
        "date_order": None,
        "created": 3,
        "updated": 0,
        "skipped": 0,
        "failed": 0,
        "not_kept": {},
        "errors": [],
        "warnings": [],
        "skips": [],
    }


@pytest.mark.parametrize("kind", ["csv", "vcf"])
@pytest.mark.parametrize("on_duplicate", ["skip", "update"])
async def test_what_was_exported_changes_nothing_where_it_came_from(ada: Client, kind: str, on_duplicate: str) -> None:
    twin = {"first_name": "Ann", "last_name": "Lee", "email": "ann@example.com"}
    await ada.create_contact(**twin, phone_number="+1 202 555 0111", additional_info="home")
    await ada.create_contact(**twin, phone_number="+1 202 555 0222", additional_info="work")
    await ada.create_contact()
    before = await ada.list_contacts()
    exported = await ada.get(f"/contacts/export.{kind}")

    assert await counts(ada, exported.content, on_duplicate=on_duplicate) == (0, 0, 3, 0)
    assert await ada.list_contacts() == before


async def test_a_copy_is_a_contact_of_its_own(ada: Client, grace: Client) -> None:
    ann = card(UID="u-1", N="Lee;Ann", EMAIL="ann@example.com")
    await counts(ada, ann + ann, on_duplicate="create")
    await counts(ada, (await ada.get("/contacts/export.vcf")).content, on_duplicate="create")
    last = (await ada.list_contacts())[-1]
    await ada.patch(f"/contacts/{last['id']}", json={"first_name": "Ben", "email": "ben@example.com"})
    exported = (await ada.get("/contacts/export.vcf")).text
    await counts(grace, exported)

    assert exported.count("UID:u-1\r\n") == 1
    assert await ada.first_names() == ["Ann", "Ann", "Ann", "Ben"]
    assert await grace.first_names() == ["Ann", "Ben"]
    assert await counts(ada, exported, on_duplicate="update") == (0, 0, 4, 0)


async def test_a_contact_is_known_by_its_id_when_it_has_a_uid_too(ada: Client) -> None:
    typed = await ada.create_contact(first_name="Ann", last_name="Lee", email="ann@example.com")
    await counts(ada, card(UID="phone-1", N="Lee;Ann", EMAIL="ann@example.com"), on_duplicate="update")

    for uid in (typed["id"], f"urn:UUID:{typed['id'].upper()}", "phone-1"):
        assert await counts(ada, card(UID=uid, N="King;Ann")) == (0, 0, 1, 0)


async def test_contacts_without_address_and_number_are_the_same_by_name_and_date_of_birth(ada: Client) -> None:
    await counts(ada, card(N="Lee;Ann", BDAY="1990-12-09"))

    assert await counts(ada, card(N="LEE;ANN", BDAY="19901209")) == (0, 0, 1, 0)
    assert await counts(ada, card(N="Lee;Ann", BDAY="1990-12-10")) == (1, 0, 0, 0)
    assert await counts(ada, card(N="Lee;Ann", TEL="+1 202 555 0112", BDAY="1990-12-09")) == (1, 0, 0, 0)


async def test_two_of_one_name_who_share_nothing_are_two_people(ada: Client) -> None:
    mums = card(N=";Mum", NOTE="Ann's mother") + card(N=";Mum", NOTE="Bob's mother")

    assert await counts(ada, mums) == (2, 0, 0, 0)
    assert await counts(ada, mums, on_duplicate="update") == (0, 0, 2, 0)
    assert await counts(ada, card(N=";Mum")) == (1, 0, 0, 0)


async def test_a_skipped_row_is_named_with_the_contact_that_it_is(ada: Client) -> None:
    header = "First Name,Last Name,Email,Phone\n"
    await counts(ada, header + "Jo,Doe,jo@example.com,+12025550101\nAnn,Lee,ann@example.com,\n")
    file = header + 'Jo,Doe,jo@example.com,+12025550199\nAnn,Lee,ann@example.com,\nAl,"La\nne",al@example.com,\n'

    dry, real = await report(ada, file + "Al,La ne,al@example.com,", dry_run=True), await report(ada, file)

    ids = {contact["first_name"]: contact["id"] for contact in await ada.list_contacts()}
    assert real["skips"] == [
        {"row": 2, "line": 2, "contact_id": ids["Jo"], "detail": "You have this contact, and it says something else."},
        {"row": 3, "line": 3, "contact_id": ids["Ann"], "detail": "You have this contact, and it says the same."},
    ]
    # A contact that a dry run would create has no id.
    assert dry["skips"][-1] == {
        "row": 5,
        "line": 6,
        "contact_id": None,
        "detail": "An earlier row is this contact, and it says the same.",
    }


async def test_an_update_adds_what_a_file_says_and_names_what_it_skips(ada: Client) -> None:
    ann = {"N": "Lee;Ann", "EMAIL": "ann@example.com"}
    await counts(
        ada, card(**ann, BDAY="--1209", CATEGORIES="Friends", TITLE="Lead") + card(N="Lee;Bob", TEL="555 0101")
    )
    before = {contact["first_name"]: contact for contact in await ada.list_contacts()}

    said = card(**ann, CATEGORIES="friends,Work", TITLE="Lead", ORG="Acme") + card(N="Lee;Bob", TEL="555 0101")
    updated = await report(ada, said, on_duplicate="update")
    (after,) = await ada.list_contacts(label="WORK")

    assert (updated["updated"], [skip["contact_id"] for skip in updated["skips"]]) == (1, [before["Bob"]["id"]])
    assert after == {
        **before["Ann"],
        "labels": ["Friends", "Work"],
        "details": [*before["Ann"]["details"], {"kind": "organization", "label": None, "value": "Acme"}],
        "updated_at": after["updated_at"],
    }
    assert after["updated_at"] > before["Ann"]["updated_at"]


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("first_name", "labels")])
def test_each_field_tells_two_people_apart_who_have_the_rest_in_common(name: str) -> None:
    ann = {"first_name": "Ann", "last_name": None, "email": None, "phone_number": None, "date_of_birth": None}
    other = {**ann, name: AN_EXAMPLE[name]}

    ann_identity, other_identity = (columns_of(ContactCreate(**each).model_dump())["identity"] for each in (ann, other))

    assert ann_identity != other_identity


async def test_an_update_counts_what_the_contact_has_no_room_for(ada: Client) -> None:
    labels = ",".join(f"L{n}" for n in range(50))
    await counts(ada, card(N="Lee;Ann", EMAIL="ann@example.com", CATEGORIES=labels))

    full = await report(
        ada, card(N="Lee;Ann", EMAIL="ann@example.com", CATEGORIES="One more,L0", TITLE="Lead"), on_duplicate="update"
    )
    same = await report(ada, card(N="Lee;Ann", EMAIL="ann@example.com", CATEGORIES="One more"), on_duplicate="update")

    assert (full["updated"], full["not_kept"]) == (1, {"labels": 1})
    assert (same["skipped"], same["not_kept"]) == (1, {"labels": 1})
    assert same["skips"][0]["detail"] == "You have this contact, and it says something else."
    (ann,) = await ada.list_contacts()
    assert (len(ann["labels"]), [detail["value"] for detail in ann["details"]]) == (50, ["Lead"])


async def test_details_that_are_there_take_no_room_of_a_new_one(ada: Client) -> None:
    many = "".join(f"X-NOTE-{n}:{'x' * 900}\r\n" for n in range(40))
    before = card(N="Lee;Ann", EMAIL="ann@example.com").replace("END", f"{many}END")
    await counts(ada, before)

    updated = await report(ada, before.replace("END", "ORG:Acme\r\nEND"), on_duplicate="update")

    assert (updated["updated"], updated["not_kept"]) == (1, {})
    (ann,) = await ada.list_contacts(q="acme")
    assert len(ann["details"]) == 41


async def test_every_contact_that_is_created_or_updated_gets_the_label(ada: Client) -> None:
    await counts(ada, CSV + ADA)

    skipped = await report(ada, CSV + ADA + GRACE, label="  From the old phone ")
    listed = await ada.first_names(label="from the OLD phone")
    updated = await report(ada, CSV + ADA + GRACE, label="From the old phone", on_duplicate="update")

    assert (skipped["created"], skipped["skipped"], listed) == (1, 1, ["Grace"])
    assert (updated["updated"], updated["skipped"]) == (1, 1)
    assert len(await ada.list_contacts(label="From the old phone")) == 2


@pytest.mark.parametrize("is_stored", [False, True])
async def test_of_a_contact_that_a_file_has_twice_an_update_takes_all_that_it_says(
    ada: Client, is_stored: bool
) -> None:
    rows = "Ann,Lee,ann@example.com,+1 202 555 0111,1990-12-09,Old\r\nAnn,LEE,ann@example.com,,,New\r\n"
    if is_stored:
        await counts(ada, CSV + "Ann,Lee,ann@example.com,,,\r\n")

    expected = (0, 1, 1, 0) if is_stored else (1, 0, 1, 0)
    assert await counts(ada, CSV + rows, on_duplicate="update") == expected
    (ann,) = await ada.list_contacts(q="12025550111 lee")
    assert (ann["last_name"], ann["date_of_birth"], ann["additional_info"]) == ("LEE", "1990-12-09", "New")


async def test_an_update_of_more_contacts_than_a_batch_changes_each(
    ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "BATCH_ROWS", 7)
    rows = [f"First {n},Last,c{n}@example.com,,,{{}}\r\n" for n in range(3000)]
    await counts(ada, CSV + "".join(row.format("old") for row in rows))

    report = await counts(ada, CSV + "".join(row.format("new") for row in rows), on_duplicate="update")

    assert report == (0, 3000, 0, 0)
    assert {contact["additional_info"] for contact in await ada.list_contacts(limit=500)} == {"new"}
    assert (await ada.get("/contacts?with_total=true&limit=1")).json()["total"] == 3000


async def test_a_contact_that_was_typed_in_is_known_by_its_id(ada: Client) -> None:
    contact = await ada.create_contact()

    assert await counts(ada, card(UID=contact["id"], N="Murray;Grace"), on_duplicate="update") == (0, 1, 0, 0)
    assert [each["last_name"] for each in await ada.list_contacts()] == ["Murray"]


@pytest.mark.parametrize(("on_duplicate", "taken"), [("skip", {"1", "2", "5"}), ("update", {"3", "4", "7"})])
async def test_a_file_with_a_contact_in_several_cards_makes_one_of_them(
    ada: Client, on_duplicate: str, taken: set[str]
) -> None:
    cards = (
        card(UID="a", N="A;A", EMAIL="a@example.com", NOTE="1")
        + card(UID="b", N="B;B", EMAIL="b@example.com", NOTE="2")
        # Matches the first card by UID, and the second by identity.
        + card(UID="a", N="B;B", EMAIL="b@example.com", NOTE="3")
        + card(UID="b", N="C;C", EMAIL="c@example.com", NOTE="4")
        + card(N="D;D", EMAIL="d@example.com", NOTE="5")
        + card(UID="d", N="D;D", EMAIL="d@example.com", NOTE="6")
        # Matches the card before by UID, which matches the one before that by identity.
        + card(UID="d", N="E;E", NOTE="7")
    )

    assert await counts(ada, cards, on_duplicate=on_duplicate) == (3, 0, 4, 0)
    assert {contact["additional_info"] for contact in await ada.list_contacts()} == taken
    assert await counts(ada, cards, on_duplicate="create") == (7, 0, 0, 0)


def zipped() -> bytes:
    return b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + b"\x00\xff" * 1_000_000


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf \r\n", "empty_file"),
        ((CSV + GRACE).encode("utf-16")[:-1], "not_utf8"),
        ((CSV + "Zoë,,,,,\r\n").encode("latin-1"), "not_utf8"),
        (b"What a file!\r\n", "unknown_format"),
        (b"%PDF-1.4\n", "unknown_format"),
        (zipped(), "unknown_format"),
        (b"a" * 3_000_000, "unknown_format"),
        (b"," * 3_000_000 + b"\r\n", "unknown_format"),
        ((CSV + GRACE * 2000 + 'Zoë,"a cell that goes on').encode(), "cut_off"),
        ((card(N="A;A") * 3000)[:-20].encode(), "cut_off"),
        (b"BEGIN:VCARD\r\n" * 10_000, "cut_off"),
    ],
    ids=range(12),
)
async def test_of_a_file_that_is_none_nothing_is_imported(ada: Client, content: bytes, code: str) -> None:
    response = await post(ada, content)

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, code), problem
    assert problem["errors"] == [{"loc": ["body", "file"], "code": code, "detail": problem["detail"]}]
    assert await ada.list_contacts() == []


async def test_a_form_without_the_file_or_with_more_is_refused(ada: Client) -> None:
    file = ("file", CSV + GRACE)
    none = await ada.post("/contacts/import", files={"fil": file})
    two = await ada.post("/contacts/import", files=[("file", file), ("file", file)])
    more = await ada.post("/contacts/import", files={"file": file}, data={"dry_run": "true"})
    rubbish = await ada.post(
        "/contacts/import", content=b"rubbish", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    raw = await ada.post("/contacts/import", content=CSV + GRACE, headers={"Content-Type": "text/csv"})

    assert [response.status_code for response in (none, two, more, rubbish)] == [422] * 4
    assert [answer.json()["errors"][0]["loc"] for answer in (none, two, more)] == [
        ["body", "file"],
        ["body"],
        ["body", "dry_run"],
    ]
    assert (raw.status_code, "multipart/form-data" in raw.json()["detail"]) == (415, True)
    assert await ada.list_contacts() == []


async def test_an_import_is_for_who_signed_in(client: Client) -> None:
    response = await post(client, CSV + GRACE)

    assert response.status_code == 401


async def test_of_who_did_not_sign_in_no_file_is_read(app: FastAPI) -> None:
    read: list[int] = []
    answered: list[int | None] = []

    async def receive() -> Message:
        read.append(1)
        return {"type": "http.request", "body": b" " * 65_536, "more_body": True}

    async def send(message: Message) -> None:
        answered.append(message.get("status"))

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"authorization", b"Bearer expired")]
    scope = {"type": "http", "method": "POST", "path": "/contacts/import", "query_string": b"", "headers": headers}
    await app({**scope, "raw_path": b"/contacts/import"}, receive, send)

    assert (answered[0], read) == (401, [])


async def test_the_password_changes_while_an_import_runs(ada: Client, database_url: str) -> None:
    # The foreign keys of an unfinished import take this lock.
    with closing(psycopg2.connect(database_url)) as importing:
        importing.cursor().execute('SELECT FROM "user" FOR KEY SHARE')

        response = await ada.patch("/users/me", json={"current_password": A_PASSWORD, "password": "another password"})

    assert response.status_code == 200


async def test_limits_are_settings(make_settings: Callable[..., Settings], execute: Execute) -> None:
    app = create_app(make_settings(import_max_bytes=100_000, import_max_rows=100), clock=Clock())
    async with app.router.lifespan_context(app), client_of(app) as client:
        ada = await client.sign_up("ada@example.com")

        full = await counts(ada, CSV + "Ada,,,,,\r\n" * 99 + ",,x,,,\r\n", on_duplicate="create")
        too_many = await post(ada, CSV + GRACE * 101)
        too_large = await post(ada, CSV + "a" * 100_000)

        assert full == (99, 0, 0, 1)
        assert (too_many.status_code, too_many.json()["code"]) == (422, "too_many_rows")
        assert "100 rows" in too_many.json()["detail"]
        assert (too_large.status_code, "100,000" in too_large.json()["detail"]) == (413, True)
        assert execute("SELECT count(*) FROM contact") == [(99,)]


async def test_one_import_of_an_owner_runs_at_a_time(ada: Client, grace: Client, database_url: str) -> None:
    user_id = (await ada.get("/users/me")).json()["id"]
    with closing(psycopg2.connect(database_url)) as importing:
        importing.cursor().execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('import ' || %s::uuid, 0))", [user_id]
        )
        refused, other = await post(ada, CSV + GRACE), await post(grace, CSV + GRACE)
        # Release the lock now. After close(), the server would release it only when it notices.
        importing.rollback()
    after = await post(ada, CSV + GRACE)

    assert (refused.status_code, refused.json()["code"]) == (409, "import_running")
    assert (other.status_code, after.status_code) == (200, 200)


async def test_an_account_has_one_import_at_a_time_its_upload_included(
    ada: Client, grace: Client, execute: Execute
) -> None:
    head, tail = as_file(CSV.encode() + GRACE.encode())[:-20], as_file(CSV.encode() + GRACE.encode())[-20:]
    is_under_way, may_end = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield head
        is_under_way.set()
        await may_end.wait()
        yield tail

    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    uploading = asyncio.create_task(ada.post("/contacts/import", content=body(), headers=headers))
    async with asyncio.timeout(10):
        await is_under_way.wait()
    refused, others = await post(ada, CSV + GRACE), await post(grace, CSV + GRACE)
    may_end.set()
    uploaded, after = await uploading, await post(ada, CSV + GRACE)

    assert (refused.status_code, refused.json()["code"]) == (409, "import_running")
    assert [answer.status_code for answer in (others, uploaded, after)] == [200, 200, 200]
    assert execute("SELECT count(*) FROM running_import") == [(0,)]


async def test_the_import_of_a_worker_that_died_keeps_nobody_from_the_next(ada: Client, execute: Execute) -> None:
    dead = "INSERT INTO running_import SELECT id, gen_random_uuid(), now() - interval '31 seconds' FROM \"user\""
    execute(dead)

    assert (await post(ada, CSV + GRACE)).status_code == 200


async def test_an_upload_that_breaks_off_keeps_nobody_from_the_next(ada: Client, execute: Execute) -> None:
    await ada.post("/contacts/import", content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=x"})

    assert execute("SELECT count(*) FROM running_import") == [(0,)]


async def test_every_import_gives_its_connection_back(app: FastAPI, ada: Client) -> None:
    for content in (CSV + GRACE, CSV + GRACE * 5000 + '"', "x"):
        await post(ada, content, on_duplicate="update")

    assert app.state.imports.engine.pool.checkedout() == 0
    assert len(await ada.list_contacts()) == 1


@pytest.mark.parametrize(("on_duplicate", "expected"), [("skip", (0, 0, 2, 0)), ("update", (0, 1, 1, 0))])
async def test_a_card_that_another_of_the_file_makes_a_stored_contact_is_not_created(
    ada: Client, on_duplicate: str, expected: tuple[int, ...]
) -> None:
    await report(ada, card(UID="known", FN="Grace Murray", N="Murray;Grace;;;"))
    # The first card alone would be new. The second one has the same name, and the UID of the stored contact.
    new, known = (card(UID=uid, FN="Grace Hopper", N="Hopper;Grace;;;") for uid in ("new", "known"))

    assert await counts(ada, new + known, on_duplicate=on_duplicate) == expected
    assert len(await ada.list_contacts()) == 1


@pytest.mark.parametrize(("on_duplicate", "expected"), [("skip", (0, 0, 2, 0)), ("update", (0, 1, 1, 0))])
async def test_a_card_with_the_uid_of_one_that_is_a_stored_contact_is_not_created(
    ada: Client, on_duplicate: str, expected: tuple[int, ...]
) -> None:
    await counts(ada, card(N="Hopper;Grace", EMAIL="grace@example.com"))
    known, new = (card(UID="u-1", N=f"{name};Grace", EMAIL="grace@example.com") for name in ("Hopper", "Murray"))

    assert await counts(ada, new + known, on_duplicate=on_duplicate) == expected
    assert len(await ada.list_contacts()) == 1


async def test_who_hangs_up_in_the_middle_of_a_file_imports_nothing(
    app: FastAPI, ada: Client, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    request = ada.build_request("POST", "/contacts/import", files={"file": ("file", CSV + GRACE * 40_000)})
    body = await request.aread()
    pieces = [body[at : at + 65_536] for at in range(0, len(body) // 2, 65_536)]
    open_files = psutil.Process().num_fds()

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": True}

    async def send(message: Message) -> None:
        pass

    headers = [(name.lower(), value) for name, value in request.headers.raw]
    scope = {"type": "http", "method": "POST", "path": "/contacts/import", "query_string": b"", "headers": headers}
    await app({**scope, "raw_path": b"/contacts/import"}, receive, send)

    assert execute("SELECT count(*) FROM contact") == [(0,)]
    assert app.state.database.engine.pool.checkedout() == 0
    assert psutil.Process().num_fds() == open_files
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert await counts(ada, CSV + GRACE) == (1, 0, 0, 0)


async def test_an_import_ends_when_its_client_hangs_up(app: FastAPI, ada: Client, execute: Execute) -> None:
    # It takes longer than CONNECTED_SECONDS.
    rows = "".join(f"First{n},Last,c{n}@example.com,,,\r\n" for n in range(50_000))
    request = ada.build_request("POST", "/contacts/import", files={"file": ("file", CSV + rows)})
    messages: list[Message] = [{"type": "http.request", "body": await request.aread(), "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    headers = [(name.lower(), value) for name, value in request.headers.raw]
    scope = {"type": "http", "method": "POST", "path": "/contacts/import", "query_string": b"", "headers": headers}
    await app({**scope, "raw_path": b"/contacts/import"}, receive, send)

    assert execute("SELECT count(*) FROM contact") == [(0,)]
    assert execute("SELECT count(*) FROM running_import") == [(0,)]
    assert app.state.imports.engine.pool.checkedout() == 0
    assert await counts(ada, CSV + GRACE) == (1, 0, 0, 0)


async def test_a_file_that_takes_too_much_cpu_time_is_refused(ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousandth of the limit.
    for name in ("SECONDS", "SECONDS_PER_ROW", "SECONDS_PER_MB"):
        monkeypatch.setattr(budget, name, getattr(budget, name) / 1000)

    response = await post(ada, CSV + GRACE * 5000)

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "too_slow")
    assert re.fullmatch(r"It was given up after line [\d,]+\. Split the file, .*", problem["detail"])
    assert await ada.list_contacts() == []


@pytest.mark.parametrize("on_duplicate", ["skip", "update"])
async def test_comparing_rows_with_contacts_counts_towards_the_cpu_time(
    ada: Client, monkeypatch: pytest.MonkeyPatch, on_duplicate: str
) -> None:
    await ada.create_contact()
    write = imports._Import.write

    async def write_with_nothing_left(importing: imports._Import, what: Any) -> None:
        importing._budget._left = 0
        await write(importing, what)

    monkeypatch.setattr(imports._Import, "write", write_with_nothing_left)
    response = await post(ada, CSV + GRACE, on_duplicate=on_duplicate)

    assert (response.status_code, response.json()["code"]) == (422, "too_slow")
    assert [contact["additional_info"] for contact in await ada.list_contacts()] == [None]


@pytest.fixture
def lose_connections(execute: Execute) -> Callable[[], object]:
    """Terminate the application's connections that are in a transaction."""
    return lambda: execute(
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'contacts_api' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    )


async def expect_nothing_imported(app: FastAPI, client: Client, execute: Execute) -> None:
    rows = (GRACE.replace("Hopper", f"Hopper {n}").replace("bug", "bug" * 600) for n in range(9000))
    response = await post(client, CSV + "".join(rows))
    after = await counts(client, CSV + GRACE)

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert after == (1, 0, 0, 0)
    assert execute("SELECT count(*) FROM contact") == [(1,)]
    assert app.state.imports.engine.pool.checkedout() == 0


async def test_an_import_that_loses_its_connection_while_it_reads_imports_nothing(
    app: FastAPI, ada: Client, execute: Execute, lose_connections: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = itertools.count(1)
    copied = threading.Semaphore(0)
    take = imports._Import._take

    async def copy(*args: Any, **limit: Any) -> None:
        await copy_into(*args, **limit)
        copied.release()

    def take_or_lose(importing: imports._Import, rows: imports.Rows) -> list[tuple[Any, ...]] | None:
        if next(batches) == 3:
            # Wait until the first two batches are sent. If a connection ends just as sending begins, asyncpg 0.32 drops
            # a future with an exception that nobody retrieves, and the test fails because of asyncio's report.
            for _ in range(2):
                assert copied.acquire(timeout=30)
            lose_connections()
        return take(importing, rows)

    monkeypatch.setattr("contacts_api.features.exchange.imports.copy_into", copy)
    monkeypatch.setattr(imports._Import, "_take", take_or_lose)
    await expect_nothing_imported(app, ada, execute)


async def test_an_import_that_loses_its_connection_while_it_sends_imports_nothing(
    app: FastAPI, ada: Client, execute: Execute, lose_connections: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(records: list[Any]) -> Iterator[Any]:
        # 400 records fill the buffers, so later ones have to wait.
        yield from records[:400]
        lose_connections()
        yield from records[400:]

    def copy_and_lose(session: Any, table: str, columns: Any, records: list[Any], **limit: float) -> Any:
        return copy_into(session, table, columns, lost(records) if len(records) > 400 else records, **limit)

    monkeypatch.setattr("contacts_api.features.exchange.imports.copy_into", copy_and_lose)
    await expect_nothing_imported(app, ada, execute)
