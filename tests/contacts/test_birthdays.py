from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contacts_api.contacts.birthdays import upcoming_birthdays
from tests.client import Client, Clock

FOUR_HUNDRED_YEARS = [date(2000, 1, 1) + timedelta(days=n) for n in range(146_097)]
dates_of_birth = st.dates(date(1900, 1, 1), date(2100, 12, 31))


def birthday_in(year: int, born: date) -> date:
    """A slow reference: the same month and day, or 28 February if the year has no 29th."""
    try:
        return date(year, born.month, born.day)
    except ValueError:
        return date(year, 2, 28)


def next_birthday(born: date, today: date, days: int) -> date | None:
    for year in today.year, today.year + 1:
        if today <= birthday_in(year, born) <= today + timedelta(days=days):
            return birthday_in(year, born)
    return None


def test_every_day_of_400_years_has_the_right_birthdays() -> None:
    births = [date(2000, 1, 1) + timedelta(days=n) for n in range(366)]
    expected: dict[date, set[int]] = {day: set() for day in FOUR_HUNDRED_YEARS}
    for year in range(2000, 2400):
        for born in births:
            expected[birthday_in(year, born)].add(born.month * 100 + born.day)

    assert {day: set(upcoming_birthdays(day, 0)) for day in FOUR_HUNDRED_YEARS} == expected


@settings(max_examples=500)
@given(today=st.sampled_from(FOUR_HUNDRED_YEARS), days=st.integers(0, 365), born=dates_of_birth)
def test_the_next_birthday_agrees_with_a_slow_reference(today: date, days: int, born: date) -> None:
    upcoming = upcoming_birthdays(today, days)

    assert upcoming.get(born.month * 100 + born.day) == next_birthday(born, today, days)
    assert list(upcoming.values()) == sorted(upcoming.values())


async def birthdays(client: Client, **query: Any) -> list[tuple[str, str, int, int]]:
    response = await client.get("/contacts/birthdays", params=query)
    assert response.status_code == 200, response.text
    return [
        (item["contact"]["first_name"], item["birthday_on"], item["days_until"], item["turns"])
        for item in response.json()["items"]
    ]


async def test_the_next_seven_days_begin_today_and_end_a_week_later(ada: Client, clock: Clock) -> None:
    clock.now = datetime(2025, 12, 28, 12, tzinfo=UTC)
    for name, born in {
        "yesterday": "1990-12-27",
        "today": "1990-12-28",
        "new year's eve": "1991-12-31",
        "new year": "1992-01-01",
        "seventh day": "1993-01-04",
        "eighth day": "1993-01-05",
    }.items():
        await ada.create_contact(first_name=name, date_of_birth=born)

    assert await birthdays(ada) == [
        ("today", "2025-12-28", 0, 35),
        ("new year's eve", "2025-12-31", 3, 34),
        ("new year", "2026-01-01", 4, 34),
        ("seventh day", "2026-01-04", 7, 33),
    ]
    assert await birthdays(ada, days=0) == [("today", "2025-12-28", 0, 35)]
    assert len(await birthdays(ada, days=365)) == 6
    assert (await birthdays(ada, days=365))[-1] == ("yesterday", "2026-12-27", 364, 36)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2023, 2, 25, tzinfo=UTC), ("2023-02-28", 3, 23)),
        (datetime(2024, 2, 25, tzinfo=UTC), ("2024-02-29", 4, 24)),
    ],
)
async def test_a_birthday_on_29_february_is_on_the_28th_in_common_years(
    ada: Client, clock: Clock, now: datetime, expected: tuple[str, int, int]
) -> None:
    await ada.create_contact(first_name="leapling", date_of_birth="2000-02-29")
    clock.now = now

    assert await birthdays(ada) == [("leapling", *expected)]


