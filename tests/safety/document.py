"""The operations that the OpenAPI document lists, with all inputs that a client can send."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import httpx

from contacts_api.app import create_app
from contacts_api.settings import Settings

NOBODY = UUID(int=0)
FORM = "application/x-www-form-urlencoded"
FILE = "multipart/form-data"
BOUNDARY = "a-boundary-of-the-tests"


def as_file(value: bytes, /, **fields: str) -> bytes:
    """Return a multipart/form-data body (RFC 7578) with one file of these bytes and other fields."""
    parts = [f'name="{name}"\r\n\r\n{text}'.encode() for name, text in fields.items()]
    parts += [b'name="file"; filename="contacts.csv"\r\n\r\n' + value]
    lines = [f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode() + part + b"\r\n" for part in parts]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    parameters: tuple[tuple[str, str], ...]
    """The location and name of each parameter."""
    media_types: tuple[str, ...]
    fields: tuple[str, ...]
    """The fields of the body."""
    secrets: tuple[str, ...]
    """The body fields that hold a password or a token."""
    example_text: str
    """A valid body as JSON text."""
    statuses: frozenset[int]
    is_secured: bool

    @property
    def example(self) -> dict[str, Any]:
        return dict(json.loads(self.example_text))

    def named(self, where: str) -> list[str]:
        return [name for place, name in self.parameters if place == where]

    @property
    def ids(self) -> list[str]:
        """The path parameters, in order."""
        return re.findall("{(.*?)}", self.path)

    def url(self, *values: object) -> str:
        """Return the path with these values. The last value, or else an unused id, fills the remaining parameters."""
        names = self.ids
        padded = [*values, *[values[-1] if values else NOBODY] * len(names)]
        return self.path.format_map(dict(zip(names, padded, strict=False)))

    async def make_ids(self, client: httpx.AsyncClient) -> list[str]:
        """Return ids for the path parameters: of newly created objects, or else of existing ones."""
        ids: list[str] = []
        for name in self.ids:
            collection = self.path.partition(f"/{{{name}}}")[0]
            url = collection.format_map(dict(zip(self.ids, ids, strict=False)))
            if name == "label":
                # A label exists only on a contact: create one.
                made = {"id": str(uuid4())}
                (creating,) = (each for each in operations() if each.name == "create_contact")
                await client.post("/contacts", json={**creating.example, "labels": [made["id"]]})
                ids.append(made["id"])
                continue
            making = [each for each in operations() if (each.method, each.path) == ("POST", collection)]
            created = await client.post(url, json=making[0].example) if making else None
            # The limit of a hundred keys may be reached: use an existing key.
            has_made = created is not None and created.is_success
            made = created.json() if created and has_made else (await client.get(url)).json()["items"][0]
            ids.append(str(made["id"]))
        return ids

    def __str__(self) -> str:
        return self.name


@cache
def document() -> dict[str, Any]:
    app = create_app(Settings(_env_file=None))
    # The document as sent: parts that share an object become separate copies.
    return dict(json.loads(json.dumps(app.openapi())))


def operations() -> list[Operation]:
    return list(_read())


def _read() -> Iterator[Operation]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            body: dict[str, Any] = next((_resolved(media["schema"]) for media in content.values()), {})
            fields = body.get("properties", {})
            yield Operation(
                name=operation["operationId"],
                method=method.upper(),
                path=path,
                parameters=tuple((p["in"], p["name"]) for p in operation.get("parameters", [])),
                media_types=tuple(content),
                fields=tuple(fields),
                secrets=tuple(name for name, field in fields.items() if field.get("format") == "password"),
                example_text=json.dumps(
                    next((media["example"] for media in content.values() if "example" in media), {})
                ),
                statuses=frozenset(map(int, operation["responses"])),
                is_secured="security" in operation,
            )


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    return dict(document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
