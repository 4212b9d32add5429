"""Variations of the files in test_cases.py: the result for names, numbers, addresses, labels and dates."""

from datetime import date
from typing import Any

import pytest

from contacts_api.features.exchange import vcard
from contacts_api.features.exchange.files import MissingHeader, UnknownFormat
from tests.features.exchange.contacts import SAMPLES, fields, imported, read

BORN = date(1985, 12, 10)


def card(*lines: str, version: str = "3.0") -> str:
    return "\n".join(["BEGIN:VCARD", f"VERSION:{version}", *lines, "END:VCARD", ""])


COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "a type of a contact labels nothing": (
        "First Name,Contact Type,Email\nAda,Customer,ada@example.com\n",
        fields("Ada", None, "ada@example.com", None, None, None, ("other", "Contact Type", "Customer")),
    ),
    "a label without its value": (
        "First Name,E-mail 1 - Label,E-mail 1 - Value\nAda,Boat,\n",
        fields("Ada", None, None, None, None, None, ("other", "E-mail 1 - Label", "Boat")),
    ),
    "labels of columns with one name": (
        "First Name,Phone Type,Phone,Phone Type,Phone\nAda,Work,123456,Home,234567\n",
        fields("Ada", None, None, "234567", None, None, ("phone", "work", "123456")),
    ),
    "a city in the name of its street": (
        "Name,Street,City,Country\nAda,12 York St,York,UK\n",
        fields("Ada", None, None, None, None, None, ("address", None, "12 York St\nYork\nUK")),
    ),
    "an address of two lines": (
        "Name,Address 1,Address 2,City\nAda,12 York St,Flat 2,York\n",
        fields("Ada", None, None, None, None, None, ("address", None, "12 York St\nFlat 2\nYork")),
    ),
    "Salesforce's address": (
        "Name,Mailing Street,MailingPostalCode,Mailing State/Province\nAda,1 Elm,12345,CA\n",
        fields("Ada", None, None, None, None, None, ("address", None, "1 Elm\n12345\nCA")),
    ),
    "a name beside a first name": ("Name;Vorname\nMüller;Uwe\n", fields("Uwe", "Müller")),
    "a name beside a last name": ("Name,Surname\nAda,Lovelace\n", fields("Ada", "Lovelace")),
    "a name in full beside a last name": (
        "Name,Surname\nAda Lovelace,Lovelace\n",
        fields("Lovelace", None, None, None, None, None, ("other", "full name", "Ada Lovelace")),
    ),
    "two last names": ("Nombre,Primer apellido,Segundo apellido\nAna,García,López\n", fields("Ana", "García López")),
    "a nickname beside a name": (
        "Name,Nickname\nAda Lovelace,Adi\n",
        fields("Ada Lovelace", None, None, None, None, None, ("nickname", None, "Adi")),
    ),
    "a title beside a job title": (
        "Title,First Name,Job Title\nDr.,Ada,CTO\n",
        fields("Ada", None, None, None, None, None, ("title", None, "CTO"), ("other", "name prefix", "Dr.")),
    ),
    "two titles in French": (
        "Titre;Prénom;Titre\nMme;Ada;Mathématicienne\n",
        fields(
            "Ada",
            None,
            None,
            None,
            None,
            None,
            ("title", None, "Mathématicienne"),
            ("other", "name prefix", "Mme"),
        ),
    ),
    "addresses by abbreviations": (
        "Nome;Via (uff.);Città (uff.);Via (ab.);Città (ab.)\nAda;Via Po 1;Roma;Via Adige 2;Torino\n",
        fields(
            "Ada",
            None,
            None,
            None,
            None,
            None,
            ("address", "work", "Via Po 1\nRoma"),
            ("address", "home", "Via Adige 2\nTorino"),
        ),
    ),
    "a type that stands before what it is of": (
        "Nombre;Correo electrónico;Tipo de correo electrónico\nAda;ada@example.com;SMTP\n",
        fields("Ada", None, "ada@example.com"),
    ),
    "a department away from its company": (
        "Name,Organization Name,Organization Title,Organization Department\nAda,Acme,CTO,R&D\n",
        fields(
            "Ada",
            None,
            None,
            None,
            None,
            None,
            ("organization", None, "Acme"),
            ("organization", "department", "R&D"),
            ("title", None, "CTO"),
        ),
    ),
    "a display name with its address": (
        "First Name,E-mail Address,E-mail Display Name\nAda,ada@example.com,Ada (ada@example.com)\n",
        fields("Ada", None, "ada@example.com"),
    ),
    "names of columns on two lines": (
        '"First\nName","Last\nName"\nAda,Lovelace\n',
        fields("Ada", "Lovelace"),
    ),
    "a space after each comma": (
        'First Name, Last Name, Notes\nAda, Lovelace, "tea, and cake"\n',
        fields("Ada", "Lovelace", None, None, None, "tea, and cake"),
    ),
    "cells that a spreadsheet made texts": (
        'First Name,Phone\n="Ada",="0441234567"\n',
        fields("Ada", None, None, "0441234567"),
    ),
    "a number under a mark of privacy": (
        "Name;Privat;Mobil\nAda;030 123456;0171 123456\n",
        fields("Ada", None, None, "0171 123456", None, None, ("phone", "Privat", "030 123456")),
    ),
    "quotes left as they are": (
        'First Name,Last Name,Notes\nAda,Lovelace,"said "hi" to, ""me"""\n',
        fields("Ada", "Lovelace", None, None, None, 'said "hi" to, "me"'),
    ),
    "a cell of which a part is in quotes": (
        'First Name,Last Name\n"Ada" Augusta,Lovelace\n',
        fields('"Ada" Augusta', "Lovelace"),
    ),
    "rows that a spreadsheet took for cells": (
        '"First Name,Last Name,Notes"\n"Ada,Lovelace,""tea, and cake"""\n',
        fields("Ada", "Lovelace", None, None, None, "tea, and cake"),
    ),
    "two addresses in the same cells": (
        "Name,Address 1 - Street,Address 1 - City\nAda,1 Elm ::: 2 Oak,York ::: Hull\n",
        fields("Ada", None, None, None, None, None, ("address", None, "1 Elm\nYork"), ("address", None, "2 Oak\nHull")),
    ),
    "labels in quotes": ('Name,Tags\nAda,"""VIP"",""Big donor"""\n', fields("Ada", labels=["VIP", "Big donor"])),
    "two birthdays": (
        "Name,Date of Birth,Birthday\nAda,1985-12-10,05/13\n",
        fields("Ada", None, None, None, BORN, None, ("other", "birthday", "05-13")),
    ),
    "the parts of a birthday in German": (
        "Vorname;Geburtsjahr;Geburtsmonat;Geburtstag\nAda;1985;12;10\n",
        fields("Ada", date_of_birth=BORN),
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns(kind: str) -> None:
    file, expected = COLUMNS[kind]

    assert imported(read(file)[1]) == [expected]


@pytest.mark.parametrize(
    ("written", "email", "details"),
    [
        ("ada @example.com", "ada@example.com", []),
        ("ada@example,com", None, [("other", "email", "ada@example,com")]),
        ("bad@; good@example.com", "good@example.com", [("other", "email", "bad@; good@example.com")]),
        ("ada@example.com (home)", "ada@example.com", []),
        ("<ada@example.com> Boat", "ada@example.com", [("other", "full name", "Boat")]),
    ],
)
def test_addresses(written: str, email: str | None, details: list[tuple[str, str | None, str]]) -> None:
    file = f'First Name,Email\nAda,"{written}"\n'

    assert imported(read(file)[1]) == [fields("Ada", None, email, None, None, None, *details)]


@pytest.mark.parametrize(
    ("written", "number", "details"),
    [
        ("+12025550101,,123456#", "+12025550101,,123456#", []),
        ("+12025550101;123456789", "+12025550101;123456789", []),
        ("030/1234567, 0171/7654321", "030/1234567", [("phone", None, "0171/7654321")]),
        ("030 1234567 und 0171 7654321", "030 1234567", [("phone", None, "0171 7654321")]),
        ("555-0101,555-0102", "555-0101", [("phone", None, "555-0102")]),
        ("+1 202 555 0101 Ext: 5", "+1 202 555 0101 ext 5", []),
        ("044 123-45-67 доб. 12", "044 123-45-67 ext 12", []),
        ("+12025550101p123", "+12025550101,123", []),
        ("+380441234567 (Viber)", "+380441234567", [("other", "phone_number label", "Viber")]),
        ("\u200b+12025550101", "+12025550101", []),
    ],
)
def test_numbers(written: str, number: str, details: list[tuple[str, str | None, str]]) -> None:
    file = f'First Name,Phone\nAda,"{written}"\n'

    assert imported(read(file)[1]) == [fields("Ada", None, None, number, None, None, *details)]


CARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "a name in full beside a nickname": (
        card("N:;;;;", "FN:Ada Lovelace", "NICKNAME:Adi"),
        fields("Ada Lovelace", None, None, None, None, None, ("nickname", None, "Adi")),
    ),
    "an address for a name, and a company": (
        card("N:;;;;", "FN:ada@example.com", "EMAIL:ada@example.com", "ORG:Acme"),
        fields("Acme", None, "ada@example.com", None, None, None, ("organization", None, "Acme")),
    ),
    "a middle name and a last name": (card("N:Doe;;Paul;;", "FN:Paul Doe"), fields("Paul", "Doe")),
    "a sign in the name in full": (
        card("N:;Mum;;;", "FN:Mum ❤️"),
        fields("Mum", None, None, None, None, None, ("other", "full name", "Mum ❤️")),
    ),
    "a name twice in the name in full": (
        card("N:;Jo;;;", "FN:JoJo"),
        fields("Jo", None, None, None, None, None, ("other", "full name", "JoJo")),
    ),
    "a comma before a space": (card("N:Smith, Jr.;John"), fields("John", "Smith, Jr.")),
    "a second surname": (
        card("N:García;Ana;;;;López;", version="4.0"),
        fields("Ana", "García", None, None, None, None, ("other", "N", "López")),
    ),
    "labels of Android": (
        card(
            "N:L;Ada",
            "TEL;CELL:123456",
            "TEL;X-CUSTOM(CHARSET=UTF-8,ENCODING=QUOTED-PRINTABLE,=D0=94=D0=B0=D1=87=D0=B0):234567",
            "TEL;X-Ferien haus:345678",
            version="2.1",
        ),
        fields("Ada", "L", None, "123456", None, None, ("phone", "Дача", "234567"), ("phone", "Ferien haus", "345678")),
    ),
    "a type that says nothing, made up": (
        card("N:L;Ada", "EMAIL;X-INTERNET:ada@example.com", version="2.1"),
        fields("Ada", "L", "ada@example.com"),
    ),
    "services of Apple": (
        card("N:L;Ada", "IMPP;X-SERVICE-TYPE=QQ:x-apple:12345"),
        fields("Ada", "L", None, None, None, None, ("account", "qq", "x-apple:12345")),
    ),
    "an address that is only there as a whole": (
        card("N:L;Ada", 'ADR;LABEL="1 Elm\\nX":;;;;;;', version="4.0"),
        fields("Ada", "L", None, None, None, None, ("address", None, "1 Elm\nX")),
    ),
    "an address with more as a whole": (
        card("N:L;Ada", 'ADR;LABEL="Mail Drop: 7\\n1 Elm":;;1 Elm;Any Town;;;', version="4.0"),
        fields("Ada", "L", None, None, None, None, ("address", None, "1 Elm\nAny Town\nMail Drop: 7")),
    ),
    "a quote without its end": (card("N:L;Ada", 'TEL;TYPE="CELL:123456'), fields("Ada", "L", None, "123456")),
    "a broken note with colons": (
        card("N:L;Ada", "NOTE:Met at", "Paris: 2019", "https://a.example/b", "email: x@example.com", "TEL:123456"),
        fields("Ada", "L", None, "123456", None, "Met at\nParis: 2019\nhttps://a.example/b\nemail: x@example.com"),
    ),
    "dots put the day first": (card("N:L;Ada", "BDAY:10.12.1985"), fields("Ada", "L", date_of_birth=BORN)),
    "the year of this year, ahead": (
        card("N:L;Ada", "BDAY:25.12.26"),
        fields("Ada", "L", date_of_birth=date(1926, 12, 25)),
    ),
    "a charset by another of its names": (
        card("N;CHARSET=SHIFT-JIS;ENCODING=QUOTED-PRINTABLE:=8E=52=93=63;=91=BE", version="2.1"),
        fields("太", "山田"),
    ),
}


