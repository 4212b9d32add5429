"""Sample contacts in several scripts, for the command `seed`."""

from collections.abc import Iterator
from random import Random
from typing import Any, get_args

from faker import Faker

from contacts_api.contacts.models import ContactFields

LABELS: tuple[list[str], ...] = ([], [], ["Friends"], ["Family"], ["Work"], ["Friends", "Work"])
LOCALES = ("en_US", "uk_UA", "pl_PL", "fr_FR")


def believable_contacts(count: int, model: type[ContactFields] = ContactFields) -> Iterator[ContactFields]:
    """Yield `count` random contacts.

    Values are drawn from prepared samples, because Faker alone creates only 3,000 contacts per second.
    """

    def sample(field: str, locale: str = "en_US", size: int = 200, **options: int) -> list[Any]:
        faker = Faker(locale)
        return [getattr(faker, field)(**options) for _ in range(size)]

    first_names = [sample("first_name", locale) for locale in LOCALES]
    last_names = [sample("last_name", locale) for locale in LOCALES]
    mailboxes, jobs, companies = sample("user_name"), sample("job"), sample("company")
    births = sample("date_of_birth", size=1000, minimum_age=18, maximum_age=90)
    # A new text field, such as `company`, gets values from the Faker method of the same name.
    others = {
        name: sample(name)
        for name, field in model.model_fields.items()
        if _is_text(field.annotation) and hasattr(Faker(), name)
    }
    choose = Random().choice  # noqa: S311 (not used for secrets)
    for n in range(count):
        language = n % len(LOCALES)
        fields = {name: choose(values) for name, values in others.items()} | {
            "first_name": choose(first_names[language]),
            "last_name": choose(last_names[language]),
            "email": f"{choose(mailboxes)}{n}@example.com",
            "phone_number": f"+1 202 555 {n % 10_000:04}",
            "date_of_birth": str(choose(births)),
            "additional_info": "Prefers to be called." if n % 3 == 0 else None,
            "labels": choose(LABELS),
            "details": [
                {"kind": "organization", "value": choose(companies)},
                {"kind": "title", "value": choose(jobs)},
            ]
            if n % 2 == 0
            else [],
        }
        yield model.model_validate(fields)


def _is_text(annotation: object) -> bool:
    """Return True if the annotation is `str`, `str | None`, or one of these in Annotated."""
    return annotation is str or any(_is_text(part) for part in get_args(annotation))
