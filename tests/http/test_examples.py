"""The examples of the OpenAPI document are real answers: each is what the API returns when they are tried in turn."""

import json
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from httpx import Response

from contacts_api.contacts.models import AN_ID
from tests.client import Client
from tests.safety.document import document

A_FILE = b"""\
first_name,last_name,email,Shoe size
Grace,Hopper,grace@example.com,37
Mary,Jackson,mary@example.com,39
"""
NEVER_THE_SAME = {"access_token", "refresh_token", "created_at", "updated_at", "refreshed_at", "expires_at", "url"} | {
    "birthday_on", "days_until", "turns", "key",
}  # fmt: skip
"""Members that depend on the time or on chance. Only their types are compared."""


def example_of(name: str, status: str = "") -> Any:
    """Return the example of an operation's body, or of its answer with this status."""
    every = (operation for methods in document()["paths"].values() for operation in methods.values())
    operation = next(each for each in every if each["operationId"] == name)
    message = operation["responses"][status] if status else operation["requestBody"]
    return next(iter(message["content"].values()))["example"]


def comparable(value: Any, ids: dict[str, str]) -> Any:
    """Return a value with the ids of the examples, and with types in place of members that vary."""
    if isinstance(value, dict):
        return {
            name: type(member).__name__ if name in NEVER_THE_SAME else comparable(member, ids)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [comparable(member, ids) for member in value]
    return ids.get(value, value) if isinstance(value, str) else value


async def test_the_examples_match_the_answers_of_the_api(app: FastAPI, client: Client) -> None:
    client.headers["User-Agent"] = "Mozilla/5.0"
    ids: dict[str, str] = {}

    def expect(name: str, response: Response) -> Any:
        status, answer = (
            str(response.status_code),
            response.json() if "json" in response.headers["content-type"] else None,
        )
        shown = example_of(name, status)
        if answer is None:
            assert comparable_text(response.text, ids) == comparable_text(shown, ids), name
            return None
        if isinstance(answer.get("id"), str):
            ids.setdefault(answer["id"], shown["id"])
        assert json.dumps(comparable(answer, ids), indent=1) == json.dumps(comparable(shown, {}), indent=1), name
        return answer

    expect("register", await client.post("/auth/register", json=example_of("register")))
    client.use(expect("login", await client.post("/auth/login", json=example_of("login"))))
    expect("issue_token", await client.post("/auth/token", data=example_of("issue_token")))
    expect("refresh", await client.post("/auth/refresh", json={"refresh_token": client.tokens["refresh_token"]}))
    expect("get_me", await client.get("/users/me"))
    expect("update_me", await client.patch("/users/me", json=example_of("update_me")))
    sessions = (await client.get("/auth/sessions")).json()["items"]
    ids[sessions[0]["id"]] = example_of("list_sessions", "200")["items"][0]["id"]
    expect("list_sessions", await client.get("/auth/sessions"))

    expect("create_key", await client.post("/auth/keys", json=example_of("create_key")))
    expect("list_keys", await client.get("/auth/keys"))
    mail = SimpleNamespace(purpose="verify", address="ada@example.com")
    expect("verify", await client.post("/auth/verify", json={"token": await app.state.users.token_for(mail)}))

    created = expect("create_contact", await client.post("/contacts", json=example_of("create_contact")))
    path = f"/contacts/{created['id']}"
    expect("get_contact", await client.get(path))
    expect("list_contacts", await client.get("/contacts", params={"with_total": True}))
    expect("replace_contact", await client.put(path, json=example_of("replace_contact")))
    expect("update_contact", await client.patch(path, json=example_of("update_contact")))
    expect("list_birthdays", await client.get("/contacts/birthdays", params={"days": 365}))
    expect("list_labels", await client.get("/contacts/labels"))
    expect("export_csv", await client.get("/contacts/export.csv"))
    expect("export_vcards", await client.get("/contacts/export.vcf"))
    feed = expect("open_birthday_feed", await client.post("/contacts/birthdays/feed"))
    expect("show_birthday_calendar", await client.get(feed["url"]))
    expect("import_contacts", await client.post("/contacts/import", files={"file": ("contacts.csv", A_FILE)}))
    changes = [{**example_of("update_contacts")["items"][0], "id": created["id"]}]
    expect("update_contacts", await client.post("/contacts/batch/update", json={"items": changes}))
    expect("rename_label", await client.patch("/contacts/labels/Navy", json=example_of("rename_label")))
    expect("delete_label", await client.delete("/contacts/labels/Shipmates"))
    expect("delete_contacts", await client.post("/contacts/batch/delete", json={"ids": [created["id"]]}))
    batch = await client.post("/contacts/batch", json=example_of("create_contacts"))
    ids[batch.json()["items"][0]["id"]] = AN_ID
    expect("create_contacts", batch)
    expect("check_live", await client.get("/health/live"))
    expect("check_ready", await client.get("/health/ready"))
    deleted = await client.post("/users/me/delete", json=example_of("delete_me"))
    assert deleted.status_code == 204


def comparable_text(text: str, ids: dict[str, str]) -> str:
    for own, shown in ids.items():
        text = text.replace(own, shown)
    lines = text.removeprefix("\ufeff").split("\r\n")
    return "\n".join(line for line in lines if not line.startswith("DTSTAMP:"))
