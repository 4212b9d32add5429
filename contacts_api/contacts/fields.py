"""The types of a contact's fields, and what the application does with a field besides storing it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

from contacts_api.text import OneLine, Trimmed, check_address

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FIRST_DATE = date(1900, 1, 1)

_BETWEEN_DIGITS = r"(?:[ +\-().\/#*,;]|[xX]|[eE][xX][tT])*"
_PHONE_NUMBER = f"^{_BETWEEN_DIGITS}(?:[0-9]{_BETWEEN_DIGITS}){{3,}}$"


@dataclass(frozen=True, kw_only=True)
class About:
    """Stands in the annotation of a field, and says what the field means to searches and files."""

    search: Callable[[str], str] | None = None
    """Returns what `q` looks through: `as_typed`, or a function that adds to it. None: it is not searched."""
    filter_length: int = 0
    """How long a text the query parameter of its name may have, which searches this field alone; 0: there is none."""
    columns: tuple[str, ...] = ()
    """The CSV columns that mean it besides the one of its own name, the best one first; "#" is any number."""
    vcard: str = ""
    """The vCard property of one text value that it is read from and written as."""
    example: JsonValue = None
    """What the documentation shows."""


def as_typed(text: str) -> str:
    return text


def with_digits(number: str) -> str:
    """Return the number as it was typed, and its digits alone: people type either."""
    return f"{number} {digits_of(number)}"


def digits_of(number: str) -> str:
    return re.sub("[^0-9]", "", number)


def last_date_of_birth(now: datetime) -> date:
    """Return the date of "today" where it is furthest ahead: at UTC+14."""
    return (now.astimezone(UTC) + timedelta(hours=14)).date()


def _lower_domain(address: str) -> str:
    check_address(address)
    local_part, _, domain = address.rpartition("@")
    return f"{local_part}@{domain.lower()}"


def _iso_date(value: object) -> object:
    # Pydantic would also take numbers of seconds, and dates with a time.
    if not isinstance(value, str) or not _ISO_DATE.fullmatch(value):
        raise PydanticCustomError("date_format", "Must be a date as text: YYYY-MM-DD.")
    return value


def _possible_birth(born: date, info: ValidationInfo) -> date:
    # An import gives the last date of its start; a body is checked by the computer's clock.
    last = info.context["last_date_of_birth"] if info.context else last_date_of_birth(datetime.now(UTC))
    if not _FIRST_DATE <= born <= last:
        raise PydanticCustomError("date_range", "Must lie between 1900-01-01 and today.")
    return born


def _phone_characters(number: str) -> str:
    if not re.fullmatch(_PHONE_NUMBER, number):
        raise PydanticCustomError(
            "phone_number", "Must have at least 3 digits, and between them only spaces, + - ( ) . / # * , ; x or ext."
        )
    return number


Email = Annotated[
    str,
    Trimmed,
    AfterValidator(_lower_domain),
    OneLine,
    Field(json_schema_extra={"format": "email", "maxLength": 254}),
]
PhoneNumber = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=3, max_length=32),
    AfterValidator(_phone_characters),
    OneLine,
    Field(json_schema_extra={"pattern": _PHONE_NUMBER}),
]
DateOfBirth = Annotated[date, BeforeValidator(_iso_date), AfterValidator(_possible_birth)]
