import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from fastapi import FastAPI

from contacts_api.contacts import queries
from contacts_api.database.connecting import LOCK_SECONDS, Row
from contacts_api.http import paging as pagination
from contacts_api.http.paging import PAGE_BYTES, Cursors, InvalidCursor, pages_of
from tests.client import A_CONTACT, Client
from tests.conftest import Execute

NAMES = [
    ("Ada", "Byron"),
    ("ada", "byron"),
    ("Zoë", "Byron"),
    ("Émile", "Zola"),
    ("Emil", "Åberg"),
    ("A", "Яна"),
    ("B", "zz"),
]


@pytest.fixture
async def address_book(ada: Client, grace: Client) -> Client:
    for first_name, last_name in NAMES:
        await ada.create_contact(first_name=first_name, last_name=last_name)
        await grace.create_contact(first_name=f"not {first_name}", last_name=last_name)
    return ada


async def walk(client: Client, **query: Any) -> list[str]:
    """Follow the Link header from page to page."""
    names: list[str] = []
    response = await client.get("/contacts", params=query)
    while True:
        page = response.json()
        names += [contact["first_name"] for contact in page["items"]]
        assert len(page["items"]) <= query["limit"]
        if page["next_cursor"] is None:
            assert "link" not in response.headers
            return names
        link = response.headers["link"]
        assert link.startswith("</contacts?")
        assert link.endswith('>; rel="next"')
        response = await client.get(link[1 : link.index(">")])


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 500])
@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["Emil", "Ada", "ada", "Zoë", "Émile", "B", "A"]),
        ("created_at", ["Ada", "ada", "Zoë", "Émile", "Emil", "A", "B"]),
        ("updated_at", ["ada", "Zoë", "Émile", "Emil", "A", "B", "Ada"]),
    ],
)
async def test_pages_in_every_order_show_each_contact_once(
    address_book: Client, sort: str, expected: list[str], limit: int
) -> None:
    (first,) = await address_book.list_contacts(sort="created_at", limit=1)
    await address_book.patch(f"/contacts/{first['id']}", json={"additional_info": "changed"})

    forwards = await walk(address_book, sort=sort, limit=limit)
    backwards = await walk(address_book, sort=f"-{sort}", limit=limit)

    assert forwards == expected
    assert backwards == expected[::-1]


@pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-updated_at"])
@pytest.mark.parametrize(
    ("q", "limit"), [("hopper", 1), ("hopper", 2), ("hopper", 40), ("example.com", 1), ("ab", 1), ("ab", 2)]
)
async def test_the_pages_of_a_search_do_not_depend_on_where_its_matches_are(
    ada: Client, grace: Client, sort: str, q: str, limit: int
) -> None:
    # A search first walks 4 or 20 contacts per requested match. It meets none, some or all of the matches: the contacts
    # named Hopper are adjacent in the middle, and those named Abe are far apart.
    people = [
        {"first_name": f"{n:02}", "last_name": f"{n // 10}Abe" if n in (3, 27, 39) else "Allen"} for n in range(45)
    ]
    people += [{"first_name": f"{n}", "last_name": "Hopper"} for n in range(45, 50)]
    people += [{"first_name": f"{n}", "last_name": "Zola"} for n in range(50, 95)]
    for client in (ada, grace):
        await client.create_contacts(people)
    everyone = await ada.list_contacts(sort=sort, limit=500)
    expected = [c["first_name"] for c in everyone if q in f"{c['last_name']} {c['email']}".lower()]

    assert await walk(ada, q=q, sort=sort, limit=limit) == expected
    assert len(expected) == {"hopper": 5, "example.com": 95, "ab": 3}[q]


async def test_the_total_is_counted_on_request_and_for_the_whole_list(address_book: Client) -> None:
    without = (await address_book.get("/contacts?limit=2")).json()
    counted = (await address_book.get("/contacts?limit=2&with_total=true&last_name=byron")).json()
    following = await address_book.get(
        "/contacts", params={"limit": 2, "with_total": True, "last_name": "byron", "cursor": counted["next_cursor"]}
    )

    assert (without["total"], counted["total"], following.json()["total"]) == (None, 3, 3)


