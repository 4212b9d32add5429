"""Files of the kinds of the cases: what each value of them becomes, for names, numbers, addresses, labels and dates."""

from datetime import date
from typing import Any

import pytest

from contacts_api.exchange import vcard
from tests.exchange.contacts import fields, imported, read

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
