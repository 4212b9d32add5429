import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from contacts_api.contacts.models import FIELDS
from tests.client import A_CONTACT, Client
from tests.conftest import Execute


async def test_creating_returns_the_contact_and_its_location(ada: Client) -> None:
    response = await ada.post("/contacts", json=A_CONTACT)

    contact = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/contacts/{contact['id']}"
    assert response.headers["cache-control"] == "private, no-cache"
    assert {name: contact[name] for name in A_CONTACT} == A_CONTACT
    assert contact.keys() == {"id", *FIELDS, "created_at", "updated_at"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", contact["created_at"])
    assert contact["created_at"] == contact["updated_at"]
    got = await ada.get(response.headers["location"])
    assert (got.status_code, got.json(), got.headers["etag"]) == (200, contact, response.headers["etag"])


def detail(kind: str, value: str, label: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "label": label, "value": value}


NULLABLE = ("last_name", "email", "phone_number", "date_of_birth", "additional_info")
TODAY_FURTHEST_AHEAD = (datetime.now(UTC) + timedelta(hours=14)).date()


@pytest.mark.parametrize(
    ("field", "sent", "stored"),
    [
        ("first_name", "  Zoë ", "Zoë"),
        ("last_name", "x" * 100, "x" * 100),
        ("last_name", "O'Brien-Ньютон 李", "O'Brien-Ньютон 李"),
        ("email", " Grace.Hopper@EXAMPLE.Com ", "Grace.Hopper@example.com"),
        ("email", "джон@пример.укр", "джон@пример.укр"),
        ("phone_number", " +380 (44) 123-45-67 ext. 8 ", "+380 (44) 123-45-67 ext. 8"),
        ("phone_number", "112", "112"),
        ("phone_number", "*#06#1,;x2/3.", "*#06#1,;x2/3."),
        ("date_of_birth", "1900-01-01", "1900-01-01"),
        ("date_of_birth", "2024-02-29", "2024-02-29"),
        ("date_of_birth", str(TODAY_FURTHEST_AHEAD), str(TODAY_FURTHEST_AHEAD)),
        *((field, None, None) for field in NULLABLE),
        ("email", "ada@printer.local", "ada@printer.local"),
        ("email", "ada@example.test", "ada@example.test"),
        ("first_name", "\u200fעדה\u200f", "\u200fעדה\u200f"),
        ("first_name", "🐎", "🐎"),
        ("birthday", "12-09", "12-09"),
        ("labels", None, []),
        ("labels", [" Friends ", "work", "FRIENDS", "Straße", "STRASSE"], ["Friends", "work", "Straße"]),
        ("labels", [f"label {n}" for n in range(50)], [f"label {n}" for n in range(50)]),
        ("labels", ["x" * 64, "a, b; c/d", "=1"], ["x" * 64, "a, b; c/d", "=1"]),
        ("details", None, []),
        ("details", [detail("other", "x" * 1000)] * 40, [detail("other", "x" * 1000)] * 40),
        ("details", [detail("other", "x")] * 100, [detail("other", "x")] * 100),
        (
            "details",
            [{"kind": "email", "value": " ada@EXAMPLE.org "}, detail("address", "1 Elm St\r\nSpringfield\t", " home ")],
            [detail("email", "ada@example.org"), detail("address", "1 Elm St\nSpringfield", "home")],
        ),
        (
            "details",
            [detail("date", "2010-06-20", "anniversary"), detail("date", "--02-29"), detail("phone", "112", "Shop")],
            [detail("date", "2010-06-20", "anniversary"), detail("date", "--02-29"), detail("phone", "112", "Shop")],
        ),
        ("additional_info", "", ""),
        ("additional_info", " one\r\ntwo\rthree\tfour\n", " one\ntwo\nthree\tfour\n"),
        ("additional_info", "x" * 2000, "x" * 2000),
    ],
)
async def test_valid_values_are_stored(ada: Client, field: str, sent: Any, stored: Any) -> None:
    contact = await ada.create_contact(**{"date_of_birth": None, field: sent})

    assert contact[field] == stored
    assert (await ada.get(f"/contacts/{contact['id']}")).json()[field] == stored


NO_TEXTS: tuple[Any, ...] = ("Friends", ["x"] * 51, {"a": 1})
NO_DETAILS: tuple[Any, ...] = ("x", [detail("other", "x")] * 101, {})
BROKEN: list[tuple[str, Any]] = [
    *(("first_name", value) for value in ("", "   ", "x" * 101, "a\x00b", "a\nb", "a\tb", "\x85", None, 5, ["x"])),
    *(("last_name", value) for value in ("", "x" * 101, "a\x7fb")),
    *(
        ("email", value)
        for value in ("ada", "Ada <ada@example.com>", "ada@", "a" * 64 + "@" + "b" * 250 + ".com", "a@b\nc.com")
    ),
    *(("phone_number", value) for value in ("", "12", "+ - 12", "phone 123", "1" * 33, "٣٣٣٣", "123\n", 123)),
    *(
        ("date_of_birth", value)
        for value in (
            "1899-12-31",
            str(TODAY_FURTHEST_AHEAD + timedelta(days=1)),
            "2023-02-29",
            "1990-03-09T00:00:00",
            "631152000",
            "90-03-09",
            "1990-3-9",
            "١٩٩٠-٠٣-٠٩",
            " 1990-03-09",
            631152000,
            0,
        )
    ),
    *(("additional_info", value) for value in ("x" * 2001, "a\x00b", "a\x0bb", 5)),
    *(("first_name", value) for value in ("\u200b", "\u3164", "\ufe0f\u200d", "\u202eevil", "a\u2066b")),
    *(("birthday", value) for value in ("", "12-9", "13-01", "02-30", "1906-12-09", "--12-09", 1209, "12-09 ")),
    *(("labels", value) for value in NO_TEXTS),
    *(("details", value) for value in NO_DETAILS),
    *((name, "1") for name in ("id", "owner_id", "created_at", "version", "shoe_size")),
]


@pytest.mark.parametrize(("field", "value"), BROKEN)
async def test_an_invalid_value_is_a_422_that_names_the_field(
    ada: Client, execute: Execute, field: str, value: Any
) -> None:
    response = await ada.post("/contacts", json={**A_CONTACT, field: value})

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [["body", field]]
    assert execute("SELECT count(*) FROM contact") == [(0,)]


@pytest.mark.parametrize(
    ("field", "value", "loc"),
    [
        *(("labels", ["ok", value], [1]) for value in ("", "  ", "x" * 65, "a\nb", None, 1)),
        ("details", [{"kind": "fax", "value": "x"}], [0, "kind"]),
        ("details", [{"value": "x"}], [0, "kind"]),
        ("details", [{"kind": "other"}], [0, "value"]),
        ("details", [{"kind": "other", "value": "x", "shoe_size": 5}], [0, "shoe_size"]),
        *(("details", [detail("other", "x", label)], [0, "label"]) for label in ("", "x" * 65, "a\tb")),
        *(("details", [detail("other", value)], [0, "value"]) for value in ("", " ", "x" * 1001, "a\x00b")),
        *(("details", [detail("email", value)], [0, "value"]) for value in ("ada", "a@b\n.com", "a" * 250 + "@b.io")),
        *(("details", [detail("phone", value)], [0, "value"]) for value in ("12", "1" * 33, "FLOWERS", "1\n23")),
        *(
            ("details", [detail("date", value)], [0, "value"])
            for value in ("2023-02-29", "--02-30", "12-09", "1990-1-1")
        ),
    ],
)
async def test_an_invalid_value_in_a_list_is_a_422_that_names_its_place(
    ada: Client, field: str, value: Any, loc: list[Any]
) -> None:
    response = await ada.post("/contacts", json={**A_CONTACT, field: value})

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [["body", field, *loc]]
    assert str(value) not in response.text


async def test_a_birthday_is_derived_from_the_date_of_birth_and_kept_without_it(ada: Client) -> None:
    contact = await ada.create_contact(birthday="01-01")
    path = f"/contacts/{contact['id']}"

    async def patched(**changes: Any) -> tuple[Any, Any]:
        answer = (await ada.patch(path, json=changes)).json()
        assert (await ada.get(path)).json() == answer
        return answer["date_of_birth"], answer["birthday"]

    assert (contact["date_of_birth"], contact["birthday"]) == ("1906-12-09", "12-09")
    assert await patched(birthday="01-01") == ("1906-12-09", "12-09")
    assert await patched(date_of_birth=None) == (None, "12-09")
    assert await patched(birthday="02-29") == (None, "02-29")
    assert await patched(date_of_birth="1990-03-09") == ("1990-03-09", "03-09")
    assert await patched(date_of_birth=None, birthday=None) == (None, None)


async def test_lists_are_replaced_as_a_whole_and_an_equal_list_keeps_the_etag(ada: Client) -> None:
    contact = await ada.create_contact(labels=["a", "b"], details=[detail("title", "Admiral")])
    path = f"/contacts/{contact['id']}"
    tag = (await ada.get(path)).headers["etag"]

    same = await ada.patch(path, json={"labels": ["a", "b", "A"], "details": [{"kind": "title", "value": "Admiral "}]})
    changed = await ada.patch(path, json={"labels": ["b"], "details": None})
    back = await ada.put(path, json={**changed.json(), "labels": None})

    assert (same.json(), same.headers["etag"]) == (contact, tag)
    assert changed.json() == {**contact, "labels": ["b"], "details": [], "updated_at": changed.json()["updated_at"]}
    assert changed.headers["etag"] != tag
    assert (back.status_code, back.json()["labels"], back.json()["details"]) == (200, [], [])


@pytest.mark.parametrize("field", ["first_name", "last_name", "email", "phone_number", "date_of_birth"])
async def test_all_but_the_additional_info_are_required(ada: Client, field: str) -> None:
    contact = {name: value for name, value in A_CONTACT.items() if name not in (field, "additional_info")}

    response = await ada.post("/contacts", json=contact)

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["body", field])


