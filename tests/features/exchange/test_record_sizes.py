"""Reading the largest card or row takes linear time, whatever it contains."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from contacts_api.features.exchange import vcard
from contacts_api.features.exchange.dates import NAMES
from contacts_api.features.exchange.files import RECORD_BYTES, UnusableFile
from tests.features.exchange.contacts import read_csv, read_vcards

SIZE = RECORD_BYTES - 2000
# Shorter runs are too noisy to measure growth. The maximum is the time to check as many IDN addresses as a contact may
# have.
SLOW, MAX_SECONDS = 0.05, 1.0
# The size grows by a factor of 4. Linear time then grows by 4, quadratic time by 16.
MAX_GROWTH = 9

# Combining marks of two classes, which normalization has to sort.
MARKS = "e" + "\u0301\u0316" * 30
VALUES = ["a", "a;b,c", "1;", "x@b\u00fc.de", "1985-04-12", MARKS, "\\n", "+12025550101/"]
# One property of each kind, and all properties without a kind.
PROPERTIES = sorted(
    {*{kind: name for name, (kind, _) in reversed(vcard._KINDS.items())}.values(), "ROLE", "X-ABDATE"}
    | (vcard._READ - set(vcard._KINDS) - {"BEGIN", "END"})
    | {"ORG", "PHOTO", "X-UNKNOWN", "X-messaging/skype-All"}
)
PARAMETERS = sorted(vcard._KNOWN_PARAMETERS | {"X-UNKNOWN", "X-CUSTOM(", "QUOTED-PRINTABLE,", 'X="', "^n"})
COLUMNS = [names[0] for section in ("columns", "elsewhere", "ignored") for names in NAMES[section].values()]
COLUMNS += [*NAMES["address"]["parts"][:3], "Custom", "E-mail 1 - Label", "Address 1 - Label", "details"]


def seconds(read: Callable[[], object]) -> float:
    begin = time.thread_time()
    read()
    return time.thread_time() - begin


def check(record: Callable[[str, int], bytes], unit: str, read: Callable[[list[bytes]], object]) -> None:
    """Fail if the time for a record of repeated units is too long, or grows faster than the record."""

    def time_of(size: int) -> float:
        content = record(unit, size)
        return seconds(lambda: read([content]))

    if time_of(SIZE) > SLOW:
        longest = min(time_of(SIZE) for _ in range(2))
        assert longest < MAX_SECONDS
        assert longest / min(time_of(SIZE // 4) for _ in range(3)) < MAX_GROWTH


def times(unit: str, size: int) -> str:
    return unit * (size // len(unit.encode()))


def card(*lines: str, version: str = "3.0") -> bytes:
    return "\r\n".join(["BEGIN:VCARD", f"VERSION:{version}", "N:Doe;Jo", *lines, "END:VCARD", ""]).encode()


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("value", VALUES)
def test_a_card_of_one_property_and_its_values_takes_linear_time(name: str, value: str) -> None:
    # Many lines in one group with a label, and one line with many values.
    check(lambda unit, size: card("i.X-ABLabel:Boat", times(f"i.{name}:{unit}\r\n", size)), value, read_vcards)
    check(lambda unit, size: card(f"{name}:{times(unit, size)}"), value, read_vcards)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_line_of_one_parameter_and_its_values_takes_linear_time(parameter: str) -> None:
    for written in (f";{parameter}=a", f";{parameter}", f";{parameter}=QUOTED-PRINTABLE,", f";{parameter}=1,"):
        check(lambda unit, size: card(f"TEL{times(unit, size)}:+12025550101"), written, read_vcards)
        check(lambda unit, size: card(times(f"ADR{unit}:;;1 Elm\r\n", size)), written, read_vcards)
    check(lambda unit, size: card(f"TEL;{parameter}={times(unit, size)}:+12025550101"), "a,", read_vcards)


@pytest.mark.parametrize(
    ("lines", "second"),
    [
        ('ADR;LABEL="{1}":;;{0}', "b\\n"),
        ("ADR:;;{0}\r\nLABEL:{1}", "b\\n"),
        ("FN:{0}\r\nN:;{1}", "b "),
        ("FN:{0}\r\nEMAIL:{1}", "b@example.com,"),
        ("FN:{0}\r\nNICKNAME:{1}", "b,"),
        ("CATEGORIES:{0}\r\nCATEGORIES:{1}", "b,"),
        ("i.X-ABLabel:{0}\r\ni.TEL:1\r\ni.X-FOO:{1}", "\r\ni.X-FOO:b"),
        ("NOTE:{0}\r\n{1}", "\r\nb"),
        ("NOTE;ENCODING=QUOTED-PRINTABLE:{0}=\r\n{1}", "=C3=\r\n "),
    ],
)
@pytest.mark.parametrize("first", ["a;", "aa ", "\u0301\u0316"])
def test_two_parts_of_a_card_that_are_compared_take_linear_time(first: str, second: str, lines: str) -> None:
    check(lambda unit, size: card(lines.format(times(unit, size // 2), times(second, size // 2))), first, read_vcards)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("other", ["First Name", "Address", "Street"])
def test_a_row_of_many_columns_of_one_name_takes_linear_time(name: str, other: str) -> None:
    header = f"{','.join(['First Name', *[name, other] * 200])}\n"
    for value in ("aa", "b@c.de", "1 ::: 2", "x@b\u00fc.de"):
        check(lambda unit, size: f"{header}Jo{f',{times(unit, size // 400)}' * 400}\n".encode(), value, read_csv)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_cell_of_repeated_values_takes_linear_time(name: str) -> None:
    for value in (*VALUES, "b@c.de ", "1 ::: ", "* a ::: ", "\u0301\u0316", "other (a): b ", "=", "'="):
        check(lambda unit, size: f"First Name,{name}\nJo,{times(unit, size)}\n".encode(), value, read_csv)


@pytest.mark.parametrize(
    "unit", ["\u0301\u0316", "e\u0301\u0316,", "First Name,", "home work mobile,", "ab(", '"a\n",', "a;,|\t"]
)
@pytest.mark.parametrize("lines", [1, 18])
def test_the_names_of_columns_take_linear_time(unit: str, lines: int) -> None:
    def read(chunks: list[bytes]) -> None:
        with suppress(UnusableFile):
            read_csv(chunks)

    check(lambda unit, size: f"{times(unit, size // lines)}\n".encode() * lines, unit, read)