async def test_an_empty_list_is_a_page_without_items(ada: Client) -> None:
    response = await ada.get("/contacts?with_total=true")

    assert response.json() == {"items": [], "next_cursor": None, "total": 0}


async def test_changes_between_pages_do_not_disturb_later_pages(address_book: Client) -> None:
    page = (await address_book.get("/contacts?limit=3")).json()
    await address_book.create_contact(first_name="Aaron", last_name="Aa")
    await address_book.delete(f"/contacts/{page['items'][2]['id']}")

    response = await address_book.get("/contacts", params={"limit": 10, "cursor": page["next_cursor"]})

    assert [contact["first_name"] for contact in response.json()["items"]] == ["Zoë", "Émile", "B", "A"]


async def test_a_cursor_is_valid_only_for_its_sort_filters_and_owner(address_book: Client, grace: Client) -> None:
    cursor = (await address_book.get("/contacts?limit=1&last_name=byron")).json()["next_cursor"]

    async def status(client: Client, **query: Any) -> tuple[int, str | None]:
        response = await client.get("/contacts", params=query)
        return response.status_code, response.json().get("code")

    assert await status(address_book, cursor=cursor, last_name="BYRON", limit=5, with_total=True) == (200, None)
    for query in (
        {"cursor": cursor},
        {"cursor": cursor, "last_name": "byro"},
        {"cursor": cursor, "last_name": "byron", "sort": "-name"},
        {"cursor": cursor, "last_name": "byron", "q": "ada"},
        {"cursor": cursor[:-1], "last_name": "byron"},
        {"cursor": cursor + "A", "last_name": "byron"},
        {"cursor": cursor + "=", "last_name": "byron"},
        {"cursor": cursor[:30] + ("A" if cursor[30] != "A" else "B") + cursor[31:], "last_name": "byron"},
        {"cursor": ""},
        {"cursor": "rubbish"},
        {"cursor": "Ünicode"},
        {"cursor": "x" * 20_000},
    ):
        assert await status(address_book, **query) == (422, "invalid_cursor")
    assert await status(grace, cursor=cursor, last_name="byron") == (422, "invalid_cursor")


async def test_a_cursor_of_one_list_is_refused_by_another(ada: Client) -> None:
    for _ in range(2):
        await ada.create_contact(date_of_birth="2000-01-01")
    cursor = (await ada.get("/contacts?limit=1")).json()["next_cursor"]

    response = await ada.get("/contacts/birthdays", params={"cursor": cursor})

    assert response.json()["code"] == "invalid_cursor"
    assert response.json()["errors"][0]["loc"] == ["query", "cursor"]


def test_changing_any_character_invalidates_a_cursor() -> None:
    cursors = Cursors(b"secret")
    cursor = cursors.write({"sort_name": "byron\nada", "id": "1"}, "contacts")
    assert cursors.read(cursor, "contacts") == {"sort_name": "byron\nada", "id": "1"}

    for place in range(len(cursor)):
        for other in "AZaz09-_":
            if other != cursor[place]:
                with pytest.raises(InvalidCursor):
                    cursors.read(cursor[:place] + other + cursor[place + 1 :], "contacts")


async def test_names_that_fold_beyond_the_index_limit_are_stored_and_paged(ada: Client) -> None:
    long = "\ufdfa" * 100
    for _ in range(3):
        await ada.create_contact(first_name=long, last_name=long)

    assert await walk(ada, limit=1) == [long] * 3
    assert await ada.first_names(q="\ufdfa") == [long] * 3


