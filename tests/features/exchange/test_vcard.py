from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contacts_api.features.exchange import files, vcard
from contacts_api.features.exchange.files import RECORD_BYTES, CutOff, TooManyLines, UnknownFormat, UnusableFile, sniff
from contacts_api.features.exchange.reader import BadRow, ImportedContact, NotAPerson, Reading
from tests.features.exchange.contacts import (
    CONTACTS,
    NAMES,
    SAMPLES,
    TODAY,
    fields,
    imported,
    peak_memory,
    pieces,
    read_vcards,
    repeated,
    without_later_fields,
)

GRACE = fields("Grace", "Hopper", "grace@example.com", "+1 (202) 555-0143", date(1906, 12, 9), "Found the first bug.")
UID = "070da8c4-6133-43d5-a88e-00404e913563"
UIDS = st.uuids().map(str) | NAMES.filter(lambda uid: not uid.startswith("urn:uuid:"))


def parse(data: bytes | str) -> list[ImportedContact | BadRow | NotAPerson]:
    return read_vcards([data.encode() if isinstance(data, str) else data])


def card(*properties: str, version: str = "3.0") -> str:
    return "\r\n".join(["BEGIN:VCARD", f"VERSION:{version}", *properties, "END:VCARD", ""])


def contact(*properties: str, version: str = "3.0") -> dict[str, Any]:
    (contact,) = imported(read_vcards([card(*properties, version=version).encode()]))
    return contact


def errors(data: bytes | str) -> list[tuple[int, str | None, str]]:
    return [(row.row, row.field, row.code) for row in parse(data) if isinstance(row, BadRow)]


@given(st.lists(st.tuples(UIDS, CONTACTS), min_size=1, max_size=3), st.integers(1, 200) | st.just(65536))
def test_what_is_exported_imports_as_it_was(rows: list[tuple[str, dict[str, Any]]], size: int) -> None:
    file = vcard.HEAD + vcard.unparse([{"vcard_uid": uid, **contact} for uid, contact in rows])

    contacts = read_vcards(pieces(file, size))

    assert imported(contacts) == [contact for _, contact in rows]
    assert [(each.row, each.uid) for each in contacts if isinstance(each, ImportedContact)] == [
        (n, uid) for n, (uid, _) in enumerate(rows, 1)
    ]
    assert not [each for each in contacts if isinstance(each, ImportedContact) and (each.warnings or each.not_kept)]


@given(UIDS, CONTACTS)
def test_lines_are_folded_between_characters_and_end_in_crlf(uid: str, contact: dict[str, Any]) -> None:
    *lines, rest = vcard.unparse([{"vcard_uid": uid, **contact}]).split(b"\r\n")

    assert rest == b""
    for line in lines:
        assert len(line) <= 75
        assert not {b"\r", b"\n"} & {bytes([octet]) for octet in line}
        line.decode()


@pytest.mark.parametrize("before", ["\r\n", " \r\n", "\t\r\n\r\n", "\ufeff"])
def test_a_file_may_begin_with_lines_that_are_blank(before: str) -> None:
    assert imported(read_vcards([f"{before}{card('FN:Ada')}".encode()])) == [fields("Ada")]


def test_a_card_as_it_is_written() -> None:
    written = vcard.unparse(
        [{"vcard_uid": UID, **fields("Grace", "Hopper", "g@example.com", "1,2;3", date(1906, 12, 9), "a\\b\nc")}]
    )

    assert written.decode().split("\r\n") == [
        "BEGIN:VCARD",
        "VERSION:3.0",
        "PRODID:-//Contacts API//EN",
        f"UID:{UID}",
        "N:Hopper;Grace;;;",
        "FN:Grace Hopper",
        "EMAIL;TYPE=INTERNET:g@example.com",
        "TEL;TYPE=VOICE:1\\,2\\;3",
        "BDAY:1906-12-09",
        "NOTE:a\\\\b\\nc",
        "END:VCARD",
        "",
    ]


