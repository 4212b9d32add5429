"""Labels across all contacts of an account: list, rename, merge and delete."""

from typing import Any

import pytest

from contacts_api.contacts import labels as labels_module
from contacts_api.http import paging as pagination
from tests.client import Client


async def labels_of(client: Client) -> dict[str, list[str]]:
    return {contact["first_name"]: contact["labels"] for contact in await client.list_contacts(sort="created_at")}


async def listed(client: Client) -> list[tuple[str, int]]:
    response = await client.get("/contacts/labels")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "private, no-cache"
    return [(each["label"], each["contacts"]) for each in response.json()["items"]]


@pytest.fixture
async def address_book(ada: Client, grace: Client) -> Client:
    await ada.create_contact(first_name="A", labels=["Zoo", "Friends"])
    await ada.create_contact(first_name="B", labels=["FRIENDS", "élan"])
    await ada.create_contact(first_name="C", labels=["Work", "a/b", "friends"])
    await ada.create_contact(first_name="D")
    await grace.create_contact(first_name="G", labels=["Friends", "Hers"])
    return ada


async def test_labels_are_listed_by_folded_text_in_their_first_spelling(address_book: Client) -> None:
    assert await listed(address_book) == [("a/b", 1), ("élan", 1), ("Friends", 3), ("Work", 1), ("Zoo", 1)]


async def test_renaming_a_label_changes_every_contact_that_has_it(address_book: Client, grace: Client) -> None:
    before = {contact["first_name"]: contact for contact in await address_book.list_contacts()}
    tags = [(await address_book.get(f"/contacts/{before[name]['id']}")).headers["etag"] for name in "AD"]

    response = await address_book.patch("/contacts/labels/friends", json={"label": " Pals "})

    after = {contact["first_name"]: contact for contact in await address_book.list_contacts()}
    assert (response.status_code, response.json()) == (200, {"contacts": 3})
    assert await labels_of(address_book) == {
        "A": ["Zoo", "Pals"],
        "B": ["Pals", "élan"],
        "C": ["Work", "a/b", "Pals"],
        "D": [],
    }
    assert after["D"] == before["D"]
    assert after["A"] == {**before["A"], "labels": ["Zoo", "Pals"], "updated_at": after["A"]["updated_at"]}
    assert after["A"]["updated_at"] > before["A"]["updated_at"]
    now = [(await address_book.get(f"/contacts/{before[name]['id']}")).headers["etag"] for name in "AD"]
    assert (now[0] == tags[0], now[1] == tags[1]) == (False, True)
    assert await address_book.first_names(label="pals") == ["A", "B", "C"]
    assert await address_book.first_names(label="friends") == []
    assert await listed(grace) == [("Friends", 1), ("Hers", 1)]


async def test_renaming_a_label_to_an_existing_one_merges_them(address_book: Client) -> None:
    response = await address_book.patch("/contacts/labels/Work", json={"label": "friends"})

    assert response.json() == {"contacts": 1}
    assert (await labels_of(address_book))["C"] == ["friends", "a/b"]
    assert dict(await listed(address_book))["Friends"] == 3


async def test_a_change_of_case_counts_as_a_change_and_an_equal_name_does_not(address_book: Client) -> None:
    first = await address_book.patch("/contacts/labels/friends", json={"label": "Friends"})
    second = await address_book.patch("/contacts/labels/friends", json={"label": "Friends"})

    assert (first.json(), second.json()) == ({"contacts": 2}, {"contacts": 0})


async def test_deleting_a_label_keeps_the_contacts(address_book: Client) -> None:
    response = await address_book.delete("/contacts/labels/FRIENDS")
    slash = await address_book.delete("/contacts/labels/a%2Fb")

    assert (response.json(), slash.json()) == ({"contacts": 3}, {"contacts": 1})
    assert await labels_of(address_book) == {"A": ["Zoo"], "B": ["élan"], "C": ["Work"], "D": []}


@pytest.mark.parametrize("label", ["nobody", "Hers", "friend", "labels", "Fri%25"])
async def test_a_label_that_none_of_your_contacts_has_is_a_404(address_book: Client, label: str) -> None:
    renamed = await address_book.patch(f"/contacts/labels/{label}", json={"label": "x"})
    deleted = await address_book.delete(f"/contacts/labels/{label}")

    assert (renamed.status_code, renamed.json()["code"]) == (404, "label_not_found")
    assert (deleted.status_code, deleted.json()["code"]) == (404, "label_not_found")


@pytest.mark.parametrize(
    "body", [{}, {"label": ""}, {"label": None}, {"label": "x" * 65}, {"label": "a\nb"}, {"lable": "x"}]
)
async def test_an_invalid_new_name_changes_nothing(address_book: Client, body: dict[str, Any]) -> None:
    response = await address_book.patch("/contacts/labels/friends", json=body)

    assert response.status_code == 422
    assert dict(await listed(address_book))["Friends"] == 3


async def test_labels_are_changed_in_small_batches(ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "_BITE_ROWS", 3)
    await ada.create_contacts([{"first_name": f"{n}", "labels": ["Friends"] if n % 4 else []} for n in range(25)])

    assert (await ada.patch("/contacts/labels/friends", json={"label": "Pals"})).json() == {"contacts": 18}
    assert await listed(ada) == [("Pals", 18)]
    assert (await ada.delete("/contacts/labels/pals")).json() == {"contacts": 18}
    assert await listed(ada) == []


async def test_only_the_most_used_of_many_labels_are_listed(ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "MAX_COUNTED", 300)
    monkeypatch.setattr(labels_module, "MAX_LISTED", 3)
    monkeypatch.setattr(pagination, "FIRST_ROWS", 2)
    monkeypatch.setattr(pagination, "PAGE_ROWS", 2)
    often = ["Friends", "FRIENDS", "Work"]
    await ada.create_contacts([{"labels": [often[n % 3], *(f"{n} {k}" for k in range(40))]} for n in range(12)])

    assert await listed(ada) == [("0 0", 1), ("Friends", 8), ("Work", 4)]
