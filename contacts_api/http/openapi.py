"""Completes FastAPI's OpenAPI document for human readers and client generators."""

import json
import re
from collections import Counter
from copy import deepcopy
from http import HTTPStatus
from importlib.resources import files
from typing import Any, TypeAlias

from contacts_api.http.field_errors import CODES
from contacts_api.problems import PROBLEM_JSON, InternalError, Invalid, all_problems, documented, problem_schemas

Json: TypeAlias = dict[str, Any]

# The chapters in reading order, with the prefixes of their paths. Their texts are in guide.md.
CHAPTERS = {
    "Start here": ("/auth/register", "/auth/login"),
    "Signing in": ("/auth",),
    "Contacts": ("/",),
    "Labels": ("/contacts/labels",),
    "Birthdays": ("/contacts/birthdays",),
    "Files": ("/contacts/import", "/contacts/export"),
    "Account": ("/users",),
    "Health": ("/health",),
}
HEADERS = {
    "ETag": ("The version of what was returned (RFC 9110, 8.8.3), for `If-Match` and `If-None-Match`.", '"1"'),
    "Location": (
        "Where the new contact is: a path on this server.",
        "/contacts/01a22042-afe2-74f4-844b-d6ec422a71e8",
    ),
    "Link": (
        'Leads to the next page (RFC 8288, `rel="next"`), by a path on this server. On the last page it is not there.',
        '</contacts?limit=50&cursor=ZlJ8cX1v>; rel="next"',
    ),
    "Content-Disposition": ("The name of the file (RFC 6266).", 'attachment; filename="contacts.csv"'),
    "Accept": ("The types that the call takes (RFC 9110, 15.5.16).", "application/json"),
    "Accept-Encoding": ("That the body must not be compressed (RFC 9110, 15.5.16).", "identity"),
    "Accept-Patch": ("The same, for PATCH (RFC 5789, 3.1).", "application/json, application/merge-patch+json"),
    "Retry-After": ("In how many seconds to try again (RFC 9110, 10.2.3).", "1"),
    "WWW-Authenticate": (
        "What is needed, and what is wrong with the token that was sent (RFC 6750, 3).",
        'Bearer error="invalid_token"',
    ),
}
# OpenAPI links from a created contact to other operations, by operation id.
LINKS = {
    "get_contact": "Read it.",
    "replace_contact": "Replace it.",
    "update_contact": "Change some of its fields.",
    "delete_contact": "Delete it.",
}
_SUCCESSES = {
    "200": "What was asked for.",
    "201": "What was created.",
    "204": "It is done. There is nothing to return.",
    "304": "It has not changed since you read it.",
}
_METHODS = ("post", "get", "put", "patch", "delete")
_FIRST_SENTENCE = re.compile(r"(.+?)\.(?:\s+(.*))?", re.DOTALL)


def completed(document: Json) -> Json:
    """Return a completed copy of FastAPI's document.

    Adds chapters, summaries, examples and links. Moves responses that several operations share into components. Marks
    members that are always sent as required, and removes null from parameters and form fields.
    """
    document = deepcopy(document)
    components = document["components"]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    schemas = components["schemas"] = _complete_schemas(components["schemas"], operations)
    for operation in operations:
        _complete_operation(operation, schemas)
    for schema in schemas.values():
        # _add_examples() has copied it to the request bodies and responses.
        schema.pop("examples", None)
    components["responses"] = _share_responses(operations)
    components["headers"] = {
        name: {"description": description, "schema": {"type": "string"}, "example": example}
        for name, (description, example) in HEADERS.items()
    }
    components["links"] = {
        name: {"operationId": name, "description": description, "parameters": {"contact_id": "$response.body#/id"}}
        for name, description in LINKS.items()
    }
    components["securitySchemes"]["Token"] = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token, or a key (`ck_…`).",
    }
    # No default: each operation declares whether it needs a token.
    document["security"] = []
    introduction, *chapters = (files("contacts_api.http") / "guide.md").read_text().split("\n# ")
    texts = {title: text.strip() for title, _, text in (chapter.partition("\n") for chapter in chapters)}
    document["info"]["description"] = introduction.strip()
    document["tags"] = [{"name": chapter, "description": texts[chapter]} for chapter in CHAPTERS]
    document["paths"] = _in_reading_order(document["paths"])
    return document


def at_server(document: Json, address: str) -> Json:
    """Return the document with the absolute URL of the server and its token endpoint."""
    schemes = document["components"]["securitySchemes"]
    token_url = f"{address}/auth/token"
    flow = {"scopes": {}, "tokenUrl": token_url, "refreshUrl": token_url}
    account = {**schemes["Account"], "flows": {"password": flow}}
    return {
        **document,
        "servers": [{"url": address, "description": "This server"}],
        "components": {**document["components"], "securitySchemes": {**schemes, "Account": account}},
    }


def _complete_schemas(schemas: Json, operations: list[Json]) -> Json:
    schemas |= problem_schemas()
    for schema in schemas.values():
        for member in schema.get("properties", {}).values():
            # Pydantic generates the title from the member's name, so it says nothing new.
            member.pop("title", None)
            if member.get("default", ...) is None:
                # The member is optional. A default of null would mean that clients may send null.
                del member["default"]
    codes_of_fields = {each.code for each in all_problems() if issubclass(each, Invalid) or each.status == 404}
    schemas["FieldError"]["properties"]["code"]["enum"] = [
        *CODES,
        *sorted(codes_of_fields - CODES.keys() - {"not_found"}),
    ]
    problem = schemas["ProblemDetails"]["properties"]
    problem["code"]["enum"] = sorted({each.code for each in all_problems()})
    # Problems without field errors omit `errors`.
    del problem["errors"]["default"]
    sent = _schemas_in([operation.get("requestBody") for operation in operations], schemas)
    for name in schemas.keys() - sent - {"ProblemDetails"}:
        # The server sends all other members.
        if properties := schemas[name].get("properties"):
            schemas[name]["required"] = list(properties)
            for member in properties.values():
                member.pop("default", None)
    return schemas


