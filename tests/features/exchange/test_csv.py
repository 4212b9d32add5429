import csv as standard_csv
import io
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contacts_api.contacts.fields import Email, PhoneNumber, is_number
from contacts_api.contacts.models import FIELDS
from contacts_api.features.exchange import csv_file as csv
from contacts_api.features.exchange import files
from contacts_api.features.exchange.files import (
    CutOff,
    EmptyFile,
    NotText,
    TooManyLines,
    UnknownColumns,
    UnknownFormat,
    UnusableFile,
    sniff,
)
from contacts_api.features.exchange.reader import BadRow, ImportedContact
from contacts_api.text import Name, Note
from tests.features.exchange.contacts import (
    CHARACTERS,
    CONTACTS,
    SAMPLES,
    allowed,
    fields,
    imported,
    peak_memory,
    pieces,
    read,
    read_csv,
    repeated,
    without_later_fields,
)

GRACE = fields("Grace", "Hopper", "grace@example.com", "+1 (202) 555-0143", date(1906, 12, 9), "Found the first bug.")
HEADER = b"first_name,last_name,email,phone_number,date_of_birth,additional_info\r\n"


PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck))
THOROUGH = settings(PATIENT, max_examples=500)
SIGNS = tuple("=+-@＝＋－＠")
# Characters that decide where apostrophes are added: separators, quotes, white space, apostrophes and signs.
ALPHABET = ";\"'=+-@,\t\n\r x＝"
HOSTILE = st.text(ALPHABET, max_size=12)
HOSTILE_NAMES = allowed(st.text(ALPHABET.replace("\t\n\r", ""), min_size=1, max_size=12).map(str.strip), Name)
HOSTILE_CONTACTS = st.builds(
    fields,
    HOSTILE_NAMES,
    st.none() | HOSTILE_NAMES,
    st.none() | allowed(st.text("'=+-x", min_size=1, max_size=8).map("{}@example.com".format), Email),
    st.none() | allowed(st.text(";+-, 12", min_size=3, max_size=12).map(str.strip), PhoneNumber),
    st.none() | st.just(date(1906, 12, 9)),
    st.none() | allowed(HOSTILE, Note),
)
HOSTILE_ROWS = st.fixed_dictionaries({name: st.none() | HOSTILE for name in FIELDS})


def parse(data: bytes | str) -> list[ImportedContact | BadRow]:
    return read_csv([data.encode() if isinstance(data, str) else data])


def cells_of(record: bytes) -> dict[str, str]:
    """Return the cells of a written record by column name."""
    (cells,) = standard_csv.reader(io.StringIO(record.decode(), newline=""), strict=True)
    return dict(zip(FIELDS, cells, strict=True))


def errors(data: bytes | str) -> list[tuple[int, str | None, str]]:
    return [(row.row, row.field, row.code) for row in parse(data) if isinstance(row, BadRow)]


@PATIENT
@given(st.lists(CONTACTS, max_size=3), st.integers(1, 200))
def test_what_is_exported_imports_as_it_was(rows: list[dict[str, Any]], size: int) -> None:
    file = csv.HEAD + csv.unparse(rows)

    contacts = read_csv(pieces(file, size))

    assert imported(contacts) == rows
    assert [contact.row for contact in contacts] == list(range(2, len(rows) + 2))
    assert not [contact for contact in contacts if isinstance(contact, BadRow) or contact.warnings or contact.not_kept]


@PATIENT
@example(fields("0", additional_info="\n"), ",", "\r", False)
@given(CONTACTS, st.sampled_from(",;\t"), st.sampled_from(["\r\n", "\n", "\r"]), st.booleans())
def test_every_delimiter_and_end_of_line_is_read(
    contact: dict[str, Any], delimiter: str, end: str, has_bom: bool
) -> None:
    exported = io.StringIO((csv.HEAD + csv.unparse([contact])).decode("utf-8-sig"), newline="")
    file = io.StringIO(newline="")
    # QUOTE_ALL, because otherwise the writer quotes a line feed only if it is part of the line terminator.
    writer = standard_csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=standard_csv.QUOTE_ALL)
    writer.writerows(standard_csv.reader(exported))

    contacts = imported(read_csv([file.getvalue().encode("utf-8-sig" if has_bom else "utf-8")]))

    assert contacts == [contact]