@pytest.mark.parametrize("limit", [2, 50])
async def test_names_are_sorted_by_the_unicode_collation(ada: Client, limit: int) -> None:
    in_order = ["_", "A", "b", "é", "z", "þ", "ω", "Андрієнко", "Ґалаґан", "Єременко", "Іваненко", "Їжакевич"]
    in_order += ["Якименко", "\uffee", "\U0001f600"]
    for name in in_order[::2] + in_order[1::2]:
        await ada.create_contact(first_name=name, last_name=name)

    assert await walk(ada, limit=limit) == in_order
    assert await walk(ada, sort="-name", limit=limit) == in_order[::-1]


async def test_a_page_of_large_contacts_is_shorter_and_no_contact_is_lost(ada: Client) -> None:
    details = [{"kind": "other", "value": "x" * 1000}] * 60
    for start in range(0, 60, 20):
        await ada.create_contacts([{"first_name": f"{n:02}", "details": details} for n in range(start, start + 20)])

    pages, path = [], "/contacts?limit=500&with_total=true"
    while path:
        response = await ada.get(path)
        assert len(response.content) < 3 * 1024 * 1024
        pages.append([contact["first_name"] for contact in response.json()["items"]])
        path = response.links["next"]["url"] if "next" in response.links else ""

    assert len(pages) == 2
    assert [name for page in pages for name in page] == [f"{n:02}" for n in range(60)]
    assert response.json()["total"] == 60


async def test_the_total_size_of_details_is_limited(ada: Client) -> None:
    response = await ada.post(
        "/contacts/batch", json={"items": [{**A_CONTACT, "details": [{"kind": "other", "value": "x" * 1000}] * 66}]}
    )

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [["body", "items", 0, "details"]]
    assert "65,536 bytes" in response.json()["errors"][0]["detail"]


async def pages_of_all(app: FastAPI, email: str, execute: Execute) -> AsyncIterator[list[Row]]:
    ((owner_id,),) = execute('SELECT id::text FROM "user" WHERE email = %s', email)
    return pages_of(app.state.database, queries.exported("name", queries.Terms().shape), owner_id=UUID(owner_id))


async def test_the_size_of_an_export_page_is_limited_and_no_contact_is_lost(
    app: FastAPI, ada: Client, execute: Execute
) -> None:
    details = [{"kind": "other", "value": "x" * 1000}] * 60
    for start in range(0, 60, 20):
        await ada.create_contacts([{"first_name": f"{n:02}", "details": details} for n in range(start, start + 20)])

    pages = [rows async for rows in await pages_of_all(app, ada.email, execute)]

    sizes = [sum(len(row["details"]) for row in rows) for rows in pages]
    assert max(sizes) < PAGE_BYTES + 64 * 1024
    assert [row["first_name"] for rows in pages for row in rows] == [f"{n:02}" for n in range(60)]


async def test_an_export_under_way_waits_for_a_locked_table(
    app: FastAPI, ada: Client, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "FIRST_ROWS", 1)
    await ada.create_contacts([{"first_name": f"{n}"} for n in range(3)])
    pages = await pages_of_all(app, ada.email, execute)
    first = await anext(pages)

    execute("BEGIN")
    execute("LOCK TABLE contact IN ACCESS EXCLUSIVE MODE")
    reading = asyncio.ensure_future(anext(pages))
    await asyncio.sleep(LOCK_SECONDS + 0.5)
    was_waiting = not reading.done()
    execute("COMMIT")
    rest = await reading

    assert was_waiting
    assert [row["first_name"] for row in [*first, *rest]] == ["0", "1", "2"]


async def test_an_export_gives_up_if_the_table_stays_locked(
    app: FastAPI, ada: Client, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "FIRST_ROWS", 1)
    monkeypatch.setattr(pagination, "WAIT_SECONDS", 0)
    await ada.create_contacts([{"first_name": f"{n}"} for n in range(3)])
    pages = await pages_of_all(app, ada.email, execute)
    await anext(pages)

    execute("BEGIN")
    execute("LOCK TABLE contact IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(asyncpg.LockNotAvailableError):
        await anext(pages)
    execute("COMMIT")