async def test_put_replaces_the_whole_contact(ada: Client) -> None:
    before = await ada.create_contact(additional_info="to be gone")
    new = {**A_CONTACT, "first_name": "Ada", "last_name": "Lovelace"}
    del new["additional_info"]

    response = await ada.put(f"/contacts/{before['id']}", json=new)

    after = response.json()
    assert response.status_code == 200
    assert after == {**before, **new, "additional_info": None, "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]
    assert (await ada.get(f"/contacts/{before['id']}")).json() == after


async def test_put_needs_every_field(ada: Client) -> None:
    contact = await ada.create_contact()

    response = await ada.put(f"/contacts/{contact['id']}", json={"first_name": "Ada"})

    assert response.status_code == 422
    assert (await ada.get(f"/contacts/{contact['id']}")).json() == contact


@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json"])
async def test_patch_changes_only_the_given_fields(ada: Client, media_type: str) -> None:
    before = await ada.create_contact(additional_info="stays")

    response = await ada.patch(
        f"/contacts/{before['id']}", content=b'{"last_name": "Murray"}', headers={"Content-Type": media_type}
    )

    after = response.json()
    assert response.status_code == 200
    assert after == {**before, "last_name": "Murray", "updated_at": after["updated_at"]}
    assert await ada.first_names(q="murray") == ["Grace"]


@pytest.mark.parametrize("field", NULLABLE)
async def test_patch_can_null_all_but_the_first_name(ada: Client, field: str) -> None:
    contact = await ada.create_contact(additional_info="to be gone")

    response = await ada.patch(f"/contacts/{contact['id']}", json={field: None})

    after = response.json()
    assert response.status_code == 200
    assert after == {**contact, field: None, "updated_at": after["updated_at"]}


async def test_patch_cannot_null_the_first_name(ada: Client) -> None:
    contact = await ada.create_contact()

    response = await ada.patch(f"/contacts/{contact['id']}", json={"first_name": None})

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["body", "first_name"])


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_contact_can_be_sent_back_as_it_was_read(ada: Client, method: str) -> None:
    contact = await ada.create_contact(additional_info="stays")

    response = await ada.request(
        method, f"/contacts/{contact['id']}", json={**contact, "id": "another", "created_at": 5}
    )

    assert (response.status_code, response.json()) == (200, contact)