CARDS |= {
    "what Evolution writes": (
        card(
            *("N:L;Ada", "X-EVOLUTION-SPOUSE:Will", "X-EVOLUTION-MANAGER:Cy", "X-EVOLUTION-ANNIVERSARY:1835-07-08"),
            *("TEL;TYPE=X-EVOLUTION-CALLBACK;X-EVOLUTION-UI-SLOT=2:+12025550101", "X-SKYPE:ada"),
        ),
        fields(
            "Ada",
            "L",
            None,
            "+12025550101",
            None,
            None,
            ("relation", "spouse", "Will"),
            ("relation", "manager", "Cy"),
            ("date", "anniversary", "1835-07-08"),
            ("account", "skype", "ada"),
            ("other", "phone_number label", "callback"),
        ),
    ),
    "a number of an assistant alone": (
        card("N:L;Ada", "X-MS-TEL;VOICE;ASSISTANT:+12025550104", "TEL;FAX:+12025550105", version="2.1"),
        fields("Ada", "L", None, "+12025550105", None, None, ("phone", "assistant", "+12025550104")),
    ),
    "a birthday and a maiden name of Android": (
        card(
            "N:L;Ada",
            "X-ANDROID-CUSTOM:vnd.android.cursor.item/contact_event;1985-12-10;3;;;",
            "X-ANDROID-CUSTOM:vnd.android.cursor.item/nickname;Byron;3;;;",
            "X-ANDROID-CUSTOM:vnd.android.cursor.item/relation;Will;0;Tutor;;",
            version="2.1",
        ),
        fields(
            "Ada",
            "L",
            None,
            None,
            BORN,
            None,
            ("nickname", "maiden name", "Byron"),
            ("relation", "Tutor", "Will"),
        ),
    ),
    "a row of Android that nobody knows": (
        card("N:L;Ada", "X-ANDROID-CUSTOM:vnd.android.cursor.item/photo_file;a;b"),
        fields(
            "Ada",
            "L",
            None,
            None,
            None,
            None,
            ("other", "X-ANDROID-CUSTOM", "vnd.android.cursor.item/photo_file;a;b"),
        ),
    ),
    "an address as a label of a letter": (
        card("N:L;Ada", "ADR;TYPE=WORK:;;1 Elm;York;;;", "LABEL;TYPE=HOME:2 Oak\\nHull"),
        fields(
            "Ada", "L", None, None, None, None, ("address", "work", "1 Elm\nYork"), ("address", "home", "2 Oak\nHull")
        ),
    ),
    "a name that no property has": (
        card("N:L;Ada", "TEL:+12025550101", "X-my field/one:tea", "Room 5: first floor"),
        fields(
            "Ada",
            "L",
            None,
            "+12025550101",
            None,
            None,
            ("other", "X-MY FIELD/ONE", "tea"),
            ("other", "ROOM 5", " first floor".strip()),
        ),
    ),
    "a label of a group of nothing else": (
        card("N:L;Ada", "item1.X-ABLabel:Boat"),
        fields("Ada", "L", None, None, None, None, ("other", "X-ABLABEL", "Boat")),
    ),
    "a base64 value that is folded in 2.1": (
        card("N:L;Ada", "NOTE;ENCODING=BASE64:w4XF", " gsWB", version="2.1"),
        fields("Ada", "L", None, None, None, "ÅłŁ"),
    ),
    "a quoted label with a line break of RFC 6868": (
        card("N:L;Ada", "ADR;LABEL=\"1 Elm: B^n^'X^'\":;;;;;;", version="4.0"),
        fields("Ada", "L", None, None, None, None, ("address", None, '1 Elm: B\n"X"')),
    ),
}