@PATIENT
@given(CONTACTS)
def test_no_cell_begins_as_a_formula_does(contact: dict[str, Any]) -> None:
    (cells,) = standard_csv.reader(io.StringIO(csv.unparse([contact]).decode(), newline=""))

    runs = [cell for cell in cells if cell.lstrip()[:1] in SIGNS or cell[:1] in tuple("\t\r\n")]
    assert not [cell for cell in runs if not is_number(cell)]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1 202 555 0143", "+1 202 555 0143"),
        ("=1 202 555 0143", "'=1 202 555 0143"),
        ("+1 202 555 0143A", "'+1 202 555 0143A"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        (" =1", "' =1"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("''", "'''"),
        ("", "'"),
        ("'t Hooft", "'t Hooft"),
        ("1+1", "1+1"),
    ],
)
def test_a_cell_that_would_run_has_an_apostrophe_before_it(text: str, cell: str) -> None:
    written = csv.unparse([fields("Ada", additional_info=text)])

    assert cells_of(written) == {**dict.fromkeys(FIELDS, ""), "first_name": "Ada", "additional_info": cell}
    assert imported(read_csv([csv.HEAD, written]))[0]["additional_info"] == text


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("x;=1", "x;'=1"),
        ("x;+1", "x;'+1"),
        ("x;-1", "x;'-1"),
        ("x;@SUM(A1)", "x;'@SUM(A1)"),
        ("x;＝1", "x;'＝1"),
        ("x;; =1", "x;; '=1"),
        ("x;'=1", "x;''=1"),
        ("x;''=1;'=1", "x;'''=1;''=1"),
        ('x;"=1+1;"', 'x;"\'=1+1;"'),
        ('x;" "\'=1', "x;\" \"''=1"),
        ("x\t=1", "x\t'=1"),
        ("x\n=1", "x\n'=1"),
        ("x\n\n =1", "x\n\n '=1"),
        ("\t=1", "'\t'=1"),
        (" \n=1", "' \n'=1"),
        ("'\n=1", "''\n'=1"),
        ("=1;=1", "'=1;'=1"),
        ("x; 'tis", "x; 'tis"),
        ("x;1=1", "x;1=1"),
        ("x =1", "x =1"),
    ],
)
def test_a_sign_that_a_split_would_lay_bare_has_an_apostrophe_before_it(text: str, cell: str) -> None:
    written = csv.unparse([fields("Ada", additional_info=text)])

    assert cells_of(written)["additional_info"] == cell
    assert imported(read_csv([csv.HEAD, written]))[0]["additional_info"] == text


@THOROUGH
@given(HOSTILE_ROWS)
def test_every_text_is_read_from_its_cell_as_it_was(texts: dict[str, str | None]) -> None:
    cells = cells_of(csv.unparse([texts]))

    assert {name: csv.unguarded(cell) if cell else None for name, cell in cells.items()} == texts


@THOROUGH
@given(HOSTILE_CONTACTS)
def test_a_hostile_contact_imports_as_it_was(contact: dict[str, Any]) -> None:
    assert imported(read_csv([csv.HEAD, csv.unparse([contact])])) == [contact]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@THOROUGH
@example([fields('x;"=1+1;"')])
@given(st.lists(HOSTILE_ROWS, min_size=1, max_size=3))
def test_no_separator_makes_a_cell_run(delimiter: str, rows: list[dict[str, Any]]) -> None:
    file = io.StringIO(csv.unparse(rows).decode(), newline="")

    cells = [cell for record in standard_csv.reader(file, delimiter=delimiter) for cell in record]

    assert not [cell for cell in cells if cell.lstrip()[:1] in SIGNS]


