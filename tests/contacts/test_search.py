from typing import Any

import pytest

from tests.client import Client


@pytest.fixture
async def address_book(ada: Client, grace: Client) -> Client:
    await ada.create_contact(
        first_name="Zoë", last_name="Łukasz", email="zoe@example.com", phone_number="+380 44 123-45-67"
    )
    await ada.create_contact(
        first_name="Тарас", last_name="Шевченко", email="taras@пошта.укр", phone_number="0671112233"
    )
    await ada.create_contact(first_name="100%", last_name="Under_score", email="back.slash@example.com")
    await ada.create_contact(first_name="Straße", last_name="Ærø", email="sorensen@example.org", phone_number="555 000")
    await grace.create_contact(first_name="Zoë", last_name="of Grace")
    return ada


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"q": "zoe"}, ["Zoë"]),
        ({"q": "ZOË"}, ["Zoë"]),
        ({"q": "lukasz"}, ["Zoë"]),
        ({"q": "тарас"}, ["Тарас"]),
        ({"q": "ТАРАС шевч"}, ["Тарас"]),
        ({"q": "strasse"}, ["Straße"]),
        ({"q": "STRASSE aero"}, ["Straße"]),
        ({"q": "0441234567"}, ["Zoë"]),
        ({"q": "123-45"}, ["Zoë"]),
        ({"q": "380441234567"}, ["Zoë"]),
        ({"q": "+380"}, ["Zoë"]),
        ({"q": "zoe шевченко"}, []),
        ({"q": "  zoe   luk  "}, ["Zoë"]),
        ({"q": "e.com"}, ["Zoë", "100%"]),
        ({"q": "%"}, ["100%"]),
        ({"q": "_"}, ["100%"]),
        ({"q": "\\"}, []),
        ({"q": "k.slas"}, ["100%"]),
        ({"q": "3 8 0 4 4"}, ["Zoë"]),
        ({"q": ""}, ["Straße", "Zoë", "100%", "Тарас"]),
        ({"q": "   "}, ["Straße", "Zoë", "100%", "Тарас"]),
        ({"q": "\u0301"}, ["Straße", "Zoë", "100%", "Тарас"]),
        ({"first_name": "ZO"}, ["Zoë"]),
        ({"first_name": "luk"}, []),
        ({"last_name": "luk"}, ["Zoë"]),
        ({"last_name": "zoe"}, []),
        ({"email": "EXAMPLE.com"}, ["Zoë", "100%"]),
        ({"email": "пошта"}, ["Тарас"]),
        ({"email": "тарас"}, []),
        ({"first_name": "", "last_name": "", "email": ""}, ["Straße", "Zoë", "100%", "Тарас"]),
        ({"first_name": "zo", "last_name": "shev"}, []),
        ({"q": "zoe", "first_name": "z", "last_name": "l", "email": "example"}, ["Zoë"]),
    ],
)
async def test_search_ignores_case_and_accents_in_every_script(
    address_book: Client, query: dict[str, str], found: list[str]
) -> None:
    assert await address_book.first_names(**query) == found