@pytest.mark.parametrize("kind", CARDS)
def test_cards(kind: str) -> None:
    file, expected = CARDS[kind]

    assert imported(read(file)[1]) == [expected]


def test_all_dates_of_the_cards_of_a_file_show_the_order() -> None:
    file = card("N:L;Ada", "BDAY:10/12/1985") + card("N:L;Bob", "ANNIVERSARY:25/12/2010")

    report, rows = read(file)

    assert (report.date_order, report.warnings) == ("dmy", [])
    assert imported(rows)[0]["date_of_birth"] == BORN


def test_where_no_date_of_the_cards_shows_the_order_a_warning_says_how_they_are_read() -> None:
    report, rows = read(card("N:L;Ada") + card("N:L;Bob", "BDAY:10/12/1985"))

    assert [(each.row, each.line, each.code) for each in report.warnings] == [(2, 8, "ambiguous_date")]
    assert imported(rows)[1]["date_of_birth"] == date(1985, 10, 12)


def test_a_picture_by_another_name_is_counted() -> None:
    _, (contact,) = read(card("N:L;Ada", "X-MS-CARDPICTURE;ENCODING=BASE64:/9j/4AAQSkZJRgABAQ=="))

    assert (contact.fields["details"], contact.not_kept) == ([], ["X-MS-CARDPICTURE"])


