"""The types of a contact's fields, and the metadata that tells the application how to use a field."""

import re
from calendar import month_name, monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from contacts_api.http.bodies import Body
from contacts_api.text import (
    Label,
    Lines,
    OneLine,
    Trimmed,
    check_address,
    check_one_line,
    is_common_address,
    normalize,
)

MAX_LABELS, MAX_DETAILS, DETAIL_CHARACTERS = 50, 100, 1000
MAX_SLOW_ADDRESSES = 10
# The size limit of a request that creates one contact. It also keeps a page of contacts small.
DETAILS_BYTES = 64 * 1024

_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_MONTH_AND_DAY = re.compile(r"([0-9]{2})-([0-9]{2})")
_ANY_YEAR = re.compile(r"(?:--|([0-9]{4})-)([0-9]{2})-([0-9]{2})")
_FIRST_DATE = date(1900, 1, 1)

_SIGNS = r" +\-().\/#*,;xX"
_BETWEEN_DIGITS = f"[{_SIGNS}]*(?:[eE][xX][tT][{_SIGNS}]*)*"
# The third digit and everything after it. Digits need not be counted from here on, which halves the matching time.
_FROM_THIRD_DIGIT = f"[0-9][0-9{_SIGNS}]*(?:[eE][xX][tT][0-9{_SIGNS}]*)*"
_PHONE_NUMBER = f"^{_BETWEEN_DIGITS}(?:[0-9]{_BETWEEN_DIGITS}){{2}}{_FROM_THIRD_DIGIT}$"
_IS_NUMBER = re.compile(_PHONE_NUMBER).fullmatch
# Starts an extension, a pause or a second number.
_AFTER_NUMBER = re.compile("ext|[,;x]")
# Country codes of E.164: 1 and 7, 43 codes of two digits, and otherwise three digits.
_COUNTRY_CODE = re.compile("^(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|[0-9]{3})")
_NOT_DIGITS = re.compile("[^0-9]+")
_NO_ASCII_BUT_DIGITS = dict.fromkeys(set(range(128)) - set(b"0123456789"))


Kind = Literal[
    "email", "phone", "address", "url", "organization", "title", "nickname", "date", "relation", "account", "other"
]
KINDS: frozenset[str] = frozenset(get_args(Kind))


