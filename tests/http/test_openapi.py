"""The OpenAPI document is valid, complete and correct."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from contacts_api.app import create_app
from contacts_api.http.field_errors import CODES
from contacts_api.http.openapi import CHAPTERS
from contacts_api.settings import Settings
from tests.client import A_CONTACT, A_PASSWORD, Client

METHODS_WITHOUT_TOKEN = {"register", "login", "issue_token", "refresh", "check_live", "check_ready"} | {
    "forgot_password",
    "reset_password",
    "verify",
    "show_birthday_calendar",
}


@pytest.fixture(scope="session")
def document(make_settings: Callable[..., Settings]) -> dict[str, Any]:
    # The document as sent: parts that share an object become separate copies.
    return dict(json.loads(json.dumps(create_app(make_settings()).openapi())))


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation | {"path": path, "method": method}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def schema_of(document: dict[str, Any], operation_id: str, status: int) -> dict[str, Any]:
    answer = operations(document)[operation_id]["responses"][str(status)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    content = answer["content"]
    (media,) = content.values()
    return {**media["schema"], "components": document["components"]}


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_operation_has_a_short_id_a_summary_and_a_description(document: dict[str, Any]) -> None:
    found = operations(document)

    assert found.keys() >= {"list_contacts", "create_contact", "get_contact", "replace_contact", "update_contact"}
    assert all(operation["summary"] and operation["description"] for operation in found.values())
    assert {name for name, operation in found.items() if "security" not in operation} == METHODS_WITHOUT_TOKEN


def test_every_operation_lists_its_statuses(document: dict[str, Any]) -> None:
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


def test_every_schema_is_used(document: dict[str, Any]) -> None:
    text = json.dumps(document)

    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
    assert "HTTPValidationError" not in text


def test_everything_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    """Problems have their own examples. A list or an object has an example if its members have one."""
    components = document["components"]
    members = [
        (f"{schema}.{name}", member)
        for schema, content in components["schemas"].items()
        for name, member in content.get("properties", {}).items()
    ]
    parameters = [
        (f"{operation_id} {parameter['name']}", parameter | {"examples": parameter["schema"].get("examples")})
        for operation_id, operation in operations(document).items()
        for parameter in operation.get("parameters", ())
    ]
    headers = [(name, header | {"examples": [header["example"]]}) for name, header in components["headers"].items()]
    described = [*members, *parameters, *headers]

    assert len(described) > 150
    assert [name for name, each in described if not each.get("description")] == []
    assert [name for name, each in described if not each.get("examples") and "$ref" not in str(each)] == []


def test_bodies_and_answers_in_json_have_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        messages = [operation.get("requestBody", {})]
        messages += [answer for status, answer in operation["responses"].items() if status < "3"]
        for media_type, media in (each for message in messages for each in message.get("content", {}).items()):
            assert "example" in media or media_type == "multipart/form-data", f"{name}: {media_type}"


def test_members_that_are_always_present_are_required(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    for name in "ContactPublic", "ContactPage", "ImportReport", "TokenPair", "UserPublic", "SessionPublic":
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"]), name
    assert schemas["ProblemDetails"]["required"] == ["type", "title", "status", "detail", "code"]
    assert schemas["ProblemDetails"]["properties"]["errors"]["type"] == "array"


def test_the_codes_of_errors_are_listed(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    problems = schemas["ProblemDetails"]["properties"]["code"]["enum"]
    fields = schemas["FieldError"]["properties"]["code"]["enum"]

    assert {"contact_not_found", "email_taken", "validation_error", "busy"} <= set(problems)
    assert set(CODES) | {"weak_password", "invalid_cursor", "contact_not_found"} <= set(fields)
    assert set(fields) <= set(CODES) | set(problems)


def test_parameters_have_a_type_and_headers_their_real_names(document: dict[str, Any]) -> None:
    for operation_id, operation in operations(document).items():
        for parameter in operation.get("parameters", ()):
            assert "type" in parameter["schema"], (operation_id, parameter)
    put = [each["name"] for each in operations(document)["replace_contact"]["parameters"]]
    assert put == ["contact_id", "If-None-Match", "If-Match"]


def test_chapters_and_operations_are_in_reading_order(document: dict[str, Any]) -> None:
    first = list(operations(document))

    assert [tag["name"] for tag in document["tags"]] == list(CHAPTERS)
    assert first[:2] == ["register", "login"]
    assert first.index("create_contact") < first.index("list_contacts")
    assert {tag for operation in operations(document).values() for tag in operation["tags"]} == set(CHAPTERS)


def test_shared_errors_are_defined_once(document: dict[str, Any]) -> None:
    unauthorized = {
        json.dumps(operation["responses"]["401"])
        for operation in operations(document).values()
        if operation["path"].startswith("/users")
    }

    assert len(unauthorized) == 1
    assert "#/components/responses/401" in unauthorized.pop()
    assert all("500" in operation["responses"] for operation in operations(document).values())


def test_a_new_contact_has_links_to_its_operations(document: dict[str, Any]) -> None:
    links = operations(document)["create_contact"]["responses"]["201"]["links"]

    assert links.keys() == {"get_contact", "replace_contact", "update_contact", "delete_contact"}
    assert document["components"]["links"]["get_contact"]["parameters"] == {"contact_id": "$response.body#/id"}


async def test_the_document_names_the_requested_server(client: Client) -> None:
    elsewhere = (await client.get("/openapi.json", headers={"Host": "contacts.example.com"})).json()

    assert elsewhere["servers"][0]["url"] == "http://contacts.example.com"
    flow = elsewhere["components"]["securitySchemes"]["Account"]["flows"]["password"]
    assert flow["tokenUrl"] == flow["refreshUrl"] == "http://contacts.example.com/auth/token"
    assert elsewhere["components"]["securitySchemes"]["Token"]["scheme"] == "bearer"
    validate(elsewhere)


async def test_the_document_is_compressed_and_cacheable(client: Client) -> None:
    first = await client.get("/openapi.json")
    again = await client.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    plain = await client.get("/openapi.json", headers={"Accept-Encoding": "identity"})

    assert first.headers["content-encoding"] == "gzip"
    assert (again.status_code, again.content) == (304, b"")
    assert plain.json() == first.json()


async def test_answers_match_their_schemas(ada: Client, document: dict[str, Any]) -> None:
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