def test_a_list_of_evolution_is_no_person() -> None:
    _, (row,) = read(card("FN:Friends", "X-EVOLUTION-LIST:TRUE"))

    assert row.name == "KIND:group"


def test_a_label_that_is_too_long_is_kept_whole_and_said() -> None:
    _, (contact,) = read(card("N:L;Ada", f"CATEGORIES:{'x' * 65},ok"))

    assert contact.fields["labels"] == ["ok"]
    assert contact.fields["details"] == [{"kind": "other", "label": "labels", "value": "x" * 65}]
    assert [(each.field, each.code) for each in contact.warnings] == [("labels", "moved_to_details")]


def test_a_cell_too_many_costs_no_person() -> None:
    _, (contact,) = read("First Name,Email,Address\nAda,ada@example.com,1 Elm St, Springfield\n")

    details = [("address", None, "1 Elm St"), ("other", "column 4", "Springfield")]
    assert contact.fields == fields("Ada", None, "ada@example.com", None, None, None, *details)
    assert [(each.field, each.code) for each in contact.warnings] == [(None, "too_many_cells")]


@pytest.mark.parametrize("line", ["GEO:37.38;-122.08", "ORG:Acme;Sales;West", "X-FOO:a,b;c\\\\d"])
def test_what_has_several_parts_goes_out_as_it_came(line: str) -> None:
    (contact,) = imported(read(card("N:L;Ada", line))[1])

    written = vcard.unparse([{**contact, "vcard_uid": "1"}]).decode()

    assert line in written.split("\r\n")
    assert imported(read(written)[1]) == [contact]