async def test_put_with_if_none_match_creates_a_contact_once(ada: Client, grace: Client) -> None:
    path, create = f"/contacts/{uuid4()}", {"If-None-Match": "*"}

    missing = await ada.put(path, json=A_CONTACT)
    created = await ada.put(path, json=A_CONTACT, headers=create)
    again = await ada.put(path, json={**A_CONTACT, "first_name": "Ada"}, headers=create)
    others = await grace.put(path, json=A_CONTACT, headers=create)
    replaced = await ada.put(
        path, json={**A_CONTACT, "first_name": "Ada"}, headers={"If-Match": created.headers["etag"]}
    )

    assert [each.status_code for each in (missing, created, again, others, replaced)] == [404, 201, 412, 201, 200]
    assert (created.headers["location"], created.json()["id"]) == (path, path.removeprefix("/contacts/"))
    assert again.json()["code"] == "precondition_failed"
    assert (await ada.first_names(), await grace.first_names()) == (["Ada"], ["Grace"])


async def test_an_etag_is_not_reused_when_an_id_is_reused(ada: Client) -> None:
    path, create = f"/contacts/{uuid4()}", {"If-None-Match": "*"}
    tag = (await ada.put(path, json=A_CONTACT, headers=create)).headers["etag"]
    await ada.delete(path)
    await ada.put(path, json={**A_CONTACT, "first_name": "Ada"}, headers=create)

    read = await ada.get(path, headers={"If-None-Match": tag})
    replaced = await ada.put(path, json=A_CONTACT, headers={"If-Match": tag})

    assert (read.status_code, replaced.status_code) == (200, 412)


