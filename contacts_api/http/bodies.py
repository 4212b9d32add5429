"""Request bodies: size limits, JSON parsing, and validation in short steps."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import orjson
from fastapi import Request as FastAPIRequest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, WrapValidator, model_validator
from sqlmodel import SQLModel

from contacts_api.problems import MAX_ERRORS, BodyTooLarge, InvalidJSON
from contacts_api.settings import Settings

BODY_BYTES = 64 * 1024
# Uploads are passed to the parser in pieces of this size, so that each step is short.
_PIECE_BYTES = 16 * 1024
MAX_ITEMS = 500
"""The maximum number of contacts that one call may create, change or delete."""
STEP_SECONDS = 0.01
"""How long work on many items may block the event loop."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class BodyLimit:
    """Annotates a body parameter with its maximum size in bytes, which depends on the settings."""

    of: Callable[[Settings], int]


class Body(SQLModel):
    """The base of all request bodies. Rejects unknown members, and reports at most MAX_ERRORS of them."""

    model_config = {"extra": "forbid"}

    # Replaces SQLModel's constructor, whose own parameters collide with a member called `self` or `cls`.
    __init__ = BaseModel.__init__

    def sent(self) -> dict[str, Any]:
        """Return the members that the client sent."""
        return self.model_dump(include=self.model_fields_set)

    @model_validator(mode="before")
    @classmethod
    def _limit_unknown(cls, data: Any) -> Any:
        return limit_unknown(cls, data)


def with_example(members: Mapping[str, JsonValue], **keywords: JsonValue) -> Any:
    """Return a `model_config` whose example has only these members. `keywords` are added to the JSON schema."""
    return ConfigDict(json_schema_extra={"examples": [dict(members)], **keywords})


def limit_unknown(model: type[BaseModel], data: Any) -> Any:
    """Return the data with at most MAX_ERRORS unknown members."""
    if not isinstance(data, dict) or len(data) <= MAX_ERRORS:
        return data
    fields = model.model_fields
    unknown = islice((name for name in data if name not in fields), MAX_ERRORS)
    return {name: data[name] for name in (*(name for name in fields if name in data), *unknown)}


UNCHECKED = WrapValidator(lambda item, _: item)
"""Stops FastAPI from validating the items of a list. The route calls `validate_items` instead."""


async def validate_items(model: type[Model], items: Iterable[Any]) -> list[Model]:
    """Return the items of a body as models. Raises RequestValidationError with the errors of the first invalid items.

    Stops after MAX_ERRORS errors.
    """
    errors: list[Any] = []

    def validate(numbered: tuple[int, Any]) -> Any:
        index, item = numbered
        if len(errors) >= MAX_ERRORS:
            return None
        try:
            return model.model_validate(item)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            errors.extend({**each, "loc": ("body", "items", index, *each["loc"])} for each in found)

    validated = await in_steps(validate, enumerate(items))
    if errors:
        raise RequestValidationError(errors)
    return validated


async def in_steps(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Apply the function to each item, and return the results. Yields to other tasks every STEP_SECONDS."""
    results = []
    resumed_at = time.perf_counter()
    for item in items:
        results.append(function(item))
        if time.perf_counter() - resumed_at > STEP_SECONDS:
            await asyncio.sleep(0)
            resumed_at = time.perf_counter()
    return results


class Request(FastAPIRequest):
    """A request with a size limit for its body and a strict JSON parser (RFC 8259: no NaN, no lone surrogates)."""

    max_bytes = BODY_BYTES
    check_sender: Callable[[FastAPIRequest], Awaitable[object]] | None = None
    """Awaited before more than BODY_BYTES are read."""

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > BODY_BYTES and self.check_sender:
                await self.check_sender(self)
                self.check_sender = None
            self.refuse_more(size)
            for start in range(0, len(chunk), _PIECE_BYTES):
                if start:
                    # Let other requests run between the pieces.
                    await asyncio.sleep(0)
                yield chunk[start : start + _PIECE_BYTES]

    def refuse_more(self, size: int) -> None:
        if size > self.max_bytes:
            raise BodyTooLarge(f"It may have at most {self.max_bytes:,} bytes.")

    def refuse_announced(self) -> None:
        """Raise BodyTooLarge if the Content-Length exceeds the limit."""
        announced = self.headers.get("content-length", "")
        if announced.isdecimal():
            self.refuse_more(int(announced) if len(announced) < 20 else self.max_bytes + 1)

    async def has_body(self) -> bool:
        """Return True if there is a body. Reads only its first piece."""
        async for chunk in self.stream():
            if chunk:
                return True
        self._body = b""
        return False

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


def parse_json(body: bytes) -> Any:
    """Parse a JSON text. Raises InvalidJSON."""
    try:
        return orjson.loads(body)
    except ValueError:
        raise InvalidJSON("The body must be one JSON value, in UTF-8.") from None