@pytest.mark.parametrize(
    "glue", ["END:VCARDBEGIN:VCARD\n", "end:vcard begin:vcard\n", "END:VCARDBEGIN:VCARDVERSION:3.0\n", "END:VCARD"]
)
def test_cards_without_a_line_end_between_them_are_two_people(glue: str) -> None:
    first, second = card("N:L;Ada", "TEL:+12025550101"), card("N:D;Bob", "TEL:+12025550102")
    file = f"{first}{second}".replace("END:VCARD\nBEGIN:VCARD\n", glue if "\n" in glue else f"{glue}BEGIN:VCARD\n", 1)

    assert [each["phone_number"] for each in imported(read(file)[1])] == ["+12025550101", "+12025550102"]


def test_a_card_that_is_glued_to_the_last_value_of_another_is_a_person_of_its_own() -> None:
    first, second = card("N:L;Ada", "TEL:+12025550101"), card("N:D;Bob", "TEL:+12025550102")
    file = f"{first}{second}".replace("\nEND:VCARD\nBEGIN:VCARD\n", "END:VCARDBEGIN:VCARD\n", 1)

    assert [each["phone_number"] for each in imported(read(file)[1])] == ["+12025550101", "+12025550102"]


def test_a_note_with_the_words_of_two_cards_is_one_note() -> None:
    note = "END:VCARDBEGIN:VCARD"

    written = vcard.unparse([{**fields("Ada", additional_info=note), "vcard_uid": "1"}])

    assert imported(read(written)[1]) == [fields("Ada", additional_info=note)]