@pytest.mark.parametrize("delimiter", [";", "\t"])
@THOROUGH
@example(fields('x;"=1+1;"'))
@given(HOSTILE_ROWS)
def test_no_split_that_knows_nothing_of_quotes_makes_a_cell_run(delimiter: str, row: dict[str, Any]) -> None:
    lines = re.split("[\r\n]", csv.unparse([row]).decode())

    # Leave out the first piece: it begins with the record, where all readers agree on the quotes.
    pieces = [piece for line in lines for piece in line.split(delimiter)][1:]

    assert not [piece for piece in pieces if re.sub(r'^[\s"]+', "", piece)[:1] in SIGNS]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("'=1", "=1"),
        ("''=1", "'=1"),
        ("' =1", " =1"),
        ("'\t=1", "\t=1"),
        ("'\n =1", "\n =1"),
        ("'=1;=1", "=1;=1"),
        ("'", ""),
        ("x;=1", "x;=1"),
        ('x;"=1', 'x;"=1'),
        ("Likes:\n- tea\n- cake", "Likes:\n- tea\n- cake"),
    ],
)
def test_an_export_with_apostrophes_only_at_the_start_of_a_cell_reads_as_it_did(cell: str, text: str) -> None:
    assert csv.unguarded(cell) == text


@pytest.mark.parametrize("unit", ["\n", ";", "\t ", '\n"', ";'", " ", "'"])
def test_the_time_that_a_cell_takes_grows_as_its_length_does(unit: str) -> None:
    text = ";" + unit * (60_000 // len(unit)) + "x"
    begin = time.process_time()

    assert csv.unguarded(csv.guarded(text)) == text
    assert time.process_time() - begin < 1


def test_an_apostrophe_before_a_sign_is_a_guard_in_anybodys_file() -> None:
    (contact,) = imported(read_csv([b"First Name,Last Name,Phone\n'=x,'t Hooft,'+380441234567\n"]))

    assert (contact["first_name"], contact["last_name"]) == ("=x", "'t Hooft")
    assert contact["phone_number"] == "+380441234567"


def sample(name: str) -> list[dict[str, Any]]:
    return without_later_fields(imported(read((SAMPLES / name).read_bytes())[1]))


def test_google_contacts() -> None:
    assert sample("google.csv") == without_later_fields(
        [
            fields(
                "Grace Brewster",
                "Hopper",
                "hopper@example.org",
                "+1 202 555 0143",
                date(1906, 12, 9),
                "Found the first bug.\nIn a relay.",
                ("email", "home", "grace@example.com"),
                ("phone", "mobile", "+1 202 555 0144"),
                labels=["myContacts"],
            ),
            fields(
                "Łukasz",
                "Żółć",
                None,
                None,
                None,
                None,
                ("nickname", None, "Łuki"),
                birthday="04-12",
                labels=["myContacts"],
            ),
            fields(
                "Analytical Engines Ltd",
                None,
                "office@example.com",
                "+44 20 7946 0018",
                None,
                None,
                ("organization", None, "Analytical Engines Ltd"),
                ("email", "work", "sales@example.com"),
                labels=["myContacts"],
            ),
        ]
    )


def test_google_contacts_of_2014() -> None:
    assert sample("google-2014.csv") == without_later_fields(
        [
            fields(
                "Тарас Григорович",
                "Шевченко",
                "taras@example.com",
                "+380 44 123-45-67",
                date(1914, 3, 9),
                None,
                ("email", "other", "kobzar@example.com"),
                labels=["My Contacts", "Poets"],
            ),
            fields("Front desk", None, None, "112", None, None, labels=["My Contacts"]),
        ]
    )


def test_outlook() -> None:
    assert sample("outlook.csv") == without_later_fields(
        [
            fields(
                "Grace",
                "Hopper",
                "grace@example.com",
                "(202) 555-0143",
                date(1906, 12, 9),
                'Found "the" first bug.',
                ("email", None, "hopper@example.org"),
                ("phone", "home", "(202) 555-0140"),
                ("phone", "work fax", "(202) 555-0199"),
            ),
            fields("Ada", "Lovelace", "ada@example.com", "(020) 7946 0018", None, None),
            fields("Charles", "Babbage", "charles@example.com", None, None, None),
        ]
    )


def test_outlook_for_windows() -> None:
    assert sample("outlook-classic.csv") == without_later_fields(
        [
            fields(
                "Jürgen",
                "Müller",
                "juergen@example.com",
                "+49 30 1234567",
                date(1966, 12, 9),
                None,
                ("organization", None, "Müller GmbH"),
                ("phone", "work fax", "+49 30 1234568"),
                ("address", "work", "Hauptstraße 1"),
            ),
            fields("Stadtwerke", None, None, "+49 30 7654321", None, None, ("organization", None, "Stadtwerke")),
        ]
    )


@pytest.mark.parametrize(
    ("written", "born"),
    [
        ("1906-12-09", date(1906, 12, 9)),
        ("19061209", date(1906, 12, 9)),
        ("1906/12/09", date(1906, 12, 9)),
        ("1906-12-09T00:00:00.000Z", date(1906, 12, 9)),
        ("12/9/1906", date(1906, 12, 9)),
        ("12/9/1906 12:00:00 AM", date(1906, 12, 9)),
        ("9.12.1906", date(1906, 12, 9)),
        ("09-12-1906", date(1906, 12, 9)),
        ("0/0/00", None),
        (" ", None),
    ],
)
def test_dates_are_read_in_the_forms_that_exports_have(written: str, born: date | None) -> None:
    (contact,) = imported(read(f"First Name,Birthday\nGrace,{written}\n")[1])

    assert contact["date_of_birth"] == born


@pytest.mark.parametrize("written", ["--04-12", "--0412", "1604-04-12", "1900-04-12", "4/12/1604", "4/12", "12. April"])
def test_a_birthday_without_a_year_is_one(written: str) -> None:
    file = f"First Name,Birthday,Notes\nGrace,{written},Hello\n"

    assert imported(read(file)[1]) == [fields("Grace", None, None, None, None, "Hello", birthday="04-12")]


@pytest.mark.parametrize(
    ("year", "expected"),
    [("1906", fields("Grace", date_of_birth=date(1906, 12, 9))), ("", fields("Grace", birthday="12-09"))],
)
def test_a_birth_day_beside_a_birth_month_is_a_day_of_it(year: str, expected: dict[str, Any]) -> None:
    file = f"First Name,Birth Year,Birth Month,Birth Day\nGrace,{year},12,9\n"

    assert imported(read(file)[1]) == [expected]


def test_a_name_for_a_birthday_and_an_anniversary_is_an_anniversary_beside_a_birthday() -> None:
    both = "Nombre,Aniversario,Cumpleaños\nGrace,7/6/1930,9/12/1906\n"
    one = "Nome,Aniversário\nGrace,9/12/1906\n"
    born = date(1906, 12, 9)
    wed = ("date", "anniversary", "1930-06-07")

    assert imported(read(both)[1]) == [fields("Grace", None, None, None, born, None, wed)]
    assert imported(read(one)[1]) == [fields("Grace", date_of_birth=born)]


def test_one_date_shows_the_order_of_all() -> None:
    file = "First Name,Birthday\nAda,3/4/1990\n" + "Ann,1/2/1990\n" * 5000 + "Grace,25/12/1990\n"

    report, rows = read(file)

    born = [contact["date_of_birth"] for contact in imported(rows)]
    assert (report.date_order, report.warnings) == ("dmy", [])
    assert (born[0], born[1], born[-1]) == (date(1990, 4, 3), date(1990, 2, 1), date(1990, 12, 25))


@pytest.mark.parametrize(
    ("header", "written", "order"),
    [
        ("First Name,Birthday", "3/4/1990", "mdy"),
        ("First Name,Birthday", "3.4.1990", "dmy"),
        ("First Name,Birthday", "3-4-1990", "dmy"),
        ("Vorname,Geburtstag", "3/4/1990", "dmy"),
        ("Prénom,Date de naissance", "3/4/1990", "dmy"),
        ("First Name,Birthday", "3/3/1990", None),
        ("First Name,Birthday", "1990-04-03", None),
    ],
)
def test_where_no_date_shows_the_order_the_language_does_and_a_warning_says_so(
    header: str, written: str, order: str | None
) -> None:
    report, _ = read(f"{header}\nAda,{written}\n")

    assert report.date_order == order
    assert [(each.row, each.line, each.code) for each in report.warnings] == [(2, 2, "ambiguous_date")] * bool(order)


@pytest.mark.parametrize(("order", "born"), [("dmy", date(1990, 4, 3)), ("mdy", date(1990, 3, 4))])
def test_who_says_the_order_of_dates_is_believed(order: Any, born: date) -> None:
    report, rows = read("Vorname,Geburtstag\nAda,3.4.1990\nGrace,25.12.1990\n", date_order=order)

    assert [contact["date_of_birth"] for contact in imported(rows)] == [born, date(1990, 12, 25)]
    assert (report.date_order, report.warnings) == (order, [])


@pytest.mark.parametrize(
    ("header", "row", "first_name", "last_name"),
    [
        ("First Name,Middle Name,Last Name", "Grace,Brewster,Hopper", "Grace Brewster", "Hopper"),
        ("First Name,Middle Name,Last Name", f"{'G' * 95},Brewster,Hopper", "G" * 95, "Hopper"),
        ("First Name,Last Name,Nickname", ",Hopper,Amazing Grace", "Amazing Grace", "Hopper"),
        ("First Name,Last Name,Company", ",Hopper,Navy", "Hopper", None),
        ("Name,Company", "Grace Hopper,Navy", "Grace Hopper", None),
        ("Name,Company", ",Navy", "Navy", None),
        ("Email,Phone", "grace@example.com,112", "grace@example.com", None),
        ("Email,Phone", ",112", "112", None),
        ("Name", "N" * 120, "N" * 100, None),
    ],
)
def test_a_contact_goes_by_the_best_name_it_has(header: str, row: str, first_name: str, last_name: str | None) -> None:
    (contact,) = imported(read_csv([f"{header}\n{row}\n".encode()]))

    assert (contact["first_name"], contact["last_name"]) == (first_name, last_name)


def test_a_row_with_no_name_at_all_is_an_error() -> None:
    assert errors("first_name,additional_info\n,Somebody\n") == [(2, "first_name", "missing")]


def test_what_a_field_refuses_is_kept_in_details_and_a_warning_says_so() -> None:
    rows = parse(HEADER + b"Grace,Hopper,,,,\r\n" + b"Ada,,nobody,1,1815-12-10,x\r\n\r\n" + b"C,D,a@b.io,\x00,,\r\n")

    assert [row.row for row in rows] == [2, 3, 5]
    assert imported(rows)[1] == fields(
        "Ada",
        None,
        None,
        None,
        None,
        "x",
        ("other", "email", "nobody"),
        ("other", "phone_number", "1"),
        ("other", "date_of_birth", "1815-12-10"),
    )
    (_, ada, _) = (row.warnings for row in rows if isinstance(row, ImportedContact))
    assert [(warning.field, warning.code) for warning in ada] == [
        ("email", "moved_to_details"),
        ("phone_number", "moved_to_details"),
        ("date_of_birth", "moved_to_details"),
    ]


def test_no_error_and_no_warning_repeats_a_value() -> None:
    file = HEADER + b"Ada,,secret,secret,2026-02-30 secret,secret\x01\r\n,,,,,secret\r\n"

    ada, nobody = parse(file)

    assert isinstance(ada, ImportedContact)
    assert len(ada.warnings) == 3
    assert "secret" not in repr((ada.warnings, nobody))


def test_the_last_possible_date_of_birth_is_given() -> None:
    file = HEADER + b"Ada,,,,2026-11-24,\r\n"

    assert imported(read_csv([file]))[0]["date_of_birth"] is None
    assert imported(read_csv([file], date(2026, 11, 24)))[0]["date_of_birth"] == date(2026, 11, 24)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (b"Ada,Lovelace,,,,,more\n", []),
        (b"Ada,Lovelace,,,,,,\n", []),
        (b"Ada,Lovelace\n", []),
        (b'"Ada" x,Lovelace,,,,\n', []),
        (b'"Ada" x,Lovelace\n', [(2, None, "csv_syntax")]),
        (b'Ada,"Love\nlace" x,,,,\n', [(2, None, "csv_syntax")]),
        (b'Ada "the first",Lovelace,,,,\n', []),
        (b",,,,,\n", []),
        (b"Ada,Lovelace,,,,", []),
    ],
)
def test_rows_of_another_shape(row: bytes, found: list[tuple[int, str | None, str]]) -> None:
    assert errors(HEADER + row) == found


