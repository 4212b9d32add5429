from uuid import uuid4

import pytest

from tests.client import A_CONTACT, Client

JSON = {"Content-Type": "application/json"}


async def test_no_body_where_one_is_needed_is_a_422(ada: Client) -> None:
    for headers in {}, JSON:
        response = await ada.post("/contacts", headers=headers)

        assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["body"])


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/vnd.api+json", "multipart/form-data", ""],
)
async def test_a_body_of_another_type_is_a_415_that_says_which_to_send(ada: Client, media_type: str) -> None:
    response = await ada.post("/contacts", content=b"{}", headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["detail"]
    assert response.headers["accept"] == "application/json"


async def test_a_merge_patch_is_for_patch_alone(ada: Client) -> None:
    response = await ada.post("/contacts", json=A_CONTACT, headers={"Content-Type": "application/merge-patch+json"})

    assert response.status_code == 415


async def test_a_415_of_patch_names_both_types_that_it_takes(ada: Client) -> None:
    contact = await ada.create_contact()

    response = await ada.patch(
        f"/contacts/{contact['id']}", content=b"[]", headers={"Content-Type": "application/json-patch+json"}
    )

    assert (response.status_code, "accept" in response.headers) == (415, False)
    assert response.headers["accept-patch"] == "application/json, application/merge-patch+json"


@pytest.mark.parametrize(
    ("who", "contact_id", "query", "body", "status"),
    [
        ("nobody", "{own}", "?x=1", {"x": 1}, 401),
        ("ada", "{none}", "?x=1", {"x": 1}, 404),
        ("ada", "{own}", "?x=1", {}, 422),
        ("ada", "{own}", "", {"x": 1}, 422),
        ("ada", "{own}", "", {}, 200),
    ],
)
async def test_the_order_of_answers(
    ada: Client, client: Client, who: str, contact_id: str, query: str, body: dict[str, int], status: int
) -> None:
    contact = await ada.create_contact()
    path = "/contacts/" + contact_id.format(own=contact["id"], none=uuid4()) + query

    response = await (ada if who == "ada" else client).patch(path, json=body)

    assert response.status_code == status