@pytest.mark.parametrize(
    ("fields", "queries"),
    [
        ({"last_name": "O\u2019Brien"}, ["O'Brien", "OBrien", "o\u02bcbrien", "o`brien", "O\u00b4Brien"]),
        ({"last_name": "O'Brien"}, ["O\u2019Brien", "obrien", "O\u2032Brien"]),
        ({"last_name": "OBrien"}, ["O'Brien", "O\u2018Brien"]),
        ({"first_name": "Anne\u2011Marie"}, ["anne-marie", "Anne\u2010Marie", "anne\u2013marie"]),
        ({"first_name": "Jo\u200bAnn"}, ["JoAnn", "jo\u00adann"]),
        ({"first_name": "Jo\u00adAnn"}, ["JoAnn", "Jo\u200dAnn"]),
        ({"last_name": "Þórðarson"}, ["thordarson", "ÞÓRÐARSON"]),
        ({"last_name": "Ħal"}, ["hal"]),
        ({"last_name": "Doe", "first_name": "Jo"}, ["Doe, Jo", "doe,jo", "Doe\u3001Jo", ",jo,"]),
        ({"phone_number": "+380441234567"}, ["(044) 123-45-67", "+380 44 123 45 67", "044/1234567", "4123.4567"]),
        ({"phone_number": "+380 44 123-45-67"}, ["(044) 123-45-67", "0441234567", "123-45", "gr (044) 45-67"]),
        ({"phone_number": "2025550199"}, ["555-0199", "grace 555-0199", "+1 2 0 2 5 5 5"[3:]]),
        ({"phone_number": "+33612345678"}, ["+33 6 12 34 56 78"]),
        (
            {"first_name": "María de los Ángeles", "last_name": "de la Cruz"},
            ["María de los Ángeles de la Cruz", "m d l o s a n g"],
        ),
        ({"first_name": "太郎", "last_name": "山田"}, ["山田太郎", "太郎山田", "山田 太郎", "田太"]),
        ({"first_name": "한글", "last_name": "김"}, ["김한글", "한글김"]),
        ({"details": [{"kind": "email", "value": "Navy@Example.org"}]}, ["navy@example.org"]),
        ({"details": [{"kind": "phone", "value": "+1 202 555 0117"}]}, ["555-0117", "2025550117"]),
        ({"details": [{"kind": "nickname", "value": "Amazing Grâce"}]}, ["amazing", "grace amazing"]),
        ({"details": [{"kind": "organization", "value": "Eckert-Mauchly"}]}, ["eckert-mauchly"]),
        ({"additional_info": "Diana's dad,\n\tdentist"}, ["dentist", "dianas dad", "DIANA\u2019S"]),
        ({"details": [{"kind": "address", "value": "Weg 1\nBerlin"}]}, ["Berlin", "weg 1 berlin", "Weg 1, Berlin"]),
        ({"details": [{"kind": "title", "value": "Plumber"}]}, ["plumber"]),
        ({"details": [{"kind": "relation", "value": "Ann Doe"}]}, ["Ann Doe", "doe ann"]),
    ],
)
async def test_contacts_are_found_by_typical_queries(ada: Client, fields: dict[str, Any], queries: list[str]) -> None:
    await ada.create_contact(first_name="Other", last_name="Body", email="other@example.net", phone_number="000")
    wanted = await ada.create_contact(**fields)

    for query in queries:
        assert [contact["id"] for contact in await ada.list_contacts(q=query)] == [wanted["id"]], query


SPELLINGS_OF_A_NUMBER = [
    ["+49 172 1234567", "0172 1234567", "0049 172 1234567", "+49 (0)172 1234567", "01721234567", "00491721234567"],
    ["+33 6 12 34 56 78", "06 12 34 56 78", "0612345678"],
    ["+380 44 123-45-67", "+380441234567", "8 (044) 123-45-67", "(044) 123-45-67", "0441234567"],
    ["+32 2 123 45 67", "02 123 45 67", "+32 (0)2 123 45 67", "0032 2 1234567"],
    ["+47 12 34 56 78", "12345678"],
    ["+1 (202) 555-0199", "202.555.0199", "2025550199"],
]


@pytest.mark.parametrize("spellings", SPELLINGS_OF_A_NUMBER, ids=lambda spellings: spellings[0])
async def test_a_number_is_found_in_its_national_and_international_spelling(ada: Client, spellings: list[str]) -> None:
    await ada.create_contacts([{"first_name": spelling, "phone_number": spelling} for spelling in spellings])
    await ada.create_contact(first_name="Other", phone_number="+49 172 7654321")
    await ada.create_contact(
        first_name="Detail", phone_number=None, details=[{"kind": "phone", "value": spelling} for spelling in spellings]
    )

    for query in spellings:
        assert set(await ada.first_names(q=query)) == {"Detail", *spellings}, query


@pytest.mark.parametrize(
    ("stored", "queries"),
    [
        ("+1 202 555 0143 x12", ["+1 (202) 555-0143", "2025550143 ext 12", "+1 202 555 0143;12", "202-555-0143,,12#"]),
        ("+1 202 555 0143,,12#", ["2025550143", "+12025550143x12", "555-0143 ext. 12"]),
        ("044 123-45-67 ext 8001", ["+380 44 123 45 67", "+380 44 123 45 67 x8001"]),
        ("*100#", ["*100#", "100"]),
        ("+380 44 123-45-67", ["+380 44", "+380 44 123-45", "123", "0,123", "4567,123"]),
    ],
)
async def test_a_number_is_found_with_or_without_its_extension(ada: Client, stored: str, queries: list[str]) -> None:
    await ada.create_contact(first_name="Wanted", phone_number=stored)
    await ada.create_contact(first_name="Other", phone_number="+49 30 9998877")

    for query in queries:
        assert await ada.first_names(q=query) == ["Wanted"], query