@pytest.mark.parametrize(
    ("sample", "contacts"),
    [
        (
            "google",
            [
                fields(
                    "Grace Brewster",
                    "Hopper",
                    "hopper@example.org",
                    "+1 202-555-0143",
                    date(1906, 12, 9),
                    "Found the first bug, a moth; it was in a relay.\nIt is kept in a museum.",
                    ("email", "home", "grace@example.com"),
                    ("date", "Anniversary", "1930-01-01"),
                    ("other", "PHOTO", "https://photos.example.com/grace.jpg"),
                    ("other", "email label", "Navy"),
                    ("other", "name prefix", "Admiral"),
                    labels=["myContacts"],
                ),
                fields("Łukasz", "Żółć", birthday="04-12", labels=["myContacts"]),
            ],
        ),
        (
            "icloud",
            [
                fields(
                    "Grace",
                    "Hopper",
                    "hopper@example.org",
                    "+1 (202) 555-0143",
                    None,
                    None,
                    ("email", "home", "grace@example.com"),
                    ("phone", "home fax", "+1 (202) 555-0199"),
                    ("date", "Anniversary", "1930-06-15"),
                    ("account", "twitter", "http://social.example.com/grace"),
                    ("other", "phone_number label", "Ship"),
                    birthday="12-09",
                ),
                fields(
                    "Analytical Engines Ltd",
                    None,
                    None,
                    "020 7946 0018",
                    None,
                    None,
                    ("organization", None, "Analytical Engines Ltd"),
                    ("other", "X-ABSHOWAS", "COMPANY"),
                    birthday="06-26",
                ),
            ],
        ),
        (
            "android",
            [
                fields(
                    "Тарас",
                    "Шевченко",
                    "taras@example.com",
                    "+380 44 123-45-68",
                    date(1914, 3, 9),
                    "Поет\nі художник",
                    ("phone", "mobile", "+380441234567"),
                    ("address", "home", "Київ\nУкраїна"),
                    ("nickname", None, "Kobzar"),
                ),
                fields("112", None, None, "112", birthday="09-04"),
            ],
        ),
        (
            "outlook",
            [
                fields(
                    "Jürgen",
                    "Müller",
                    "juergen@example.com",
                    "+49 30 1234567",
                    date(1966, 12, 9),
                    "Grüße\n aus Berlin",
                    ("other", "X-MS-SIGNATURE", "YES"),
                    ("organization", None, "Müller GmbH"),
                    ("phone", "work fax", "+49 30 1234568"),
                    ("address", "work", "Hauptstraße 1\nHinterhaus\nBerlin\n10115\nDeutschland"),
                    ("other", "X-MS-OL-DEFAULT-POSTAL-ADDRESS", "2"),
                    ("account", None, "juergen"),
                )
            ],
        ),
        (
            "nextcloud",
            [
                fields(
                    "Zoë",
                    "Ångström",
                    "angstrom@example.org",
                    "+46-8-123-456 ext 12",
                    None,
                    None,
                    ("email", "home", "zoe@example.com"),
                    ("nickname", None, "Zo"),
                    birthday="02-29",
                ),
                fields("Georg", birthday="02-18"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("size", [7, 100_000])
def test_the_dialects(sample: str, contacts: list[dict[str, Any]], size: int) -> None:
    file = (SAMPLES / f"{sample}.vcf").read_bytes()

    assert without_later_fields(imported(read_vcards(pieces(file, size)))) == without_later_fields(contacts)


def test_the_uid_is_kept_in_one_form() -> None:
    cards = parse(card("FN:A", f"UID:{UID}") + card("FN:A", f"UID:urn:uuid:{UID}", version="4.0") + card("FN:A"))

    assert [each.uid for each in cards if isinstance(each, ImportedContact)] == [UID, UID, None]


@pytest.mark.parametrize(
    ("properties", "email"),
    [
        (["EMAIL:a@x.io", "EMAIL:b@x.io"], "a@x.io"),
        (["EMAIL:a@x.io", "EMAIL;TYPE=INTERNET,PREF:b@x.io"], "b@x.io"),
        (["EMAIL:a@x.io", "item1.EMAIL;type=pref:b@x.io"], "b@x.io"),
        (["EMAIL:a@x.io", "EMAIL;PREF;INTERNET:b@x.io"], "b@x.io"),
        (["EMAIL;PREF=20:a@x.io", "EMAIL;PREF=3:b@x.io"], "b@x.io"),
        (["EMAIL:a@x.io", 'EMAIL;TYPE="work,pref":b@x.io'], "b@x.io"),
        (["EMAIL:a@x.io", 'EMAIL;X-NOTE="a:b;c";PREF=1:b@x.io'], "b@x.io"),
        (["EMAIL:a@x.io", "EMAIL;X-PREF=1:b@x.io", "EMAIL;TYPE=preferred:c@x.io"], "a@x.io"),
        (["EMAIL:", "EMAIL:  ", "EMAIL:b@x.io"], "b@x.io"),
    ],
)
def test_the_preferred_address_is_taken(properties: list[str], email: str) -> None:
    assert contact("FN:A", *properties)["email"] == email


@pytest.mark.parametrize(
    ("properties", "number"),
    [
        (["TEL;TYPE=FAX:111", "TEL:222"], "222"),
        (["TEL;TYPE=fax,pref:111", "TEL:222"], "222"),
        (["TEL;WORK;FAX:111"], "111"),
        (["TEL;VALUE=uri:tel:+1-202-555-0143;ext=5;phone-context=example.com"], "+1-202-555-0143 ext 5"),
        (["TEL:\u202a+1\u00a0202\u2011555\u202c"], "+1 202-555"),
    ],
)
def test_the_best_number_is_taken_without_its_decoration(properties: list[str], number: str) -> None:
    assert contact("FN:A", *properties)["phone_number"] == number


@pytest.mark.parametrize(
    ("written", "born", "birthday"),
    [
        ("BDAY:1906-12-09", date(1906, 12, 9), None),
        ("BDAY:19061209", date(1906, 12, 9), None),
        ("BDAY;VALUE=date-time:1906-12-09T00:00:00Z", date(1906, 12, 9), None),
        ("BDAY:19061209T123456", date(1906, 12, 9), None),
        ("BDAY:--1209", None, "12-09"),
        ("BDAY:--12-09", None, "12-09"),
        ("BDAY:1604-12-09", None, "12-09"),
        ("BDAY:1900-12-09", None, "12-09"),
        ("BDAY;X-APPLE-OMIT-YEAR=2000:2000-12-09", None, "12-09"),
        ("X-ABDATE:1930-06-15", None, None),
        ("ANNIVERSARY:19300615", None, None),
    ],
)
def test_birthdays(written: str, born: date | None, birthday: str | None) -> None:
    found = contact("FN:A", written)

    assert (found["date_of_birth"], found["birthday"]) == (born, f"{born:%m-%d}" if born else birthday)


@pytest.mark.parametrize("written", ["--1232", "--0230", "1906", "1906-12", "circa 1800", "2026-11-24", "1899-12-31"])
def test_what_is_no_birthday_is_kept_in_details(written: str) -> None:
    (row,) = parse(card("FN:A", f"BDAY:{written}"))

    assert isinstance(row, ImportedContact)
    assert row.fields == fields("A", None, None, None, None, None, ("other", "date_of_birth", written))
    assert [(warning.field, warning.code) for warning in row.warnings] == [("date_of_birth", "moved_to_details")]


@pytest.mark.parametrize(
    ("properties", "names"),
    [
        (["N:Stevenson;John;Philip,Paul;Dr.;Jr.", "FN:Dr. John"], ("John Philip Paul", "Stevenson")),
        (["N:de la Cruz\\, y\\;z;Ana\\\\;;;", "FN:Ana"], ("Ana\\", "de la Cruz, y;z")),
        (["FN:Grace Hopper"], ("Grace Hopper", None)),
        (["N:Hopper;;;;", "FN:Hopper", "NICKNAME:Amazing"], ("Amazing", "Hopper")),
        (["N:Hopper", "FN:Rear Admiral Hopper"], ("Hopper", None)),
        (["N:;;;;", "FN:", "ORG:Navy\\, US"], ("Navy, US", None)),
        (["N:;;;;", "EMAIL:grace@example.com"], ("grace@example.com", None)),
        (["TEL:112"], ("112", None)),
    ],
)
def test_names(properties: list[str], names: tuple[str, str | None]) -> None:
    found = contact(*properties)

    assert (found["first_name"], found["last_name"]) == names


@pytest.mark.parametrize(
    ("written", "version", "note"),
    [
        ("NOTE:a\\nb\\Nc\\,d\\;e\\\\f\\x", "3.0", "a\nb\nc,d;e\\f\\x"),
        ("NOTE:C:\\new\\;x", "2.1", "C:\\new;x"),
        ("NOTE;QUOTED-PRINTABLE:a=3Db=0D=0Ac", "2.1", "a=b\nc"),
        ("NOTE;ENCODING=QUOTED-PRINTABLE:a=\r\n b=\r\nNOTE:c", "2.1", "a bNOTE:c"),
        ("NOTE;ENCODING=QUOTED-PRINTABLE;CHARSET=KOI8-R:=F4=C1=D2=C1=D3", "2.1", "Тарас"),
        ("NOTE;ENCODING=b:w4XFgsWB", "3.0", "ÅłŁ"),
        ("NOTE;CHARSET=UTF-8:Zoë", "3.0", "Zoë"),
        ("note:folded =\r\n  text\r\n\twith tabs", "3.0", "folded = textwith tabs"),
        ("NOTE:one\r\nNOTE:two", "3.0", "one\ntwo"),
        ("NOTE:", "3.0", None),
    ],
)
def test_notes(written: str, version: str, note: str | None) -> None:
    assert contact("FN:A", written, version=version)["additional_info"] == note


ONCE = [
    *("N:Doe;John;;;", "N:Doe;John", "N:Doe;;;;", "N:;John;;;", "N:Doe;John;Q;;", "N:Doe\\, Jr;John;;;", "N:  ; ;;;"),
    *("FN:John Doe", "FN:John", "FN: John Doe", "FN:Other", "FN:", "FN:  "),
    *(
        "EMAIL;TYPE=INTERNET:a@example.com",
        "EMAIL;TYPE=Boat:b@example.com",
        "EMAIL:bad",
        "EMAIL:",
        "EMAIL;INTERNET:c@d.ef",
    ),
    *(
        "TEL;TYPE=VOICE:+1 202",
        "TEL;CELL:+49 170 1",
        "TEL:tel:+1-202",
        "TEL:12345/67890",
        'TEL;X="a:b":123',
        "TEL;FAX:123",
    ),
    *(
        "TEL;ENCODING=QUOTED-PRINTABLE:=31=32=33",
        "BDAY:1985-04-12",
        "BDAY: 12.04.1985 ",
        "BDAY:1604-04-12",
        "BDAY:x",
        "BDAY:",
    ),
    *(
        "NOTE:a\\nb\\, c",
        "NOTE:",
        "NOTE:  ",
        "NOTE;X=1:a",
        "UID: abc ",
        "UID:urn:uuid:ABC",
        "UID:",
        "UID:a\x01b",
        f"UID:{300 * 'x'}",
    ),
    *("REV:2026", "ORG:Acme", "NICKNAME:J", "item1.TEL:12345", "tel:12345", "PRODID:x", "PRODID:-//Contacts API//EN"),
]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(ONCE), max_size=7), st.sampled_from(["2.1", "3.0", "4.0"]))
def test_a_card_is_read_alike_whether_it_is_looked_at_closely_or_not(properties: list[str], version: str) -> None:
    plainly = parse(card(*properties, version=version))

    # PROFILE has no effect on the contact, and is not a common property.
    assert parse(card(*properties, "PROFILE:VCARD", version=version)) == plainly


PIECES = [
    *("BEGIN:VCARD", "END:VCARD", "BEGIN:VCARD\r\nN:Doe;John\r\nEND:VCARD", "AGENT:", "N:Doe;John", "TEL:12345"),
    *("NOTE;ENCODING=QUOTED-PRINTABLE:a=", " folded", "", "broken", "PHOTO:0", "begin:vcard", f"NOTE:{'n' * 70_000}"),
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_a_card_is_read_alike_whether_it_comes_at_once_or_line_by_line(lines: list[str]) -> None:
    file = "".join(f"{line}\r\n" for line in lines).encode()

    assert outcome([file]) == outcome(file.splitlines(keepends=True))


def test_lines_between_cards_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINES", 1000)

    with pytest.raises(TooManyLines):
        read_vcards([(b"\r" * 600 + b"\n" + card("N:Doe;John").encode()) * 2])


def test_no_card_begins_in_the_middle_of_a_line() -> None:
    begun = b"BEGIN:VCARD\r\nN:Doe;John\r\nNOTE:"
    # The next card begins where a line that is too long is split into pieces.
    file = begun.ljust(2 * RECORD_BYTES, b"n") + card("N:Doe;Jane").encode()

    assert len(read_vcards([file])) == 1


def outcome(chunks: list[bytes]) -> list[ImportedContact | BadRow | NotAPerson | str]:
    """Return the rows, and the code of the error if there is one."""
    rows: list[ImportedContact | BadRow | NotAPerson | str] = []
    try:
        rows.extend(vcard.parse(chunks, Reading(TODAY)))
    except UnusableFile as error:
        rows.append(error.code)
    return rows


def test_a_character_that_was_folded_apart_is_whole_again() -> None:
    file = card("FN:Zoë").encode().replace(b"\xc3\xab", b"\xc3\r\n \xab")

    assert imported(read_vcards([file]))[0]["first_name"] == "Zoë"


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_every_end_of_line_is_read(end: str) -> None:
    assert imported(read_vcards([card("FN:A", "NOTE:b").replace("\r\n", end).encode()])) == [
        fields("A", None, None, None, None, "b")
    ]


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (card("NOTE:nobody"), [(2, "first_name", "missing")]),
        (card("FN;ENCODING=b:"), [(2, "first_name", "missing")]),
        (card("FN:A", *[f"NOTE:{'n' * 60_000}"] * 2), [(2, None, "record_too_large")]),
        ("BEGIN:VCARD\r\nFN:A\r\n", [(2, None, "unfinished_card")]),
        ("BEGIN:VCARD\r\nFN;ENCODING=QUOTED-PRINTABLE:A=\r\nEND:VCARD\r\n", []),
        ("this is between cards\r\nEND:VCARD\r\n", []),
    ],
)
def test_a_bad_card_costs_no_other(bad: str, found: list[tuple[int, str | None, str]]) -> None:
    good = card("FN:Grace").encode()

    rows = parse(good + bad.encode() + good)

    assert len(rows) >= 2
    assert errors(good + bad.encode() + good) == found
    assert [row.fields["first_name"] for row in (rows[0], rows[-1]) if isinstance(row, ImportedContact)] == [
        "Grace"
    ] * 2


def test_a_card_in_a_card_is_passed_over() -> None:
    file = card("FN:Ada", "AGENT:", "BEGIN:VCARD", "FN:Charles", "END:VCARD", "TEL:112", version="2.1")

    assert imported(read_vcards([file.encode()])) == [fields("Ada", None, None, "112", None, None)]


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (b"", UnknownFormat),
        (b"first_name\nAda\n", UnknownFormat),
        (b"BEGIN:VCARD\r\nFN:A\r\n", CutOff),
        (b"BEGIN:VCARD\r\nFN:A\r\nEND:VCARD\r\nBEGIN:VCARD\r\nFN", CutOff),
        (b"BEGIN:VCARD\r\nAGENT:\r\n" + b"BEGIN:VCARD\r\n" * 1000, CutOff),
    ],
)
def test_a_file_that_cannot_be_read_says_why(file: bytes, error: type[UnusableFile]) -> None:
    with pytest.raises(error):
        parse(file)