@pytest.mark.parametrize("end", [b'Hedy,Lamarr,"z"\n', b"Hedy,Lamarr,z\n"])
@pytest.mark.parametrize("others", [1, 10_000])
def test_a_quote_without_an_end_costs_no_row(others: int, end: bytes) -> None:
    file = b'First Name,Last Name,Notes\nAda,"Lovelace,x\n' + b"Grace,Hopper,y\n" * others + end

    rows = read_csv([file])

    people = [(each.row, each.line, each.fields["last_name"]) for each in rows if isinstance(each, ImportedContact)]
    warned = [(row.row, warning.code) for row in rows if isinstance(row, ImportedContact) for warning in row.warnings]
    assert people[:2] == [(2, 2, '"Lovelace'), (3, 3, "Hopper")]
    assert len(people) == len(rows) == others + 2
    assert warned == [(2, "csv_syntax")]


def test_rows_are_not_made_one_where_the_first_of_them_is_whole() -> None:
    rows = read_csv([b'First Name,Last Name,Notes\nAda,"Lovelace,x\nGrace,Hopper\nHedy,"Lamarr",z\nAlan,Turing,\n'])

    assert [row.row if isinstance(row, BadRow) else row.fields["last_name"] for row in rows] == [2, "Turing"]


def test_a_row_that_is_passed_over_is_named_by_its_lines() -> None:
    (bad, ada) = read_csv([HEADER + b'Ada,"Love\nlace" x,,,,\nAda,Lovelace,,,,\n'])

    assert isinstance(bad, BadRow)
    assert bad.detail.endswith("The lines 2 to 3 are passed over.")
    assert isinstance(ada, ImportedContact)
    assert (ada.row, ada.line) == (3, 4)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (b"Grace,Hopper\nAda,Lovelace\n", UnknownColumns),
        (b"colour,shape\nred,round\n", UnknownColumns),
        (b"email,shape\nada@example.com,round\n", UnknownColumns),
        (b"additional_info\nx\n", UnknownFormat),
        (b"\n \n", UnknownFormat),
        (b"a," * 40_000 + b"first_name\n", UnknownFormat),
        (b"\x89PNG\r\n\x1a\n\x00\x00", NotText),
        (b"PK\x03\x04\x14\x00\x00\x00\x08\x00first_name", UnknownFormat),
        (HEADER + b"J\xfcrgen,,,,,\n", NotText),
        (HEADER + b'Ada,,,,,"a note', CutOff),
        (HEADER + b'Ada,,,,,"a note\n', CutOff),
        (HEADER + b"Ada,Love", CutOff),
        (HEADER + b"Ada,Lovelace,,,,x\xc5", NotText),
    ],
)
def test_a_file_that_cannot_be_read_says_why(file: bytes, error: type[UnusableFile]) -> None:
    with pytest.raises(error) as raised:
        parse(file)

    assert raised.value.code == error.code
    assert raised.value.detail.endswith(".")