@pytest.mark.parametrize("query", ["044 1234568", "+380 44 1234568", "0172 1234567", "2025550143 x99"])
async def test_a_different_number_is_not_found(ada: Client, query: str) -> None:
    await ada.create_contact(phone_number="+380 44 123-45-67")
    await ada.create_contact(phone_number="+1 202 555 0143 x12")

    assert await ada.first_names(q=query) == []


@pytest.mark.parametrize(
    "query",
    [
        *({"q": q} for q in ("navy pier", "+1 99", "pier", "friends", "NICKNAME", "555-0118", "ADDITIONALINFO")),
        {"first_name": "amazing"},
        {"last_name": "0117"},
        {"label": "Friend"},
        {"label": ["Friends", "Work"]},
        {"label": "Friends", "q": "nobody"},
    ],
)
async def test_a_query_without_matches_finds_nothing(ada: Client, query: dict[str, Any]) -> None:
    values = {
        "nickname": "Amazing",
        "phone": "+1 202 555 0117",
        "address": "12 Elm St",
        "url": "https://pier.example",
        "other": "pier",
    }
    details = [{"kind": kind, "value": value} for kind, value in values.items()]
    await ada.create_contact(labels=["Friends"], details=details)

    assert await ada.first_names(**query) == []


async def test_the_email_filter_matches_any_address_of_a_contact(ada: Client) -> None:
    await ada.create_contact(details=[{"kind": "email", "value": "navy@example.org"}])

    assert await ada.first_names(email="NAVY@") == await ada.first_names(email="grace@example.com") == ["Grace"]
    assert await ada.first_names(email="navy@", q="hopper") == ["Grace"]


async def test_the_label_filter_matches_whole_labels_in_any_case_and_requires_all(ada: Client) -> None:
    for n, labels in enumerate((["Friends", "Work"], ["FRIENDS"], ["Friends of friends"], [])):
        await ada.create_contact(first_name=f"c{n}", labels=labels)

    assert await ada.first_names(label="friends") == ["c0", "c1"]
    assert await ada.first_names(label=["friends", "WORK"]) == ["c0"]
    assert await ada.first_names(label=["friends", "", "FRIENDS"]) == ["c0", "c1"]
    assert await ada.first_names(label="") == ["c0", "c1", "c2", "c3"]
    page = await ada.get("/contacts", params={"label": ["friends", "Friends"], "limit": 1, "with_total": True})
    assert (page.json()["total"], [c["first_name"] for c in page.json()["items"]]) == (2, ["c0"])
    rest = await ada.get(page.links["next"]["url"])
    assert [contact["first_name"] for contact in rest.json()["items"]] == ["c1"]
    exported = await ada.get("/contacts/export.vcf?label=WORK")
    assert exported.text.count("CATEGORIES:Friends,Work") == exported.text.count("BEGIN:VCARD") == 1


async def test_a_word_does_not_match_across_fields(ada: Client) -> None:
    await ada.create_contact(first_name="Ann", last_name="Abel")

    assert await ada.first_names(q="annabel") == []
    assert await ada.first_names(q="ann abel") == ["Ann"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"q": "a b c d e f g h i"}, "q"),
        ({"q": "x" * 101}, "q"),
        ({"q": "a\x00b"}, "q"),
        ({"q": "a\nb"}, "q"),
        ({"first_name": "x" * 101}, "first_name"),
        ({"email": "a\x7f"}, "email"),
        ({"q": "a,b,c,d e f g h, i"}, "q"),
        ({"sort": "birthday"}, "sort"),
        ({"sort": ""}, "sort"),
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": str(2**63)}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"with_total": "maybe"}, "with_total"),
        ({"offset": "1"}, "offset"),
        ({"Q": "zoe"}, "Q"),
    ],
)
async def test_an_invalid_query_is_a_422_that_names_the_parameter(
    ada: Client, query: dict[str, str], field: str
) -> None:
    response = await ada.get("/contacts", params=query)

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [["query", field]]