def test_a_vcard_file_is_recognised_whatever_is_before_it() -> None:
    found, chunks = sniff(pieces(b"\xef\xbb\xbf" + card("FN:A").replace("BEGIN", "Begin").encode(), 1))

    assert found == "vcard"
    assert len(imported(read_vcards(chunks))) == 1


@pytest.mark.parametrize(
    ("middle", "size", "is_read"),
    [
        (b"PHOTO;ENCODING=b:" + b"A" * 1000, 2**23, True),
        (b"x", 2**23, True),
        (b" " + b"x" * 75 + b"\r\n", 2**23, True),
        (b"\r\nNOTE:" + b"n" * 70, 2**23, False),
        (b"\r\nNOTE:" + b"\r\n " * 30, 2**21, False),
        (b"\r\nNOTE;ENCODING=QUOTED-PRINTABLE:" + b"=\r\n" * 30, 2**21, False),
    ],
    ids=["photo", "line", "folded", "notes", "empty folds", "soft breaks"],
)
def test_a_card_without_end_costs_no_memory_and_no_other_card(middle: bytes, size: int, is_read: bool) -> None:
    def file() -> Iterator[bytes]:
        yield b"BEGIN:VCARD\r\nFN:A\r\nX-SOMETHING:"
        yield from repeated(middle, size)
        yield b"\r\nEND:VCARD\r\n"
        yield card("FN:B").encode()

    rows: list[ImportedContact | BadRow | NotAPerson] = []

    assert peak_memory(lambda: rows.extend(read_vcards(file()))) < 3 * 2**20
    assert [isinstance(row, ImportedContact) for row in rows] == [is_read, True]