@dataclass(frozen=True, kw_only=True, eq=False)
class About:
    """Metadata in the annotation of a field: how documentation, searches and files use the field."""

    description: str
    """The description in the documentation."""
    example: JsonValue
    """The example in the documentation."""

    search: Callable[[str], str] | None = None
    """Returns the text that `q` searches: `as_typed`, or a function that adds to it. None: not searched."""
    kind: Kind | None = None
    """The kind of details that hold further values of the field. Searches include them."""
    filter_length: int = 0
    """The maximum length of the query parameter with the name of the field. 0: there is no such parameter."""
    columns: tuple[str, ...] = ()
    """Other names of its CSV column, in any letter case. names.toml has more."""
    vcard: str = ""
    """The vCard property for import and export. Its value is a single text."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "description": self.description, "examples": [self.example]}


def as_typed(text: str) -> str:
    return text


def with_digits(number: str) -> str:
    """Return the number as it was typed, followed by its digits, because people search for either."""
    return f"{number} {digits_of(number)}"


def is_number(text: str) -> bool:
    """Return True if `text` has only the characters of a phone number, and at least 3 digits."""
    return _IS_NUMBER(text) is not None


def digits_of(number: str) -> str:
    return number.translate(_NO_ASCII_BUT_DIGITS) if number.isascii() else _NOT_DIGITS.sub("", number)


def parts_of_number(number: str) -> list[str]:
    """Split a folded number at its extensions and pauses. Parts without digits are dropped."""
    parts = (part.strip() for part in _AFTER_NUMBER.split(number))
    # A part with fewer than three digits is not a number, so only its digits are searched for.
    return [part if is_number(part) else digits_of(part) for part in parts if digits_of(part)]


def digits_to_find(number: str) -> str:
    """Return the digits that the national and the international spelling of a number have in common.

    These are at most the last nine digits, without leading zeros and without a country code after `+` or `00`. If fewer
    than seven digits remain, the text is a part of a number, and all its digits are returned. Example: `721234567` for
    `+49 172 1234567`, `0049 172 1234567` and `0172 1234567`.
    """
    digits = digits_of(number)
    candidates = [digits.lstrip("0")]
    if digits.startswith("00") or number.lstrip("( ").startswith("+"):
        candidates.insert(0, _COUNTRY_CODE.sub("", candidates[0], count=1).lstrip("0"))
    return next((each[-9:] for each in candidates if len(each) >= 7), digits)


def last_date_of_birth(now: datetime) -> date:
    """Return the latest date that is "today" anywhere on Earth: at UTC+14."""
    return (now.astimezone(UTC) + timedelta(hours=14)).date()


def _lower_domain(address: str) -> str:
    check_address(address)
    local_part, _, domain = address.rpartition("@")
    return f"{local_part}@{domain.lower()}"


def _read_date(value: object) -> date:
    # Pydantic would also accept a number of seconds, or a date with a time.
    if not isinstance(value, str):
        raise PydanticCustomError("wrong_type", "Must be a date as text: YYYY-MM-DD.")
    if not (found := _DATE.fullmatch(value)):
        raise PydanticCustomError("malformed", "Must be a date as text: YYYY-MM-DD.")
    try:
        return date.fromisoformat(value)
    except ValueError:
        return _day_of(*found.groups())  # raises a specific error


def _day_of(year: str, month: str, day: str) -> date:
    """Return the date with these digits. Without a year, the year 2000, a leap year, is used."""
    try:
        return date(int(year or 2000), int(month), int(day))
    except ValueError:
        pass
    if year == "0000":
        raise PydanticCustomError("too_small", "Must not lie before 1900-01-01.")
    if not 1 <= int(month) <= 12:
        raise PydanticCustomError("malformed", "Months are 01 to 12.")
    days = monthrange(int(year or 2000), int(month))[1]
    of_year = f" {year} has" if year else " has at most"
    raise PydanticCustomError("malformed", f"{month_name[int(month)]}{of_year} {days} days.")


def _possible_birth(born: date, info: ValidationInfo) -> date:
    # An import passes one date for the whole file. Otherwise the system clock decides what today is.
    last = info.context["last_date_of_birth"] if info.context else last_date_of_birth(datetime.now(UTC))
    if born < _FIRST_DATE:
        raise PydanticCustomError("too_small", "Must not lie before 1900-01-01.")
    if born > last:
        raise PydanticCustomError("too_large", "Must not lie after today.")
    return born


def _phone_characters(number: str) -> str:
    if not is_number(number):
        raise PydanticCustomError(
            "malformed", "Must have at least 3 digits, and between them only spaces, + - ( ) . / # * , ; x or ext."
        )
    return number


def _month_and_day(text: str) -> str:
    if not (found := _MONTH_AND_DAY.fullmatch(text)):
        raise PydanticCustomError("malformed", "Must be a month and a day as text: MM-DD.")
    _day_of("", *found.groups())
    return text


def _check_phone_number(text: str) -> str:
    if len(text) < 3:
        raise PydanticCustomError("too_short", "Must have at least 3 characters.")
    if len(text) > 32:
        raise PydanticCustomError("too_long", "Must have at most 32 characters.")
    return _phone_characters(text)


def check_date(text: str) -> str:
    if not (found := _ANY_YEAR.fullmatch(text)):
        raise PydanticCustomError("malformed", "Must be a date as text: YYYY-MM-DD, or --MM-DD without a year.")
    _day_of(*found.groups(""))
    return text


def distinct(labels: list[str] | None) -> list[str]:
    """Return the labels without those that differ from an earlier one only by letter case."""
    first: dict[str, str] = {}
    for label in labels or ():
        first.setdefault(label_key(label), label)
    return list(first.values())


def label_key(label: str) -> str:
    """Return a key that is the same for all spellings of a label in different letter cases."""
    return normalize("NFKC", label.casefold())


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
DateOfBirth = Annotated[date, BeforeValidator(_read_date), AfterValidator(_possible_birth)]
Birthday = Annotated[
    str,
    AfterValidator(_month_and_day),
    Field(json_schema_extra={"pattern": "^(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"}),
]
Labels = Annotated[Annotated[list[Label], Field(max_length=MAX_LABELS)] | None, AfterValidator(distinct)]
"""The labels of a contact, distinct regardless of letter case. null means no labels."""

_RULES_OF_KINDS: dict[str, Callable[[str], str]] = {
    "email": _lower_domain,
    "phone": _check_phone_number,
    "date": check_date,
}


class Detail(Body):
    """A further value of a field, or a value that contacts have no field for."""

    kind: Kind = Field(description="What it is.", examples=["phone"])
    label: Label | None = Field(
        None, description="Which one it is, 1 to 64 characters; null: it has none.", examples=["work"]
    )
    value: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=DETAIL_CHARACTERS),
        Lines,
        Field(
            description="An `email`, a `phone` and a `date` (YYYY-MM-DD, or --MM-DD) by their rules; else any text of "
            "at most 1,000 characters.",
            examples=["+1 (202) 555-0117"],
        ),
    ]

    @field_validator("value")
    @classmethod
    def _fits_its_kind(cls, value: str, info: ValidationInfo) -> str:
        check = _RULES_OF_KINDS.get(info.data.get("kind", ""))
        return check(check_one_line(value)) if check else value


def _few_slow(details: object) -> object:
    """Refuse more than MAX_SLOW_ADDRESSES addresses that take milliseconds each to validate."""
    given = [each for each in details[:MAX_DETAILS] if isinstance(each, dict)] if isinstance(details, list) else []
    texts = [each.get("value") for each in given if each.get("kind") == "email"]
    if sum(isinstance(text, str) and not is_common_address(text.strip()) for text in texts) > MAX_SLOW_ADDRESSES:
        rule = f"May have at most {MAX_SLOW_ADDRESSES} e-mail addresses with a domain in Punycode or in rarer scripts."
        raise PydanticCustomError("too_many", rule)
    return details


def _limited(details: list[Detail] | None) -> list[Detail]:
    if sum(size_of(detail.model_dump()) for detail in details or ()) > DETAILS_BYTES:
        raise PydanticCustomError("too_large", f"May take at most {DETAILS_BYTES:,} bytes in all.")
    return details or []


def size_of(detail: Mapping[str, str | None]) -> int:
    """Return the size of a detail in bytes, without the names of its members."""
    return sum(len(text.encode(errors="surrogatepass")) for text in detail.values() if text)


Details = Annotated[
    Annotated[list[Detail], Field(max_length=MAX_DETAILS)] | None,
    BeforeValidator(_few_slow),
    AfterValidator(_limited),
]
"""The details of a contact, in the given order. null means no details."""