def _schemas_in(part: Any, schemas: Json) -> set[str]:
    """Return the names of the schemas that a part of the document refers to, directly or indirectly."""
    found: set[str] = set()
    new = set(_references(part))
    while new:
        found |= new
        new = {name for each in new for name in _references(schemas[each])} - found
    return found


def _references(part: Any) -> list[str]:
    return re.findall('"#/components/schemas/(.+?)"', json.dumps(part))


def _name_in(reference: str) -> str:
    return reference.rpartition("/")[2]


def _complete_operation(operation: Json, schemas: Json) -> None:
    if found := _FIRST_SENTENCE.fullmatch(operation["description"]):
        operation["summary"] = " ".join(found[1].split())
        operation["description"] = found[2] or f"{operation['summary']}."
    for parameter in operation.get("parameters", ()):
        _complete_parameter(parameter)
    if "security" in operation:
        is_optional = {} in operation["security"]
        operation["security"] = [{"Account": []}, {"Token": []}] + [{}] * is_optional
    for media in operation.get("requestBody", {}).get("content", {}).values():
        _make_plain(media["schema"])
    _add_examples(operation.get("requestBody", {}), schemas)
    responses = operation["responses"]
    responses.update({str(status): response for status, response in documented(InternalError).items()})
    operation["responses"] = dict(sorted(responses.items()))
    for status, response in responses.items():
        response["description"] = _SUCCESSES.get(status, HTTPStatus(int(status)).phrase)
        for name in response.get("headers", ()):
            response["headers"][name] = {"$ref": f"#/components/headers/{name}"}
        _add_examples(response, schemas)
    if operation["operationId"] == "create_contact":
        responses["201"]["links"] = {name: {"$ref": f"#/components/links/{name}"} for name in LINKS}


def _complete_parameter(parameter: Json) -> None:
    schema = parameter["schema"]
    _make_plain(schema)
    schema.pop("title", None)
    schema.pop("description", None)
    if parameter["in"] == "header":
        parameter["name"] = parameter["name"].title()


def _make_plain(schema: Json) -> None:
    """Remove null from the types, because parameters and form fields can be absent but not null."""
    for choice in schema.pop("anyOf", ()):
        if choice.get("type") != "null":
            schema.update(choice)


def _add_examples(message: Json, schemas: Json) -> None:
    """Build the example of a request body or response from the examples of its members.

    A route can override some members with the `example` of a response.
    """
    for media_type, media in message.get("content", {}).items():
        if "form" in media_type:
            _complete_form(schemas[_name_in(media["schema"]["$ref"])])
        if media_type.partition(";")[0].endswith(("json", "urlencoded")) and media_type != PROBLEM_JSON:
            example = _example_of(media["schema"], schemas)
            media["example"] = example | media["example"] if "example" in media else example


def _complete_form(schema: Json) -> None:
    """Remove null from the fields of a form, and set the `example` of each, which Postman reads."""
    for field in schema["properties"].values():
        _make_plain(field)
        field["example"] = field["examples"][0]


def _example_of(schema: Json, schemas: Json) -> Any:
    if "$ref" in schema:
        return _example_of(schemas[_name_in(schema["$ref"])], schemas)
    members = schema.get("properties")
    if members and "examples" in schema:
        # Pydantic sorts the members of an example. Restore their order.
        return {name: schema["examples"][0][name] for name in members if name in schema["examples"][0]}
    if "examples" in schema:
        return schema["examples"][0]
    if "items" in schema:
        return [_example_of(schema["items"], schemas)]
    return {name: _example_of(each, schemas) for name, each in (members or {}).items() if "readOnly" not in each}


def _share_responses(operations: list[Json]) -> Json:
    """Replace error responses that several operations share with references.

    Return the shared responses by name. The name consists of the status and the problem codes.
    """
    responses = [each["responses"] for each in operations]
    uses = Counter(_name_of(status, response) for each in responses for status, response in each.items())
    shared: Json = {}
    for each in responses:
        for status, response in each.items():
            name = _name_of(status, response)
            if name and uses[name] > 1:
                shared[name] = response
                each[status] = {"$ref": f"#/components/responses/{name}"}
    return dict(sorted(shared.items()))


def _name_of(status: str, response: Json) -> str:
    problem = response.get("content", {}).get(PROBLEM_JSON)
    return ".".join((status, *problem["examples"])) if problem else ""


def _in_reading_order(paths: Json) -> Json:
    """Return the paths ordered by chapter, with the methods of a path in the order of _METHODS. Set their tags."""
    ordered: Json = {}
    for chapter in CHAPTERS:
        for path in paths:
            if _chapter_of(path) == chapter:
                ordered[path] = {method: paths[path][method] for method in _METHODS if method in paths[path]}
                for operation in ordered[path].values():
                    operation["tags"] = [chapter]
    return ordered


def _chapter_of(path: str) -> str:
    def length_shared(chapter: str) -> int:
        return max(len(begin) if path.startswith(begin) else 0 for begin in CHAPTERS[chapter])

    return max(CHAPTERS, key=length_shared)