def test_a_parameter_that_means_nothing_here_is_counted() -> None:
    _, (contact,) = read(card("N:L;Ada", "TEL;TYPE=CELL;X-SINCE=2010:+12025550101"))

    assert contact.fields["phone_number"] == "+12025550101"
    assert contact.not_kept == ["TEL;X-SINCE"]


@pytest.mark.parametrize("line", ["BDAY;CALSCALE=hijri:1405-07-22", "BDAY;VALUE=date;CALSCALE=japanese:0060-04-12"])
def test_a_date_of_another_calendar_is_kept_and_said(line: str) -> None:
    _, (contact,) = read(card("N:L;Ada", line, version="4.0"))

    assert (contact.fields["date_of_birth"], contact.fields["birthday"]) == (None, None)
    assert [each["label"] for each in contact.fields["details"]] == ["date_of_birth"]
    assert [each.code for each in contact.warnings] == ["moved_to_details"]


@pytest.mark.parametrize(
    "written", ["1364/01/20", "2528-04-12", "1405-07-22", "昭和60年4月12日", "S60.4.12", "5745-01-20", "12 เม.ย. 2528"]
)
@pytest.mark.parametrize("column", ["Birthday", "Anniversary"])
def test_a_year_of_another_calendar_is_no_year_of_ours(column: str, written: str) -> None:
    _, (contact,) = read(f"First Name,{column}\nAda,{written}\n")

    assert (contact.fields["date_of_birth"], contact.fields["birthday"]) == (None, None)
    assert [(each["kind"], each["value"]) for each in contact.fields["details"]] == [("other", written)]
    assert [each.code for each in contact.warnings] == ["moved_to_details"]


@pytest.mark.parametrize(
    ("written", "number", "other"),
    [
        ("491721234567.0", "491721234567", None),
        ("+491721234567.00", "+491721234567", None),
        ("4.91721E+11", None, "4.91721E+11"),
        ("4,91721E+11", None, "4,91721E+11"),
        ("030.1234567", "030.1234567", None),
    ],
)
def test_what_a_spreadsheet_made_of_a_number_is_no_other_number(
    written: str, number: str | None, other: str | None
) -> None:
    _, (contact,) = read(f"Vorname;Mobil\nAda;{written}\n")

    assert contact.fields["phone_number"] == number
    assert [each["value"] for each in contact.fields["details"]] == ([other] if other else [])
    assert len(contact.warnings) == bool(other)


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("+12025550101/+12025550102", ["+12025550101", "+12025550102"]),
        ("0171 1234567 / 0172 7654321", ["0171 1234567", "0172 7654321"]),
        ("034441/392334", ["034441/392334"]),
        ("044/123-45-67", ["044/123-45-67"]),
        ("+1 202 555 0101/0102", ["+1 202 555 0101/0102"]),
        ("030/1234567; 0171/7654321", ["030/1234567", "0171/7654321"]),
    ],
)
def test_a_slash_parts_whole_numbers_only(written: str, numbers: list[str]) -> None:
    _, (contact,) = read(f'Name,Phone\nAda,"{written}"\n')

    assert [contact.fields["phone_number"], *(each["value"] for each in contact.fields["details"])] == numbers


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("First Name,Birthday", "mdy"),
        ("Vorname,Nachname,Birthday", "dmy"),
        ("Name,Telefon,Birthday", "dmy"),
        ("Nom,Prénom,DOB", "dmy"),
        ("First Name,Last Name,Profession,Birthday", "mdy"),
        ("First Name,Anniversary", "mdy"),
        ("Vorname,Anniversary", "dmy"),
    ],
)
def test_dates_follow_the_language_of_the_header(header: str, order: str) -> None:
    *names, _ = header.split(",")

    report, _ = read(f"{header}\n{','.join('Ada' for _ in names)},3/4/1990\n")

    assert report.date_order == order


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_every_separator_is_seen(separator: str) -> None:
    file = f"First Name{separator}Last Name{separator}Notes\nAda{separator}L{separator}tea\n"

    assert imported(read(file)[1]) == [fields("Ada", "L", additional_info="tea")]