async def test_only_one_of_many_concurrent_creations_succeeds(ada: Client) -> None:
    path = f"/contacts/{uuid4()}"

    answers = await asyncio.gather(*(ada.put(path, json=A_CONTACT, headers={"If-None-Match": "*"}) for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 9


async def test_etags_in_several_header_lines_are_one_list(ada: Client) -> None:
    contact = await ada.create_contact()
    path, names = f"/contacts/{contact['id']}", ("If-None-Match", "If-Match")
    tag = (await ada.get(path)).headers["etag"]
    lines = {name: [(name, '"a"'), (name, tag), (name, '"b"')] for name in names}

    known = await ada.get(path, headers=lines["If-None-Match"])
    changed = await ada.patch(path, json={"last_name": "Murray"}, headers=lines["If-Match"])

    assert (known.status_code, changed.status_code) == (304, 200)


@pytest.mark.parametrize("changes", [{}, {"first_name": "Grace"}])
async def test_a_patch_without_changes_keeps_the_timestamp_and_etag(ada: Client, changes: dict[str, str]) -> None:
    contact = await ada.create_contact()
    etag = (await ada.get(f"/contacts/{contact['id']}")).headers["etag"]

    response = await ada.patch(f"/contacts/{contact['id']}", json=changes)

    assert (response.status_code, response.json(), response.headers["etag"]) == (200, contact, etag)


@pytest.mark.parametrize("body", ["[]", '"x"', "null", "5", ""])
async def test_a_patch_that_is_not_an_object_is_a_422(ada: Client, body: str) -> None:
    contact = await ada.create_contact()

    response = await ada.patch(f"/contacts/{contact['id']}", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422


async def test_a_patch_of_an_imported_contact_keeps_its_nulls(ada: Client, execute: Execute) -> None:
    contact = await ada.create_contact()
    execute("UPDATE contact SET last_name = NULL, email = NULL, phone_number = NULL, date_of_birth = NULL")

    response = await ada.patch(f"/contacts/{contact['id']}", json={"first_name": "Amazing Grace"})

    shown = response.json()
    assert (response.status_code, shown["first_name"], shown["email"]) == (200, "Amazing Grace", None)
    assert await ada.first_names(q="amazing") == ["Amazing Grace"]


async def test_a_deleted_contact_is_gone(ada: Client) -> None:
    contact = await ada.create_contact()

    response = await ada.delete(f"/contacts/{contact['id']}")

    assert (response.status_code, response.content) == (204, b"")
    assert (await ada.get(f"/contacts/{contact['id']}")).status_code == 404
    assert (await ada.delete(f"/contacts/{contact['id']}")).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_a_contact_of_another_user_answers_like_a_missing_one(method: str, ada: Client, grace: Client) -> None:
    contact = await ada.create_contact(first_name="Charles")

    theirs = await grace.request(method, f"/contacts/{contact['id']}", json=A_CONTACT)
    nobodys = await grace.request(method, f"/contacts/{uuid4()}", json=A_CONTACT)

    assert (theirs.status_code, theirs.json()["code"]) == (404, "contact_not_found")
    assert theirs.content == nobodys.content
    assert (await ada.get(f"/contacts/{contact['id']}")).json() == contact


@pytest.mark.parametrize("contact_id", ["1", "birthday", "0" * 31, "%00", "a" * 5000])
async def test_an_invalid_id_is_a_404(ada: Client, contact_id: str) -> None:
    assert (await ada.get(f"/contacts/{contact_id}")).status_code == 404


async def test_a_matching_if_none_match_is_a_304(ada: Client) -> None:
    contact = await ada.create_contact()
    etag = (await ada.get(f"/contacts/{contact['id']}")).headers["etag"]

    for known in etag, f"W/{etag}", f'"x", {etag}', "*":
        response = await ada.get(f"/contacts/{contact['id']}", headers={"If-None-Match": known})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
    await ada.patch(f"/contacts/{contact['id']}", json={"first_name": "Ada"})
    assert (await ada.get(f"/contacts/{contact['id']}", headers={"If-None-Match": etag})).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("stale", ['"7"', "W/{etag}", "rubbish", ""])
async def test_a_stale_if_match_is_a_412_and_changes_nothing(ada: Client, method: str, stale: str) -> None:
    contact = await ada.create_contact()
    etag = (await ada.get(f"/contacts/{contact['id']}")).headers["etag"]
    new = {**A_CONTACT, "first_name": "Ada"}

    response = await ada.request(
        method, f"/contacts/{contact['id']}", json=new, headers={"If-Match": stale.format(etag=etag)}
    )

    assert (response.status_code, response.json()["code"]) == (412, "precondition_failed")
    assert (await ada.get(f"/contacts/{contact['id']}")).json() == contact


async def test_only_one_of_many_concurrent_patches_with_the_same_if_match_succeeds(ada: Client) -> None:
    contact = await ada.create_contact()
    etag = (await ada.get(f"/contacts/{contact['id']}")).headers["etag"]

    answers = await asyncio.gather(
        *(
            ada.patch(f"/contacts/{contact['id']}", json={"first_name": f"Ada {n}"}, headers={"If-Match": etag})
            for n in range(8)
        )
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_if_match_with_a_star_matches_any_existing_contact(ada: Client) -> None:
    contact = await ada.create_contact()

    deleted = await ada.delete(f"/contacts/{contact['id']}", headers={"If-Match": "*"})
    missing = await ada.delete(f"/contacts/{contact['id']}", headers={"If-Match": "*"})

    assert (deleted.status_code, missing.status_code) == (204, 404)


async def test_concurrent_patches_of_different_fields_are_all_kept(ada: Client) -> None:
    contact = await ada.create_contact()
    changes = [{"first_name": "Ada"}, {"last_name": "Lovelace"}, {"additional_info": "both"}]

    await asyncio.gather(*(ada.patch(f"/contacts/{contact['id']}", json=change) for change in changes))

    after = (await ada.get(f"/contacts/{contact['id']}")).json()
    assert (after["first_name"], after["last_name"], after["additional_info"]) == ("Ada", "Lovelace", "both")
    assert await ada.first_names(q="ada lovelace") == ["Ada"]
