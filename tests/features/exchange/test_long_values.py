"""Reading a value of 60 KB takes linear time, whatever it contains."""

import time

import pytest

from contacts_api.problems import Problem
from tests.features.exchange.contacts import read

COLUMNS = ["last_name", "name", "email", "phone", "birthday", "anniversary", "company", "labels", "notes", "details"]
COLUMNS += ["home street"]
PROPERTIES = ["N", "FN", "EMAIL", "TEL", "BDAY", "ANNIVERSARY", "ADR", "ORG", "NICKNAME", "CATEGORIES", "NOTE", "UID"]
PROPERTIES += ["X-OTHER", "item1.X-ABLabel"]
# Text with which the patterns for dates, numbers, addresses, names in brackets, folds and details start or repeat.
UNITS = [" ", "1 ", "1/", "12:", "T:", "(", "a", "a ", "@", "a@", "<", "=C3", "=", "\\"]
UNITS += [",", ";", "' ", " or", "\n ", "\n"]
UNITS += ["other (", "other (a): b\n", "::: ", ") :", "_$!<", "é", "\u200b"]


@pytest.mark.parametrize("unit", UNITS)
def test_the_time_that_a_long_value_takes_grows_as_its_length_does(unit: str) -> None:
    value = (unit * 60_000)[:60_000] + "x"
    quoted = f'"{value}"'
    files = [f"first_name,{name}\nAda,{quoted}\n" for name in COLUMNS]
    files += [f"first_name,{quoted}\nAda,x\n", f"{value}\n"]
    for name in PROPERTIES:
        for parameters in ("", ";ENCODING=QUOTED-PRINTABLE", f";TYPE={value[:20_000]}"):
            files.append(f"BEGIN:VCARD\nFN:Ada\n{name}{parameters}:{value}\nEND:VCARD\n")
    begin = time.process_time()

    for file in files:
        try:
            read(file)
        except Problem as problem:
            assert problem.status == 422  # noqa: PT017 (a file may be none)

    # About 50 files. With quadratic time, one file took minutes.
    assert time.process_time() - begin < 60