def test_another_separator_is_read_where_the_file_names_it() -> None:
    assert imported(read("sep=^\nFirst Name^Last Name\nAda^L\n")[1]) == [fields("Ada", "L")]


def test_lines_before_the_names_of_the_columns_are_counted() -> None:
    _, (contact,) = read("My friends\n\nAs of,2026\nFirst Name,Email\nAda,ada@example.com\n")

    assert contact.fields["first_name"] == "Ada"
    assert [(each.code, each.detail.rpartition(": ")[2]) for each in contact.warnings] == [
        ("passed_over", "2 passed over.")
    ]


@pytest.mark.parametrize(
    "file",
    [
        "Ann;Lane;ann@example.com\nNick;Poe;nick@example.com\n",
        "Ann|+12025550101\nNick|+12025550102\n",
        "Ann,Lane,<ann@example.com>\nNick,Poe,\n",
        "Ann,1985-04-12\nNick,1986-04-12\n",
    ],
)
def test_a_row_of_a_person_is_no_header(file: str) -> None:
    with pytest.raises(MissingHeader) as raised:
        read(file)

    assert "Add a first line such as first_name" in raised.value.detail
    assert "Nick" not in raised.value.detail


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1}', "JSON"),
        (b' [ {"first_name": "Jo"}]', "JSON"),
        (b'["vcard", [["fn", {}, "text", "Jo"]]]', "JSON"),
        (b"<!DOCTYPE html><title>Sign in</title>", "an HTML page"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><contacts/>', "XML"),
        (b"PK\x03\x04\x14\x00\x06\x00", "a workbook (.xlsx, .ods) or another zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook (.xls)"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "an image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "an image"),
        (b"\x1f\x8b\x08\x00", "a compressed file"),
        (b"{\\rtf1\\ansi Jo}", "a text document (RTF)"),
        (b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n", "a calendar"),
        (b"dn: cn=Jo,ou=people\ncn: Jo\n", "LDIF"),
        (b"SQLite format 3\x00", "a database"),
    ],
)
def test_a_file_that_is_neither_says_what_it_seems_to_be(content: bytes, said: str) -> None:
    with pytest.raises(UnknownFormat) as raised:
        read(content)

    assert said in raised.value.detail
    assert "Jo" not in raised.value.detail


@pytest.mark.parametrize(
    ("column", "cell", "details", "not_kept"),
    [
        ("Gender", "Unspecified", [], ["Gender"]),
        ("Gender", "2", [], ["Gender"]),
        ("Gender", "Female", [("other", "Gender", "Female")], []),
        ("Sensitivity", "Normal", [], ["Sensitivity"]),
        ("fileAs", "3", [], ["fileAs"]),
        ("fileAs", "8:Aunt Ada", [("other", "full name", "Aunt Ada")], []),
        ("File As", "Lovelace, Ada", [("other", "full name", "Lovelace, Ada")], []),
    ],
)
def test_a_choice_is_no_text(column: str, cell: str, details: list[Any], not_kept: list[str]) -> None:
    _, (contact,) = read(f'First Name,{column}\nAda,"{cell}"\n')

    assert contact.fields == fields("Ada", None, None, None, None, None, *details)
    assert contact.not_kept == not_kept


def test_what_android_says_goes_out_as_the_properties_that_others_know() -> None:
    file = (SAMPLES / "cases" / "178-android-custom.vcf").read_bytes()
    (contact,) = imported(read(file)[1])

    written = vcard.unparse([{**contact, "vcard_uid": "1"}]).decode()

    assert "X-ANDROID-CUSTOM" not in written
    assert {"NICKNAME:Jojo", "RELATED;VALUE=text;TYPE=spouse:Ann Doe", "ANNIVERSARY:2010-06-12"} <= {
        *written.split("\r\n")
    }
    assert imported(read(written)[1]) == [contact]
