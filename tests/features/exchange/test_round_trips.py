"""Round trips: import a full contact of each application, export it in each format, and import it again."""

import csv
import io
import quopri
import re
from pathlib import Path
from typing import Any

import pytest

from contacts_api.contacts.models import FIELDS
from contacts_api.text import fold
from tests.client import Client
from tests.features.exchange.contacts import SAMPLES

FULL = sorted((SAMPLES / "full").iterdir())
SAMPLE_BYTES = {path.name: path.read_bytes() for path in FULL}
# Properties that describe the card, not the person; and binary ones.
OF_THE_CARD = ("BEGIN", "END", "VERSION", "PRODID", "REV", "PHOTO", "UID")


async def imported(client: Client, content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    response = await client.post("/contacts/import", files={"file": ("file", content)})
    assert response.status_code == 200, response.text
    contacts = [{name: contact[name] for name in FIELDS} for contact in await client.list_contacts()]
    return response.json(), contacts


def values_of(sample: Path, not_kept: dict[str, int]) -> list[str]:
    """Return all values of a file except labels and values that were counted as not kept."""
    text = SAMPLE_BYTES[sample.name].decode()
    if sample.suffix == ".vcf":
        unfolded = re.sub(r"=\r\n", "", re.sub(r"\r\n[ \t]", "", text))
        lines = [line.partition(":") for line in unfolded.splitlines() if line]
        return [
            quopri.decodestring(value).decode() if "QUOTED-PRINTABLE" in name else value
            for name, _, value in lines
            if name.partition(";")[0].rpartition(".")[2] not in OF_THE_CARD
        ]
    delimiter = ";" if sample.name == "outlook-de.csv" else ","
    *_, names, row = csv.reader(io.StringIO(text), delimiter=delimiter)
    return [
        cell
        for name, cell in zip(names, row, strict=True)
        if not re.search("(Label|Type|Service|Typ)$", name) and name not in not_kept
    ]


def words_of(value: str) -> set[str]:
    # Remove the marks around Apple's labels, the scheme of phone numbers, escaped line breaks, and the kinds of
    # Android's rows.
    plain = re.sub(r"_\$!<|>!\$_|^tel:|\\n|^vnd\.android\.cursor\.item/\w+|;[0-9]{1,2}(?=;)", " ", value)
    return set(re.findall(r"\w+", fold(plain)))


@pytest.mark.parametrize("sample", FULL, ids=lambda path: path.name)
async def test_a_full_contact_stays_whole(ada: Client, grace: Client, sample: Path) -> None:
    report, contacts = await imported(ada, SAMPLE_BYTES[sample.name])
    files = [(await ada.get(f"/contacts/export.{kind}")).content for kind in ("vcf", "csv")]

    assert (report["created"], report["failed"], len(contacts)) == (1, 0, 1)
    for file in files:
        for contact in await grace.list_contacts():
            await grace.delete(f"/contacts/{contact['id']}")
        again, theirs = await imported(grace, file)

        assert theirs == contacts
        assert (again["failed"], again["not_kept"], again["warnings"]) == (0, {}, [])
        # Unfold lines and unescape characters, as a vCard reader does.
        text = fold(file.decode().replace("\r\n ", "").replace("\\n", " ").replace("\\", ""))
        # Exports write dates with hyphens.
        text += text.replace("-", "")
        for value in values_of(sample, report["not_kept"]):
            missing = [word for word in words_of(value) if word not in text]
            assert not missing, value


def test_every_application_has_its_sample() -> None:
    assert [path.name for path in FULL] == [
        "android.vcf",
        "apple.vcf",
        "fastmail.vcf",
        "google-2014.csv",
        "google-2024.csv",
        "hubspot.csv",
        "linkedin.csv",
        "nextcloud.vcf",
        "outlook-de.csv",
        "outlook-en.csv",
        "thunderbird.csv",
    ]
