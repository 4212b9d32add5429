"""Converts Pydantic's errors to the codes and messages of this API. Messages never repeat the invalid value."""

from collections.abc import Mapping
from typing import Any

CODES = {
    "missing": "A member that is required is not there.",
    "unknown": "There is no member or parameter of this name.",
    "wrong_type": "The value has another JSON type, or a parameter is not a number, or not true or false.",
    "malformed": "The value is not written as it must be: an address, a date, a number, an id.",
    "too_short": "A text, or a list, has less than it must have.",
    "too_long": "A text has more characters than it may have.",
    "too_small": "A number or a date lies before the first one that is allowed.",
    "too_large": "A number or a date lies after the last one that is allowed, or a value takes too many bytes.",
    "too_many": "A list has more items, or a search more words, than it may have.",
    "not_allowed": "The value is none of those that are allowed here.",
    "control_character": "The text has a control character or a lone surrogate.",
    "repeated": "What may be there once is there more than once.",
}
"""The codes of field errors and their meanings. A problem with a `loc` uses its own code instead."""

_WORDS = {
    "missing": ("missing", "Is required."),
    "extra_forbidden": ("unknown", "There is no such field here."),
    "string_too_short": ("too_short", "Must have at least {min_length}."),
    "string_too_long": ("too_long", "Must have at most {max_length}."),
    "too_short": ("too_short", "Must have at least {min_length}."),
    "too_long": ("too_many", "May have at most {max_length}."),
    "greater_than": ("too_small", "Must be more than {gt}."),
    "greater_than_equal": ("too_small", "Must be at least {ge}."),
    "less_than": ("too_large", "Must be less than {lt}."),
    "less_than_equal": ("too_large", "Must be at most {le}."),
    "literal_error": ("not_allowed", "Must be {expected}."),
    "string_type": ("wrong_type", "Must be a text."),
    "int_type": ("wrong_type", "Must be a whole number."),
    "int_parsing": ("wrong_type", "Must be a whole number."),
    "int_parsing_size": ("too_large", "Must be a number of fewer digits."),
    "int_from_float": ("wrong_type", "Must be a whole number."),
    "bool_type": ("wrong_type", "Must be true or false."),
    "bool_parsing": ("wrong_type", "Must be true or false."),
    "list_type": ("wrong_type", "Must be a list."),
    "dict_type": ("wrong_type", "Must be an object."),
    "model_type": ("wrong_type", "Must be an object."),
    "model_attributes_type": ("wrong_type", "Must be an object."),
    "uuid_type": ("wrong_type", "Must be a UUID as text."),
    "uuid_parsing": ("malformed", "Must be a UUID, such as 01a22042-afe2-74f4-844b-d6ec422a71e8."),
    "datetime_parsing": ("malformed", "Must be a time with its zone: YYYY-MM-DDTHH:MM:SSZ."),
    "datetime_from_date_parsing": ("malformed", "Must be a time with its zone: YYYY-MM-DDTHH:MM:SSZ."),
    "timezone_aware": ("malformed", "Must name its time zone: YYYY-MM-DDTHH:MM:SSZ."),
    "string_unicode": ("malformed", "Must be text in UTF-8."),
}


def code_and_detail(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return the code and the message for one of Pydantic's `ErrorDetails`.

    Errors raised by our own validators already have a code. So do errors that this function has already converted.
    """
    kind, context = error["type"], error.get("ctx", {})
    is_ours = kind in CODES and (not context or "message" in context)
    if (is_ours and kind != "missing") or "message" in context:
        return kind, str(error["msg"])
    # For a text that a validator returned, Pydantic reports `too_short` and `too_long` as it does for lists.
    unit = "item" if context.get("field_type", "Value") != "Value" else "character"
    kind = f"string_{kind}" if kind in ("too_short", "too_long") and unit == "character" else kind
    code, words = _WORDS.get(kind, ("malformed", "This is not a valid value."))
    counts = {name: _counted(context[name], unit) for name in ("min_length", "max_length") if name in context}
    return code, words.format_map({**context, **counts})


def _counted(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
