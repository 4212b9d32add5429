"""Request bodies: size limits, JSON parsing, and a bound on the work that an invalid one causes."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fastapi import Request as FastAPIRequest
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, ValidatorFunctionWrapHandler, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json
from sqlmodel import SQLModel

from contacts_api.field_errors import code_and_detail
from contacts_api.problems import MAX_ERRORS, BodyTooLarge, InvalidJSON
from contacts_api.settings import Settings
from contacts_api.waiting import Places

BODY_BYTES = 64 * 1024
# Members and elements of one body. Parsing this many blocks the worker for some 20 ms; 500 contacts have 3,500.
MAX_VALUES = 50_000
# An upload is handed to its parser in pieces of this size, so that one step of it is short.
_PIECE_BYTES = 16 * 1024
# How many items of a list are validated at a time.
_BITE_ITEMS = 10
MAX_ITEMS = 500
"""How many contacts one call may create, change or delete."""

# Up to the next value, with strings as a whole; or past 999 pieces, so that other threads have their turn.
_VALUE = re.compile(rb"""(?:[^"\[{,]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)){0,999}+(?:[\[{,]|\Z|)""", re.DOTALL)


@dataclass(frozen=True)
class BodyLimit:
    """Marks the annotation of a body with the number of bytes that it may have."""

    of: Callable[[Settings], int]


class Body(SQLModel):
    """The base of all request bodies. Unknown members are refused; only the first MAX_ERRORS are looked at."""

    model_config = {"extra": "forbid"}

    # Not SQLModel's constructor: a member called `self` or `cls` would collide with its own parameters.
    __init__ = BaseModel.__init__

    def sent(self) -> dict[str, Any]:
        """Return the members that were sent."""
        return self.model_dump(include=self.model_fields_set)

    @model_validator(mode="before")
    @classmethod
    def _limit_unknown(cls, data: Any) -> Any:
        return limit_unknown(cls, data)


def with_example(members: Mapping[str, JsonValue], **keywords: JsonValue) -> Any:
    """Return the `model_config` of a body whose example has these members, and not each that it may have.

    `keywords` are further ones of its JSON schema.
    """
    return ConfigDict(json_schema_extra={"examples": [dict(members)], **keywords})


def limit_unknown(model: type[BaseModel], data: Any) -> Any:
    """Return the data with at most MAX_ERRORS unknown members."""
    if not isinstance(data, dict) or len(data) <= MAX_ERRORS:
        return data
    fields = model.model_fields
    unknown = islice((name for name in data if name not in fields), MAX_ERRORS)
    return {name: data[name] for name in (*(name for name in fields if name in data), *unknown)}


def a_few_at_a_time(items: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a list of at most MAX_ITEMS a few items at a time, and stop after MAX_ERRORS errors.

    Pydantic validates a whole list in one call, during which no other thread runs, the event loop's included.
    """
    if not isinstance(items, list) or not _BITE_ITEMS < len(items) <= MAX_ITEMS:
        return validate(items)
    validated: list[Any] = []
    errors: list[InitErrorDetails] = []
    for start in range(0, len(items), _BITE_ITEMS):
        try:
            validated += validate(items[start : start + _BITE_ITEMS])
        except ValidationError as error:
            errors += (_moved(details, start) for details in error.errors(include_url=False))
            if len(errors) >= MAX_ERRORS:
                break
    if errors:
        raise ValidationError.from_exception_data("list", errors)
    return validated


def _moved(details: Any, start: int) -> InitErrorDetails:
    """Return an error of a few items as one of the whole list."""
    index, *rest = details["loc"]
    code, detail = code_and_detail(details)
    error = PydanticCustomError(code, "{message}", {"message": detail})
    return InitErrorDetails(type=error, loc=(start + index, *rest), input=details["input"])


class Request(FastAPIRequest):
    """A request whose body has a limit, and whose JSON is JSON (RFC 8259): no NaN, no lone surrogate."""

    max_bytes = BODY_BYTES
    body_field: Any = None
    errors_of_large_body: tuple[Any, ...] | list[Any] = ()
    """A large body is validated in a thread, before FastAPI sees it. If it is invalid, `json()` returns None, and Route
    raises these errors instead of FastAPI's own."""

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            self.refuse_more(size)
            for start in range(0, len(chunk), _PIECE_BYTES):
                if start:
                    # Other requests go on between the pieces.
                    await asyncio.sleep(0)
                yield chunk[start : start + _PIECE_BYTES]

    def refuse_more(self, size: int) -> None:
        if size > self.max_bytes:
            raise BodyTooLarge(f"It may have at most {self.max_bytes:,} bytes.")

    def refuse_announced(self) -> None:
        """Refuse a body whose Content-Length says that it is too large."""
        announced = self.headers.get("content-length", "")
        if announced.isdecimal():
            self.refuse_more(int(announced) if len(announced) < 20 else self.max_bytes + 1)

    async def has_body(self) -> bool:
        """Say whether there is a body, reading no more than its first piece."""
        async for chunk in self.stream():
            if chunk:
                return True
        self._body = b""
        return False

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            self._json = parse_json(body) if len(body) <= BODY_BYTES else await self._read_large(body)
        return self._json

    async def _read_large(self, body: bytes) -> Any:
        """Return the validated body, or None where it has errors.

        In a thread, so that nothing else waits for it; one at a time, since such threads slow each other down.
        """
        places: Places = self.app.state.large_bodies
        async with places.place():
            return await asyncio.to_thread(self._validate_large, body)

    def _validate_large(self, body: bytes) -> Any:
        if sum(1 for _ in islice(_VALUE.finditer(body), MAX_VALUES + 1)) > MAX_VALUES:
            raise InvalidJSON(f"The body may have at most {MAX_VALUES:,} values.")
        value = parse_json(body)
        if self.body_field is None:
            return value
        validated, self.errors_of_large_body = self.body_field.validate(value, loc=("body",))
        return None if self.errors_of_large_body else validated


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text. Raises InvalidJSON."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        raise InvalidJSON("The body must be one JSON value, in UTF-8.") from None
