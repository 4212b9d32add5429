"""Files modelled on public reports of data lost by other importers. See `samples/cases/README.md`."""

from datetime import date
from typing import Any

import pytest

from contacts_api.features.exchange.models import REMARKS
from contacts_api.features.exchange.reader import BadRow, ImportedContact, NotAPerson
from tests.client import Client
from tests.features.exchange.contacts import SAMPLES, fields, imported, read

# For each file, its contacts and the remarks on its rows: row, field, and the code or the name.
CASES: dict[str, tuple[list[dict[str, Any]], list[tuple[int, str | None, str]]]] = {
    "01-apple-full-card.vcf": (
        [
            fields(
                "Ines Rae",
                "Marlow",
                "ines@example.com",
                "+1 202 555 0101",
                date(1985, 4, 12),
                "Met in Paris",
                ("nickname", None, "Nez"),
                ("organization", None, "Acme Ltd"),
                ("organization", "department", "Research"),
                ("title", None, "Lead"),
                ("email", "work", "i.marlow@example.org"),
                ("phone", "home", "+1 202 555 0102"),
                ("phone", "work", "+1 202 555 0103"),
                ("address", "home", "1 Elm St\nSpringfield\nIL\n62701\nUSA"),
                ("address", "work", "2 Oak Ave\nSpringfield\nIL\n62702\nUSA"),
                ("url", None, "https://example.com/ines"),
                ("date", "Anniversary", "2010-06-20"),
                ("other", "name prefix", "Dr."),
                ("other", "name suffix", "MBA"),
                labels=["Friends", "Work"],
            )
        ],
        [],
    ),
    "02-google-2024-full.csv": (
        [
            fields(
                "Ines Rae",
                "Marlow",
                "ines@example.com",
                "+1 202 555 0101",
                date(1985, 4, 12),
                "Met in Paris",
                ("nickname", None, "Nez"),
                ("organization", None, "Acme Ltd"),
                ("title", None, "Lead"),
                ("email", "work", "i.marlow@example.org"),
                ("phone", "home", "+1 202 555 0102"),
                ("phone", "work", "+1 202 555 0103"),
                ("url", None, "https://example.com"),
                ("date", "anniversary", "2010-06-20"),
                ("address", "home", "1 Elm St"),
                ("other", "name prefix", "Dr."),
                ("other", "name suffix", "MBA"),
                labels=["Friends", "myContacts"],
            )
        ],
        [],
    ),
    "04-anniversary.vcf": (
        [
            fields(
                "Jo",
                "Doe",
                None,
                "+12025550101",
                None,
                None,
                ("date", "anniversary", "2010-06-20"),
                ("other", "DEATHDATE", "20200101"),
            )
        ],
        [],
    ),
    "05-yearless-birthday-no-feed.vcf": ([fields("Jo", "Doe", birthday="11-25")], []),
    "07-yahoo.csv": (
        [
            fields(
                "Ines",
                "Marlow",
                "ines@example.com",
                "+12025550101",
                date(1985, 4, 12),
                "hello",
                ("phone", "work", "+12025550103"),
            )
        ],
        [(2, "date_of_birth", "ambiguous_date")],
    ),
    "08-german-simple.csv": (
        [fields("Ines", "Marlow", "ines@example.com", "+49 30 1234567", date(1985, 4, 12))],
        [(2, "date_of_birth", "ambiguous_date")],
    ),
    "10-ukrainian-simple.csv": (
        [fields("Тарас", "Коваль", "taras@example.com", "+380 44 123-45-67", date(1985, 4, 12))],
        [(2, "date_of_birth", "ambiguous_date")],
    ),
    "11-polish-simple.csv": ([fields("Ina", "Nowak", "ina@example.com", "+48 600 100 200", date(1985, 4, 12))], []),
    "13-salesforce-camelcase.csv": (
        [fields("Ines", "Marlow", "ines@example.com", "+12025550101", date(1985, 4, 12))],
        [],
    ),
    "14-firstname-telephone-dob.csv": (
        [fields("Ines", "Marlow", "ines@example.com", "+12025550101", date(1985, 4, 12))],
        [],
    ),
    "16-hubspot-mobile.csv": (
        [
            fields(
                "Ines",
                "Marlow",
                "ines@example.com",
                "+12025550101",
                date(1985, 4, 12),
                None,
                ("other", "Record ID", "1"),
            )
        ],
        [(2, "Record ID", "unknown_column")],
    ),
    "17-email-home-columns.csv": (
        [
            fields(
                "Jo",
                "Doe",
                "home@example.com",
                "+12025550101",
                date(1991, 1, 20),
                None,
                ("email", "work", "work@example.com"),
            )
        ],
        [],
    ),
    "19-mums.vcf": (
        [fields("Mum", None, None, None, None, "Ann's mother"), fields("Mum", None, None, None, None, "Bob's mother")],
        [],
    ),
    "20-note-raw-newline.vcf": ([fields("Jo", "Doe", None, "+12025550101", None, "first line\nsecond line")], []),
    "22-kind-group.vcf": ([fields("Al", "Lane", None, "+12025550104")], [(1, None, "KIND:group")]),
    "23-apple-group.vcf": ([], [(1, None, "KIND:group")]),
    "25-us-dashes.csv": (
        [
            fields("Jo", "Doe", "jo@example.com", "+12025550101", date(1985, 5, 12)),
            fields("Al", "Lane", "al@example.com", "+12025550102", date(1985, 12, 25)),
        ],
        [],
    ),
    "26-foreign-first_name-1900.csv": (
        [
            fields("Ines", "Marlow", "ines@example.com", "+12025550101"),
            fields("Jo", "Doe", "jo@example.com", "+12025550102", birthday="04-12"),
        ],
        [],
    ),
    "28-two-phones-one-cell.csv": (
        [fields("Jo", "Doe", "jo@example.com", "+1 202 555 0101", None, None, ("phone", "mobile", "+1 202 555 0102"))],
        [],
    ),
    "29-altid-names.vcf": ([fields("太郎", "山田", None, None, None, None, ("other", "full name", "Taro Yamada"))], []),
    "31-n-comma-list.vcf": (
        [
            fields(
                "John Quinlan Paul",
                "Public",
                None,
                None,
                None,
                None,
                ("other", "name prefix", "Mr."),
                ("other", "name suffix", "Esq."),
            )
        ],
        [],
    ),
    "32-bday-year-only.vcf": (
        [
            fields("Jo", "Doe", None, "+12025550101", None, None, ("other", "date_of_birth", "1985")),
            fields("Al", "Lane", None, "+12025550102", None, None, ("other", "date_of_birth", "1985-04")),
        ],
        [(1, "date_of_birth", "moved_to_details"), (2, "date_of_birth", "moved_to_details")],
    ),
    "34-bday-year-0000.vcf": ([fields("Jo", "Doe", None, "+12025550101", birthday="04-12")], []),
    "35-mailchimp-mm-dd.csv": (
        [fields("Ines", "Marlow", "ines@example.com", "+12025550101", birthday="04-12")],
        [(2, "date_of_birth", "ambiguous_date")],
    ),
    "37-month-names.csv": ([fields("Jo", "Doe", "jo@example.com", "+12025550101", date(1985, 4, 12))], []),
    "38-two-digit-year.csv": (
        [fields("Jo", "Doe", "jo@example.com", "+12025550101", date(1985, 4, 12))],
        [(2, "date_of_birth", "ambiguous_date")],
    ),
    "40-single-digit-iso.csv": ([fields("Jo", "Doe", "jo@example.com", "+12025550101", date(1985, 4, 7))], []),
    "41-zero-dates.csv": (
        [fields("Jo", "Doe", "jo@example.com", "+12025550101"), fields("Al", "Lane", "al@example.com", "+12025550102")],
        [],
    ),
    "43-born-1899.vcf": (
        [fields("Jo", "Doe", None, "+12025550101", None, None, ("other", "date_of_birth", "1899-12-30"))],
        [(1, "date_of_birth", "moved_to_details")],
    ),
    "44-vanity-number.vcf": (
        [fields("Jo", "Doe", "jo@example.com", None, None, None, ("other", "phone_number", "1-800-FLOWERS"))],
        [(1, "phone_number", "moved_to_details")],
    ),
    "46-arabic-digits.vcf": (
        [fields("Jo", "Doe", None, "02025550101"), fields("Al", "Lane", None, "03-1234-5678")],
        [],
    ),
    "49-apostrophe-phone.csv": ([fields("Jo", "Doe", "jo@example.com", "+380441234567")], []),
    "50-first-phone-bad.vcf": (
        [fields("Jo", "Doe", None, "+12025550101", None, None, ("other", "phone_number", "1-800-FLOWERS"))],
        [(1, "phone_number", "moved_to_details")],
    ),
    "52-exchange-ex.csv": (
        [
            fields(
                "Jo",
                "Doe",
                None,
                "+12025550101",
                None,
                None,
                ("other", "email", "/o=ExchangeLabs/ou=Group/cn=Recipients/cn=abc-jo"),
                ("other", "full name", "Jo Doe (jo@example.com)"),
            )
        ],
        [(2, "email", "moved_to_details")],
    ),
    "53-x500-then-smtp.vcf": (
        [fields("Jo", "Doe", "jo@example.com", None, None, None, ("other", "email", "x500:/o=Org/cn=jo"))],
        [(1, "email", "moved_to_details")],
    ),
    "55-name-addr.csv": ([fields("Jo", "Doe", "jo@example.com")], []),
    "56-two-emails-one-cell.csv": (
        [
            fields("Jo", "Doe", "jo@example.com", None, None, None, ("email", None, "jo2@example.com")),
            fields("Al", "Lane", "al@example.com", None, None, None, ("email", None, "al2@example.com")),
        ],
        [],
    ),
    "58-intranet-address.vcf": (
        [
            fields("Jo", "Doe", "jo@server.local", "+12025550101"),
            fields("Al", "Lane", None, None, None, None, ("other", "email", "al@mailhost")),
        ],
        [(2, "email", "moved_to_details")],
    ),
    "59-underscore-host.vcf": (
        [fields("Jo", "Doe", None, "+12025550101", None, None, ("other", "email", "jo@my_host.example.com"))],
        [(1, "email", "moved_to_details")],
    ),
    "61-newline-in-n.vcf": ([fields("Gabor", "Bela Kis", None, "+12025550101")], []),
    "62-newline-in-name-cell.csv": ([fields("Jo", "Doe Smith", "jo@example.com")], []),
    "64-truncated-qp-org.vcf": (
        [fields("Jo", "Doe", "jo@example.com", "+12025550101", None, None, ("organization", None, "ÑÑ�"))],
        [(1, "ORG", "not_text")],
    ),
    "65-qp-single-byte.vcf": (
        [fields("Piotr", "Kowñski", "piotr@example.com")],
        [(1, "N", "not_text"), (1, "FN", "not_text")],
    ),
    "67-qp-folded.vcf": ([fields("Ив", "Кут", None, "+12025550101")], []),
    "68-note-vertical-tab.vcf": ([fields("Jo", "Doe", None, "+12025550101", None, "line one\nline two")], []),
    "70-utf-16-bom.vcf": ([fields("Jo", "Müller")], []),
    "71-utf-16-be-no-bom.vcf": ([fields("Jo", "Müller")], []),
    "74-one-latin1-card.vcf": ([fields("Jo", "Doe", None, "+12025550101")], [(2, None, "charset")]),
    "76-linkedin-preamble.csv": (
        [
            fields(
                "Ines",
                "Marlow",
                "ines@example.com",
                None,
                None,
                None,
                ("url", None, "https://example.com/in/x"),
                ("organization", None, "Acme"),
                ("title", None, "Lead"),
                ("other", "Connected On", "12 Apr 2023"),
            )
        ],
        [(2, None, "passed_over"), (2, "Connected On", "unknown_column")],
    ),
    "77-outlook-german.csv": (
        [
            fields(
                "Ines",
                "Marlow",
                "ines@example.com",
                "+49151",
                date(1985, 4, 12),
                "hallo",
                ("organization", None, "Acme"),
            )
        ],
        [(2, "date_of_birth", "ambiguous_date")],
    ),
    "79-hyphenated-header.csv": ([fields("Jo", "Doe", "jo@example.com")], []),
    "80-primary-email-only.csv": (
        [fields("ines@example.com", None, "ines@example.com")],
        [(2, "first_name", "without_a_name")],
    ),
    "172-cards-on-one-line.vcf": (
        [
            fields("Ann", "Lane", None, "+12025550101"),
            fields("Bob", "Doe", None, "+12025550102"),
            fields("Cy", "Poe", None, "+12025550103"),
        ],
        [],
    ),
    "173-v21-folded-words.vcf": (
        [
            fields(
                "Jane",
                "Doe",
                None,
                "+12025550101",
                None,
                "Met at the fair in Lyon, wants to hear about the offer for the second flat in May",
                ("organization", None, "Doe and Sons"),
            )
        ],
        [],
    ),
    "177-outlook-x-ms-tel.vcf": (
        [
            fields(
                "Jo",
                "Doe",
                "jo@example.com",
                "+491510000001",
                None,
                None,
                ("organization", None, "Example AG"),
                ("phone", "work", "+49300000002"),
                ("phone", "isdn", "+49300000003"),
                ("phone", "assistant", "+49300000004"),
                ("phone", "company", "+49300000005"),
                ("address", "work", "Weg 1\nBerlin\n10115\nGermany"),
                ("account", None, "jo.doe@chat.example"),
                ("other", "X-MS-OL-DEFAULT-POSTAL-ADDRESS", "2"),
                ("other", "email", "12345"),
                ("other", "email label", "tlx"),
            )
        ],
        [(1, "email", "moved_to_details")],
    ),
    "178-android-custom.vcf": (
        [
            fields(
                "Jo",
                "Doe",
                None,
                "+12025550101",
                None,
                None,
                ("nickname", None, "Jojo"),
                ("relation", "spouse", "Ann Doe"),
                ("date", "anniversary", "2010-06-12"),
                ("date", "Visa ends", "2030-07-15"),
                ("nickname", None, "Леся"),
            )
        ],
        [],
    ),
    "197-zimbra.csv": (
        [
            fields(
                "Jo",
                "Doe",
                "jo@example.com",
                "+33600000001",
                date(1985, 4, 12),
                "tea",
                ("organization", None, "Example AG"),
                ("email", None, "jo@home.example"),
                ("title", None, "Buyer"),
                ("nickname", None, "Jojo"),
                ("email", "work", "jo@work.example"),
                ("phone", "work", "+33100000001"),
                ("url", "work", "http://example.com"),
                ("address", "home", "Lyon\n1 rue X"),
                ("other", "name prefix", "Dr."),
            ),
            fields(
                "Cafe Example",
                None,
                "cafe@example.com",
                "+33100000002",
                None,
                None,
                ("organization", None, "Cafe Example"),
            ),
        ],
        [(4, None, "KIND:group")],
    ),
    "200-slash-in-number.vcf": (
        [
            fields(
                "Jo",
                "Doe",
                None,
                "034441/392334",
                None,
                None,
                ("phone", "mobile", "+49 1511/2345678"),
                ("phone", "home", "+49 (0)2234/123456"),
            )
        ],
        [],
    ),
    "202-kaddressbook-im.vcf": (
        [
            fields(
                "Jo",
                "Doe",
                "jo@example.com",
                "+48600000001",
                None,
                None,
                ("account", "skype", "jo.doe"),
                ("account", "xmpp", "jo@jabber.example"),
                ("relation", "spouse", "Ann Doe"),
            )
        ],
        [],
    ),
    "98-skipped-rows-unnamed.csv": (
        [fields("Jo", "Doe", "jo@example.com", "+12025550199"), fields("Al", "Lane", "al@example.com", "+12025550102")],
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_value_of_a_file_is_kept_or_named(name: str) -> None:
    contacts, said = CASES[name]

    report, rows = read((SAMPLES / "cases" / name).read_bytes())

    assert imported(row for row in rows if isinstance(row, ImportedContact)) == contacts
    found = [(warning.row, warning.field, warning.code) for warning in report.warnings]
    for row in rows:
        match row:
            case ImportedContact():
                found += [(row.row, warning.field, warning.code) for warning in row.warnings]
            case BadRow():
                found.append((row.row, row.field, row.code))
            case NotAPerson():
                found.append((row.row, None, row.name))
    assert {code for _, _, code in found} <= {*REMARKS, "KIND:group"}
    assert sorted(found, key=str) == sorted(said, key=str)


async def test_what_has_no_place_is_counted_by_its_name(ada: Client) -> None:
    for name, not_kept in (
        ("01-apple-full-card.vcf", {"PHOTO": 1}),
        ("22-kind-group.vcf", {"KIND:group": 1}),
        ("23-apple-group.vcf", {"KIND:group": 1}),
        ("52-exchange-ex.csv", {}),
    ):
        file = (SAMPLES / "cases" / name).read_bytes()
        report = await ada.post("/contacts/import", files={"file": (name, file)})

        assert report.json()["not_kept"] == not_kept, name
        assert (report.json()["failed"], report.json()["skipped"]) == (0, 0)


@pytest.mark.parametrize(
    ("name", "code", "said", "values"),
    [
        ("185-no-header.csv", "missing_header", "Add a first line such as first_name,last_name", ["Ann", "Nick"]),
        ("198-telegram.json", "unknown_format", "It seems to be JSON.", ["Jo", "0012025550101"]),
    ],
)
async def test_a_file_that_is_refused_says_why_and_repeats_no_value(
    ada: Client, name: str, code: str, said: str, values: list[str]
) -> None:
    refused = await ada.post("/contacts/import", files={"file": (name, (SAMPLES / "cases" / name).read_bytes())})

    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert said in refused.json()["detail"]
    assert not [value for value in values if value in refused.text]


async def test_a_file_in_another_encoding_is_read_in_the_one_that_is_named(ada: Client) -> None:
    file = (SAMPLES / "cases" / "73-windows-1251.csv").read_bytes()
    card = (SAMPLES / "cases" / "74-one-latin1-card.vcf").read_bytes()
    polish = (SAMPLES / "cases" / "65-qp-single-byte.vcf").read_bytes()

    async def post(content: bytes, encoding: str) -> Any:
        return (await ada.post(f"/contacts/import?encoding={encoding}", files={"file": ("f", content)})).json()

    refused = await post(file, "auto")
    report = await post(file, "windows-1251")
    cards = await post(card, "WINDOWS-1252")
    quoted = await post(polish, "windows-1250")
    unknown = await post(file, "zip")

    assert refused["errors"][0]["loc"] == ["body", "file"]
    assert "Line 2 " in refused["detail"]
    assert "encoding=windows-1252" in refused["detail"]
    assert (report["created"], cards["created"], quoted["created"]) == (1, 2, 1)
    assert quoted["warnings"] == []
    assert unknown["errors"][0]["loc"] == ["query", "encoding"]
    names = {(contact["first_name"], contact["last_name"]) for contact in await ada.list_contacts()}
    assert names == {("Тарас", "Коваль"), ("Jo", "Doe"), ("Uwe", "Müller"), ("Piotr", "Kowński")}


@pytest.mark.parametrize("rest", ["Ann Lee;+49 30 1234567;9\n", "Ann Lee;ann@example.com;9\n"])
async def test_names_of_columns_that_are_all_unknown_are_listed(ada: Client, rest: str) -> None:
    refused = await ada.post("/contacts/import", files={"file": ("f.csv", f"Wer;Erreichbar;Rang\n{rest}")})

    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_columns")
    assert "'Wer', 'Erreichbar', 'Rang'" in refused.json()["detail"]
    assert "Ann" not in refused.text


UNKNOWN = "Wer,Rang,E-mail\nGrace Hopper,Admiral,grace@example.com\n"


async def test_columns_that_nobody_could_guess_are_mapped_by_the_caller(ada: Client) -> None:
    file = {"file": ("f.csv", UNKNOWN)}
    refused = await ada.post("/contacts/import", files=file)
    mapping = {"columns": '{"Wer": "full_name", "Rang": "title"}'}
    mapped = await ada.post("/contacts/import", files=file, data=mapping)
    (contact,) = await ada.list_contacts()

    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_columns")
    assert "'Wer', 'Rang'" in refused.json()["detail"]
    assert "columns" in refused.json()["detail"]
    assert (mapped.status_code, mapped.json()["warnings"]) == (200, [])
    assert (contact["first_name"], contact["email"]) == ("Grace Hopper", "grace@example.com")
    assert contact["details"] == [{"kind": "title", "label": None, "value": "Admiral"}]


@pytest.mark.parametrize(
    ("columns", "file"),
    [
        ("Wer", UNKNOWN),
        ("[]", UNKNOWN),
        ('{"Wer": "nickname_of_a_friend"}', UNKNOWN),
        ('{"Wer": 1}', UNKNOWN),
        ('{"Who": "full_name"}', UNKNOWN),
        ('{"Wer": "full_name"}', "BEGIN:VCARD\nFN:Grace\nEND:VCARD\n"),
    ],
)
async def test_a_mapping_that_fits_nothing_is_refused(ada: Client, columns: str, file: str) -> None:
    response = await ada.post("/contacts/import", files={"file": ("f", file)}, data={"columns": columns})

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [["body", "columns"]]
    assert await ada.list_contacts() == []


async def test_a_column_that_is_mapped_to_nothing_is_counted(ada: Client) -> None:
    mapping = {"columns": '{"Wer": "first_name", "Rang": null}'}

    report = (await ada.post("/contacts/import", files={"file": ("f", UNKNOWN)}, data=mapping)).json()

    assert (report["created"], report["not_kept"]) == (1, {"Rang": 1})


async def test_a_middle_name_is_kept_where_there_is_no_last_name(ada: Client) -> None:
    file = b"First Name,Middle Name,Last Name\nGrace,Brewster,\n"

    report = await ada.post("/contacts/import", files={"file": ("f.csv", file)})

    assert report.json()["created"] == 1
    assert "Brewster" in (await ada.get("/contacts/export.csv")).text


async def test_a_first_name_that_cannot_be_seen_is_a_row_that_failed_or_another_name(ada: Client) -> None:
    card = "BEGIN:VCARD\r\nVERSION:3.0\r\nN:;\u200b;;;\r\nFN:Zoe\r\nEND:VCARD\r\n"

    report = await ada.post("/contacts/import", files={"file": ("f.vcf", card.encode())})

    assert report.status_code == 200
    assert report.json()["created"] + report.json()["failed"] == 1


@pytest.mark.parametrize(
    "name", ["ISO-8859-0", "ISO-8859-12", "ISO-8859-99", "CP1259", "UTF16BE", "WINDOWS-1259", "utf-8\0"]
)
async def test_an_encoding_that_python_does_not_have_is_refused(ada: Client, name: str) -> None:
    card = f"BEGIN:VCARD\r\nVERSION:3.0\r\nN;CHARSET={name}:Doe;Jo;;;\r\nEND:VCARD\r\n".encode()

    asked = await ada.post("/contacts/import", params={"encoding": name}, files={"file": ("f.vcf", card)})
    named = await ada.post("/contacts/import", files={"file": ("f.vcf", card)})

    assert (asked.status_code, asked.json()["errors"][0]["loc"]) == (422, ["query", "encoding"])
    assert named.status_code < 500