async def test_today_depends_on_the_requested_time_zone(ada: Client, clock: Clock) -> None:
    clock.now = datetime(2025, 6, 15, 11, tzinfo=UTC)
    for day in (14, 15, 16):
        await ada.create_contact(first_name=str(day), date_of_birth=f"2000-06-{day}")

    assert await birthdays(ada, days=0) == [("15", "2025-06-15", 0, 25)]
    assert await birthdays(ada, days=0, tz="Pacific/Kiritimati") == [("16", "2025-06-16", 0, 25)]
    assert await birthdays(ada, days=0, tz="Etc/GMT+12") == [("14", "2025-06-14", 0, 25)]


async def test_the_day_of_birth_itself_counts(ada: Client) -> None:
    today = datetime.now(UTC).date()
    await ada.create_contact(first_name="newborn", date_of_birth=str(today))

    assert await birthdays(ada) == [("newborn", str(today), 0, 0)]


async def test_pages_are_ordered_by_day_then_name_and_keep_the_day_of_the_first_page(ada: Client, clock: Clock) -> None:
    clock.now = datetime(2025, 6, 1, 23, 59, tzinfo=UTC)
    for name, born in [("C", "1990-06-02"), ("A", "1991-06-02"), ("B", "1992-06-01"), ("D", "1993-06-08")]:
        await ada.create_contact(first_name=name, last_name="X", date_of_birth=born)

    first = await ada.get("/contacts/birthdays?limit=2")
    clock.now = datetime(2025, 6, 2, 0, 1, tzinfo=UTC)
    link = first.headers["link"]
    second = await ada.get(link[1 : link.index(">")])

    assert [item["contact"]["first_name"] for item in first.json()["items"]] == ["B", "A"]
    assert [(item["contact"]["first_name"], item["days_until"]) for item in second.json()["items"]] == [
        ("C", 1),
        ("D", 7),
    ]
    assert second.json()["next_cursor"] is None


async def test_pages_through_a_whole_year_have_every_birthday_in_order(ada: Client, clock: Clock) -> None:
    clock.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    days = [date(2000, 1, 1) + timedelta(days=n) for n in range(0, 366, 5)]
    await ada.create_contacts([{"first_name": f"Born {day}", "date_of_birth": str(day)} for day in days])

    url, seen = "/contacts/birthdays?days=365&limit=9", []
    while url:
        page = await ada.get(url)
        seen += page.json()["items"]
        url = page.links.get("next", {}).get("url", "")

    assert sorted(item["contact"]["date_of_birth"] for item in seen) == [str(day) for day in days]
    assert [item["birthday_on"] for item in seen] == sorted(item["birthday_on"] for item in seen)


async def test_a_contact_without_a_year_has_a_birthday_but_no_age(ada: Client, clock: Clock) -> None:
    clock.now = datetime(2025, 2, 26, tzinfo=UTC)
    await ada.create_contact(first_name="Leap", date_of_birth=None, birthday="02-29")
    await ada.create_contact(first_name="Next", date_of_birth=None, birthday="03-01")
    await ada.create_contact(first_name="None", date_of_birth=None)

    items = (await ada.get("/contacts/birthdays")).json()["items"]

    assert [(item["contact"]["first_name"], item["birthday_on"], item["turns"]) for item in items] == [
        ("Leap", "2025-02-28", None),
        ("Next", "2025-03-01", None),
    ]


async def test_birthdays_of_other_users_are_not_listed(ada: Client, grace: Client) -> None:
    await ada.create_contact(date_of_birth=str(datetime.now(UTC).date()))

    assert await birthdays(grace, days=365) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"days": "-1"}, "days"),
        ({"days": "366"}, "days"),
        ({"days": "seven"}, "days"),
        ({"tz": "Europe"}, "tz"),
        ({"tz": "../../etc/passwd"}, "tz"),
        ({"tz": "x" * 5000}, "tz"),
        ({"tz": ""}, "tz"),
        ({"tz": "Europe/Kyiv\x00"}, "tz"),
        ({"q": "ada"}, "q"),
    ],
)
async def test_an_invalid_query_is_a_422_that_names_the_parameter(
    ada: Client, query: dict[str, str], field: str
) -> None:
    response = await ada.get("/contacts/birthdays", params=query)

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [["query", field]]
