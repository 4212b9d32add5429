"""The OpenAPI document: valid, complete, and true."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_CONTACT, A_PASSWORD, Client

METHODS_WITHOUT_TOKEN = {"register", "login", "issue_token", "refresh", "check_live", "check_ready"} | {
    "show_birthday_calendar"
}


@pytest.fixture(scope="session")
def document(make_settings: Callable[..., Settings]) -> dict[str, Any]:
    # As it is sent: what is shared between its parts has become equal parts.
    return dict(json.loads(json.dumps(create_app(make_settings()).openapi())))


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation | {"path": path, "method": method}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def schema_of(document: dict[str, Any], operation_id: str, status: int) -> dict[str, Any]:
    content = operations(document)[operation_id]["responses"][str(status)]["content"]
    (media,) = content.values()
    return {**media["schema"], "components": document["components"]}


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_operation_has_a_short_id_a_summary_and_a_description(document: dict[str, Any]) -> None:
    found = operations(document)

    assert found.keys() >= {"list_contacts", "create_contact", "get_contact", "replace_contact", "update_contact"}
    assert all(operation["summary"] and operation["description"] for operation in found.values())
    assert {name for name, operation in found.items() if "security" not in operation} == METHODS_WITHOUT_TOKEN


def test_every_operation_says_what_it_can_answer(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        statuses = set(operation["responses"])
        expected = {"422"}
        expected |= {"401"} if "security" in operation else set()
        expected |= {"413", "415"} if "requestBody" in operation else set()
        expected |= {"503"} if name != "check_live" else set()
        expected |= {"404"} if "_id}" in operation["path"] else set()
        assert expected <= statuses, name
    for name in "replace_contact", "update_contact", "delete_contact":
        assert "412" in operations(document)[name]["responses"]
    assert "304" in operations(document)["get_contact"]["responses"]


def test_nothing_is_named_that_no_one_uses(document: dict[str, Any]) -> None:
    text = json.dumps(document)

    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
    assert "HTTPValidationError" not in text


async def test_the_examples_work_as_they_are(client: Client, document: dict[str, Any]) -> None:
    """In the order in which one would try them on the docs page."""

    def example(operation_id: str) -> dict[str, Any]:
        media = next(iter(operations(document)[operation_id]["requestBody"]["content"].values()))
        schema = document["components"]["schemas"][media["schema"]["$ref"].rpartition("/")[2]]
        return dict(schema["examples"][0])

    registered = await client.post("/auth/register", json=example("register"))
    signed_in = await client.post("/auth/login", json=example("login"))
    form = await client.post("/auth/token", data=example("issue_token"))
    client.use(signed_in.json())
    created = await client.post("/contacts", json=example("create_contact"))
    path = created.headers["location"]
    replaced = await client.put(path, json=example("replace_contact"))
    patched = await client.patch(path, json=example("update_contact"))
    batch = await client.post("/contacts/batch", json=example("create_contacts"))
    changed = await client.patch("/users/me", json=example("update_me"))
    deleted = await client.post("/users/me/delete", json=example("delete_me"))

    answers = [registered, signed_in, form, created, replaced, patched, batch, changed, deleted]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 201, 200, 200, 201, 200, 204]


async def test_answers_are_what_their_schemas_say(ada: Client, document: dict[str, Any]) -> None:
    created = await ada.post("/contacts", json={**A_CONTACT, "date_of_birth": "2000-02-29"})
    path = created.headers["location"]
    answers = {
        ("create_contact", 201): created,
        ("get_contact", 200): await ada.get(path),
        ("replace_contact", 200): await ada.put(path, json=A_CONTACT),
        ("update_contact", 200): await ada.patch(path, json={"additional_info": "x"}),
        ("create_contacts", 201): await ada.post("/contacts/batch", json={"items": [A_CONTACT]}),
        ("list_contacts", 200): await ada.get("/contacts?with_total=true"),
        ("list_birthdays", 200): await ada.get("/contacts/birthdays?days=365"),
        ("get_me", 200): await ada.get("/users/me"),
        ("list_sessions", 200): await ada.get("/auth/sessions"),
        ("login", 200): await ada.post("/auth/login", json={"email": ada.email, "password": A_PASSWORD}),
        ("check_ready", 200): await ada.get("/health/ready"),
        ("create_contact", 422): await ada.post("/contacts", json={}),
        ("get_contact", 404): await ada.get("/contacts/00000000-0000-0000-0000-000000000000"),
    }

    for (operation_id, status), answer in answers.items():
        assert answer.status_code == status, operation_id
        schema = schema_of(document, operation_id, status)
        validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
        validator.validate(answer.json())
    shown = {**document["components"]["schemas"]["ContactPublic"], "additionalProperties": False}
    jsonschema.validate(created.json(), shown)