LINES = st.lists(
    st.sampled_from(
        [
            *("BEGIN:VCARD", "END:VCARD", "VERSION:2.1", "AGENT:", "N:a;b", "FN", "FN:é", " folded", "TEL;PREF=1:112"),
            *(
                'EMAIL;X="',
                'EMAIL;X="a:b":c',
                "NOTE;ENCODING=QUOTED-PRINTABLE:=",
                "=C3",
                "NOTE;ENCODING=b:=",
                "BDAY:--",
            ),
            *("ORG:", ":", ";", ".", "a.b.c:d", "N;;:", "UID:\\", "ORG:\\;\\", "NOTE;CHARSET=:a", "N:\\"),
        ]
    )
    | st.text(max_size=10),
    max_size=12,
)


@settings(max_examples=300)
@given(LINES, st.sampled_from(["\r\n", "\n"]))
def test_no_lines_bring_the_parser_down(lines: list[str], end: str) -> None:
    with suppress(UnusableFile):
        parse(end.join(["BEGIN:VCARD", *lines, "END:VCARD", ""]).encode(errors="surrogatepass"))


@given(st.binary(max_size=60))
def test_no_bytes_bring_the_parser_down(content: bytes) -> None:
    with suppress(UnusableFile):
        parse(b"BEGIN:VCARD\r\nN;" + content + b"\r\nEND:VCARD\r\n")