@pytest.mark.parametrize("file", [[], [b""], [b"", b" \r\n"], [b"\xef\xbb\xbf"], [b" " * 1000] * 1000])
def test_an_empty_file_has_no_format(file: list[bytes]) -> None:
    with pytest.raises(EmptyFile):
        sniff(file)


def test_a_csv_file_is_recognised_and_none_of_it_is_lost() -> None:
    found, chunks = sniff(pieces(csv.HEAD + csv.unparse([GRACE]), 1))

    assert found == "csv"
    assert imported(read_csv(chunks)) == [GRACE]


@pytest.mark.parametrize(
    ("begin", "middle", "size", "end"),
    [
        (HEADER, b"x", 2**23, b"\nAda,Lovelace,,,,\n"),
        (HEADER, b",", 2**23, b"\nAda,Lovelace,,,,\n"),
        (HEADER + b'"', b"x" * 75 + b"\n", 2**23, b'"\nAda,Lovelace,,,,\n'),
        (HEADER + b'"', b'""', 2**23, b'"\nAda,Lovelace,,,,\n'),
        (HEADER + b'"', b'""\n,', 2**21, b'"\nAda,Lovelace,,,,\n'),
    ],
    ids=["line", "columns", "cell", "quotes", "lines"],
)
def test_a_row_without_end_costs_no_memory_and_no_other_row(begin: bytes, middle: bytes, size: int, end: bytes) -> None:
    def file() -> Iterator[bytes]:
        yield begin
        yield from repeated(middle, size)
        yield end

    rows: list[ImportedContact | BadRow] = []

    assert peak_memory(lambda: rows.extend(read_csv(file()))) < 3 * 2**20
    assert [(type(row), row.row) for row in rows] == [(BadRow, 2), (ImportedContact, 3)]
    detail = "A contact may take at most 65,536 bytes."
    assert rows[0] == BadRow(2, 2, "record_too_large", detail)


