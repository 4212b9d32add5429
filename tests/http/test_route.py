import gzip
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from uuid import uuid4

import psycopg2
import pytest

from contacts_api.http.route import Route
from tests.client import A_CONTACT, Client

JSON = {"Content-Type": "application/json"}


@contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Lock all contacts, so that every statement on contacts waits."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE contact IN ACCESS EXCLUSIVE MODE")
        yield


async def test_a_missing_body_is_a_422(ada: Client) -> None:
    for headers in {}, JSON:
        response = await ada.post("/contacts", headers=headers)

        assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["body"])


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/vnd.api+json", "multipart/form-data", ""],
)
async def test_a_body_of_an_unsupported_type_is_a_415_that_names_the_right_one(ada: Client, media_type: str) -> None:
    response = await ada.post("/contacts", content=b"{}", headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["detail"]
    assert response.headers["accept"] == "application/json"


async def test_a_merge_patch_is_accepted_only_by_patch(ada: Client) -> None:
    response = await ada.post("/contacts", json=A_CONTACT, headers={"Content-Type": "application/merge-patch+json"})

    assert response.status_code == 415


async def test_a_415_of_patch_names_both_supported_types(ada: Client) -> None:
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
        ("ada", "{none}", "", {"x": 1}, 422),
        ("ada", "{none}", "", {}, 404),
        ("ada", "{own}", "?x=1", {}, 422),
        ("ada", "{own}", "", {"x": 1}, 422),
        ("ada", "{own}", "", {}, 200),
    ],
)
async def test_errors_are_reported_in_a_fixed_order(
    ada: Client, client: Client, who: str, contact_id: str, query: str, body: dict[str, int], status: int
) -> None:
    contact = await ada.create_contact()
    path = "/contacts/" + contact_id.format(own=contact["id"], none=uuid4()) + query

    response = await (ada if who == "ada" else client).patch(path, json=body)

    assert response.status_code == status


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP, identity"])
async def test_a_compressed_body_is_a_415_that_asks_for_an_uncompressed_one(ada: Client, encoding: str) -> None:
    body = gzip.compress(json.dumps(A_CONTACT).encode())

    response = await ada.post("/contacts", content=body, headers={**JSON, "Content-Encoding": encoding})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert response.headers["accept-encoding"] == "identity"
    assert "Content-Encoding" in response.json()["detail"]


async def test_a_body_with_the_encoding_identity_is_read(ada: Client) -> None:
    response = await ada.post("/contacts", json=A_CONTACT, headers={"Content-Encoding": "Identity"})

    assert response.status_code == 201


async def test_a_missed_deadline_is_a_503_with_retry_after(
    ada: Client, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contact = await ada.create_contact()
    monkeypatch.setattr(Route, "seconds", 0.2)
    with locked(database_url):
        response = await ada.get(f"/contacts/{contact['id']}")

    assert (response.status_code, response.json()["code"]) == (503, "busy")
    assert response.headers["retry-after"] == "1"
