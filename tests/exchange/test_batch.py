from collections.abc import Mapping

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