def test_a_file_of_empty_lines_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINES", 1000)

    with pytest.raises(TooManyLines):
        parse(HEADER + b"\n" * 1000)


CELLS = st.text(CHARACTERS | st.sampled_from('",;\t\r\n'), max_size=8)


@given(st.lists(CELLS, max_size=12), st.sampled_from([HEADER, b"Name;Phone\n", b"", b"E-mail Address\tNotes\r"]))
def test_no_text_brings_the_parser_down(cells: list[str], header: bytes) -> None:
    with suppress(UnusableFile):
        parse(header + ",".join(cells).encode())


@given(st.binary(max_size=60))
def test_no_bytes_bring_the_parser_down(file: bytes) -> None:
    with suppress(UnusableFile):
        parse(HEADER + file)


def test_the_line_that_names_the_separator_is_passed_over() -> None:
    (row,) = parse("sep=;\r\nfirst_name;last_name\r\nGrace;Hopper\r\n")

    assert (row.row, isinstance(row, ImportedContact) and row.line) == (2, 3)


def test_what_stands_in_a_column_without_a_name_is_kept() -> None:
    (row,) = parse("First Name,,2024,Email\nGrace,x,y,grace@example.com\n")

    assert isinstance(row, ImportedContact)
    assert [tuple(detail.values()) for detail in row.fields["details"]] == [
        ("other", "column 2", "x"),
        ("other", "2024", "y"),
    ]
    assert [warning.field for warning in row.warnings] == ["column 2", "2024"]


@pytest.mark.parametrize(
    ("length", "not_kept", "said_of_email"), [(900, [], ["moved_to_details"]), (930, ["Email"], [])]
)
def test_a_warning_says_that_a_value_is_kept_only_where_there_was_room(
    length: int, not_kept: list[str], said_of_email: list[str]
) -> None:
    columns = ",".join(f"Quux B-{n:02}" for n in range(69))

    (row,) = parse(f"First Name,{columns},Email\nGrace,{','.join(['x' * length] * 70)}\n")

    assert isinstance(row, ImportedContact)
    assert row.not_kept == not_kept
    assert [warning.code for warning in row.warnings if warning.field == "email"] == said_of_email
