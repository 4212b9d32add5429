from typing import Any

import pytest
from pydantic import ValidationError

from contacts_api.contacts.models import ContactCreate
from contacts_api.contacts.queries import ContactQuery
from contacts_api.http.field_errors import CODES, code_and_detail
from tests.client import A_CONTACT, Client


def errors_of(model: Any, value: object) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(value)
    return [code_and_detail(error) for error in raised.value.errors()]


@pytest.mark.parametrize(
    ("change", "code", "detail"),
    [
        ({"first_name": 5}, "wrong_type", "Must be a text."),
        ({"first_name": " "}, "too_short", "Must have at least 1 character."),
        ({"first_name": "x" * 101}, "too_long", "Must have at most 100 characters."),
        ({"first_name": "a\nb"}, "control_character", "Must not contain control characters or lone surrogates."),
        ({"email": "no address"}, "malformed", "Must be a valid e-mail address, such as ada@example.com."),
        ({"phone_number": "12"}, "too_short", "Must have at least 3 characters."),
        ({"date_of_birth": "2001-02-29"}, "malformed", "February 2001 has 28 days."),
        ({"date_of_birth": "2000-02-30"}, "malformed", "February 2000 has 29 days."),
        ({"date_of_birth": "2000-04-31"}, "malformed", "April 2000 has 30 days."),
        ({"date_of_birth": "2000-13-01"}, "malformed", "Months are 01 to 12."),
        ({"date_of_birth": "0000-01-01"}, "too_small", "Must not lie before 1900-01-01."),
        ({"date_of_birth": "1899-12-31"}, "too_small", "Must not lie before 1900-01-01."),
        ({"date_of_birth": "9999-01-01"}, "too_large", "Must not lie after today."),
        ({"date_of_birth": 0}, "wrong_type", "Must be a date as text: YYYY-MM-DD."),
        ({"date_of_birth": "01.02.2000"}, "malformed", "Must be a date as text: YYYY-MM-DD."),
        ({"birthday": "02-30"}, "malformed", "February has at most 29 days."),
        ({"birthday": "2-3"}, "malformed", "Must be a month and a day as text: MM-DD."),
        ({"labels": "Navy"}, "wrong_type", "Must be a list."),
        ({"labels": ["\u200b"]}, "too_short", "Must have a character that can be seen."),
        ({"labels": ["a\u2028b"]}, "control_character", "Must not contain control characters or lone surrogates."),
        ({"labels": ["x"] * 51}, "too_many", "May have at most 50 items."),
        ({"details": ["x"]}, "wrong_type", "Must be an object."),
        ({"details": [{"kind": "date", "value": "--02-31"}]}, "malformed", "February has at most 29 days."),
        ({"shoe_size": 37}, "unknown", "There is no such field here."),
    ],
)
def test_a_field_error_has_the_right_code_and_detail(change: dict[str, Any], code: str, detail: str) -> None:
    assert errors_of(ContactCreate, {**A_CONTACT, **change}) == [(code, detail)]


@pytest.mark.parametrize(
    ("query", "code", "detail"),
    [
        ({"limit": "many"}, "wrong_type", "Must be a whole number."),
        ({"limit": "0"}, "too_small", "Must be at least 1."),
        ({"limit": "501"}, "too_large", "Must be at most 500."),
        ({"with_total": "maybe"}, "wrong_type", "Must be true or false."),
        ({"q": "a b c d e f g h i"}, "too_many", "Must have at most 8 words."),
        ({"q": "x" * 101}, "too_long", "Must have at most 100 characters."),
        ({"label": ["x" * 65]}, "too_long", "Must have at most 64 characters."),
        ({"label": ["x"] * 51}, "too_many", "May have at most 50 items."),
        ({"page": "2"}, "unknown", "There is no such field here."),
    ],
)
def test_a_query_error_has_the_right_code_and_detail(query: dict[str, str], code: str, detail: str) -> None:
    assert errors_of(ContactQuery, query) == [(code, detail)]


def test_missing_fields_and_wrong_choices_have_the_right_code_and_detail() -> None:
    assert errors_of(ContactCreate, {**{name: None for name in A_CONTACT if name != "first_name"}}) == [
        ("missing", "Is required.")
    ]
    ((code, detail),) = errors_of(ContactQuery, {"sort": "age"})
    assert code == "not_allowed"
    assert detail.startswith("Must be 'name', '-name'")


async def test_errors_are_the_same_in_a_long_list_and_a_short_one(ada: Client) -> None:
    wrong = [{}, {**A_CONTACT, "email": "x"}, {**A_CONTACT, "labels": ["x"] * 51}, {**A_CONTACT, "first_name": ""}]

    short = await ada.post("/contacts/batch", json={"items": wrong})
    long = await ada.post("/contacts/batch", json={"items": [*wrong, *[A_CONTACT] * 100]})

    assert (short.status_code, long.status_code) == (422, 422)
    assert short.json() == long.json()
    assert short.json()["errors"][5]["loc"] == ["body", "items", 1, "email"]


async def test_every_error_has_a_documented_code(ada: Client) -> None:
    """Sends a value of each JSON type in each field."""
    codes = set()
    values: list[Any] = [None, True, 5, 1.5, "", "\x00", "x" * 3000, [], [1], [[]], {}, {"a": 1}]
    for value in values:
        for name in ContactCreate.model_fields:
            response = await ada.post("/contacts", json={**A_CONTACT, name: value})
            codes |= {error["code"] for error in response.json().get("errors", ())}

    assert codes <= set(CODES)
    assert len(codes) > 4
