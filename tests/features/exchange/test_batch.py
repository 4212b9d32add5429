from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from tests.client import A_CONTACT, Client

JSON = {"Content-Type": "application/json"}


def batch(*changes: Mapping[str, object]) -> dict[str, object]:
    return {"items": [{**A_CONTACT, **change} for change in changes]}


async def test_a_batch_is_created_in_its_order(ada: Client, grace: Client) -> None:
    names = [f"Contact {n % 7} {n}" for n in range(500)]

    response = await ada.post("/contacts/batch", json=batch(*({"first_name": name} for name in names)))

    items = response.json()["items"]
    assert response.status_code == 201
    assert [item["first_name"] for item in items] == names
    assert items == await ada.list_contacts(sort="created_at", limit=500)
    assert (await ada.get(f"/contacts/{items[3]['id']}")).json() == items[3]
    assert [item["id"] for item in await ada.list_contacts(q="contact 499")] == [items[499]["id"]]
    assert await grace.list_contacts() == []


async def test_one_bad_item_and_none_is_created(ada: Client) -> None:
    response = await ada.post("/contacts/batch", json=batch({}, {}, {}, {"email": "x"}, {}, {"additional_infos": ""}))

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [
        ["body", "items", 3, "email"],
        ["body", "items", 5, "additional_infos"],
    ]
    assert await ada.list_contacts() == []


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_has_1_to_500_items(ada: Client, count: int) -> None:
    response = await ada.post("/contacts/batch", json=batch(*[{}] * count))

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["body", "items"])


async def test_a_batch_may_have_2_mib(ada: Client) -> None:
    body = b'{"items": ["' + b"x" * (2 * 1024 * 1024 - 15) + b'"]}'

    responses = [await ada.post("/contacts/batch", content=body + b" " * more, headers=JSON) for more in (0, 1)]

    assert [response.status_code for response in responses] == [422, 413]
    assert "2,097,152" in responses[1].json()["detail"]


async def etags(client: Client, contacts: list[dict[str, Any]]) -> list[str]:
    return [(await client.get(f"/contacts/{contact['id']}")).headers["etag"] for contact in contacts]


async def test_many_contacts_are_changed_at_once(ada: Client) -> None:
    first, second, third = [await ada.create_contact(last_name=name) for name in ("A", "B", "C")]
    before = await etags(ada, [first, second, third])
    items = [{**third, "last_name": "Z"}, {"id": first["id"], "email": None}, {"id": second["id"], "last_name": "B"}]

    response = await ada.post("/contacts/batch/update", json={"items": items})

    answered = response.json()["items"]
    assert response.status_code == 200
    assert [item["id"] for item in answered] == [third["id"], first["id"], second["id"]]
    assert (answered[0]["last_name"], answered[1]["email"], answered[2]) == ("Z", None, second)
    after = await etags(ada, [first, second, third])
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]
    assert answered[0]["updated_at"] > third["updated_at"]
    assert await ada.list_contacts(last_name="z") == answered[:1]


async def test_of_a_batch_with_a_stranger_nothing_is_changed(ada: Client, grace: Client) -> None:
    mine, theirs = await ada.create_contact(), await grace.create_contact()
    items = [{"id": each["id"], "last_name": "Changed"} for each in (mine, theirs)]

    response = await ada.post("/contacts/batch/update", json={"items": items})

    assert (response.status_code, response.json()["code"]) == (404, "contact_not_found")
    assert [error["loc"] for error in response.json()["errors"]] == [["body", "items", 1, "id"]]
    assert (await ada.list_contacts(), await grace.list_contacts()) == ([mine], [theirs])


@pytest.mark.parametrize(
    ("change", "loc", "code"),
    [
        ({}, ["body", "items", 1, "id"], "repeated"),
        ({"id": "x"}, ["body", "items", 1, "id"], "malformed"),
        ({"first_name": None}, ["body", "items", 1, "first_name"], "wrong_type"),
        ({"shoe_size": 5}, ["body", "items", 1, "shoe_size"], "unknown"),
    ],
)
async def test_a_bad_change_changes_nothing(
    ada: Client, change: Mapping[str, object], loc: list[str | int], code: str
) -> None:
    contact = await ada.create_contact()
    items = [{"id": contact["id"], "last_name": "Changed"}, {"id": contact["id"], **change}]

    (error,) = (await ada.post("/contacts/batch/update", json={"items": items})).json()["errors"]

    assert (error["loc"], error["code"]) == (loc, code)
    assert await ada.list_contacts() == [contact]


async def test_many_contacts_are_deleted_at_once(ada: Client, grace: Client) -> None:
    mine, kept, theirs = await ada.create_contact(), await ada.create_contact(), await grace.create_contact()
    ids = [mine["id"], mine["id"], theirs["id"], str(uuid4())]

    response = await ada.post("/contacts/batch/delete", json={"ids": ids})

    assert (response.status_code, response.json()) == (200, {"deleted": 1})
    assert (await ada.list_contacts(), await grace.list_contacts()) == ([kept], [theirs])


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_names_1_to_500_contacts(ada: Client, count: int) -> None:
    ids = [str(uuid4()) for _ in range(count)]

    deleted = await ada.post("/contacts/batch/delete", json={"ids": ids})
    changed = await ada.post("/contacts/batch/update", json={"items": [{"id": each} for each in ids]})

    assert [each.json()["errors"][0]["loc"] for each in (deleted, changed)] == [["body", "ids"], ["body", "items"]]
