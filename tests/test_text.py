import re
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

import contacts_api
from contacts_api.contacts.collation import sort_form
from contacts_api.contacts.fields import label_key
from contacts_api.contacts.models import columns_of
from contacts_api.text import (
    Form,
    check_address,
    fold,
    is_common_address,
    is_plain_address,
    normalize,
    normalize_email,
    read_address,
)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Zoë", "zoe"),
        ("Łukasz", "lukasz"),
        ("ТАРАС", "тарас"),
        ("Йосип", "иосип"),
        ("Straße STRASSE ẞ", "strasse strasse ss"),
        ("Ærø Đorđe Œuvre ılık İ", "aero dorde oeuvre ilik i"),
        ("ﬁ Ⅳ ①", "fi iv 1"),
        ("Ἀχιλλεύς ΑΧΙΛΛΕΥΣ", "αχιλλευσ αχιλλευσ"),
        ("e\u0301", "e"),
        ("李", "李"),
        ("100% a_b\\c", "100% a_b\\c"),
        ("", ""),
    ],
)
def test_folding_removes_case_and_accents_in_every_script(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_no_character_folds_to_a_field_marker() -> None:
    """search_text has one field per line, after its name in capitals. No value may contain a newline or a capital."""
    for code in range(0x20, sys.maxunicode + 1):
        assert not re.search("[\nA-Z]", fold(chr(code)))


@given(st.text(max_size=100), st.text(max_size=100))
def test_the_size_of_an_index_entry_is_bounded(first_name: str, last_name: str) -> None:
    columns = columns_of({"first_name": first_name or "x", "last_name": last_name})

    # PostgreSQL limits an entry of a B-tree index to 2,704 bytes.
    assert len(columns["sort_name"].encode(errors="surrogatepass")) <= 2000


ATOMS = "ab.Z09!#$%&'*+-/=?^_`{|}~\"@<> \\é"
LABELS = "ab.Z09-_xn@é\u0130。"
ADDRESSES = st.one_of(
    st.emails(),
    st.builds("{}@{}".format, st.text(ATOMS, max_size=8), st.text(LABELS, max_size=12)),
    st.builds("{}@{}.{}".format, st.text(ATOMS, max_size=4), st.text(LABELS, max_size=8), st.text(LABELS, max_size=4)),
    st.builds(
        "{}@{}".format,
        st.sampled_from(["a", "info", "A.b", "a" * 64, "a" * 200]),
        st.sampled_from(["b.test", "b.LOCALHOST", "xn--80ak6aa92e.com", "ab--c.com", "a." * 120 + "bc", "b.c1", "b"]),
    ),
    st.builds(
        "a@{}{}.{}".format,
        st.integers(0, 70).map("b".__mul__),
        st.sampled_from(["", ".c", "-c"]),
        st.sampled_from(["com", "test", "1", "c1", "x-"]),
    ),
    st.text(max_size=12),
)


@settings(max_examples=2000)
@given(ADDRESSES)
def test_a_plain_address_is_valid_and_already_normalized(text: str) -> None:
    if is_plain_address(text):
        assert read_address(text).normalized.lower() == text.lower()


@pytest.mark.parametrize("text", ["grace@example.com", "G.Hopper+navy@mail-1.example.CO.UK", "o'neil@a.io", "a@b.test"])
def test_everyday_addresses_are_plain(text: str) -> None:
    assert is_plain_address(text)


@pytest.mark.parametrize("text", ["zoë@example.com", "a@münchen.de", "a@xn--mnchen-3ya.de"])
def test_an_address_that_is_not_plain_gets_the_full_validation(text: str) -> None:
    assert not is_plain_address(text)
    check_address(text)


INTERNATIONAL = st.text("abzAZ09-.zoëÉßüøłИйїґЄ日本語かなカナ한글\u0301\u0130\u0149\u03c2", max_size=24)


@settings(max_examples=1000)
@given(INTERNATIONAL, INTERNATIONAL)
@example("zoë", "münchen.de")
@example("пошта", "приклад.укр")
def test_a_common_address_is_a_valid_one(local_part: str, domain: str) -> None:
    address = f"{local_part}@{domain}"
    if is_common_address(address):
        assert read_address(address)


@pytest.mark.parametrize("text", ["zoë@example.com", "jürgen@müller-söhne.de", "пошта@приклад.укр", "花子@例え.jp"])
def test_everyday_addresses_of_common_scripts_are_common(text: str) -> None:
    assert is_common_address(text)
    assert not is_plain_address(text)


@pytest.mark.parametrize("text", ["a@b", "@b.com", "a..b@c.com", "Bob <a@b.com>", "a@b.com\n", "a@-b.com"])
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(PydanticCustomError):
        check_address(text)


RUNS_OF_MARKS = ["e" + "\u0301\u0316" * 30_000, "\u0301\u0316" * 30_000, ("a" + "\u0316\u0301" * 100) * 300]


@pytest.mark.parametrize("text", RUNS_OF_MARKS)
@pytest.mark.parametrize("function", [fold, sort_form, label_key])
def test_combining_marks_take_linear_time(function: Callable[[str], str], text: str) -> None:
    assert seconds(function, text) < 20 * seconds(function, "é\u0434" * (len(text) // 2)) + 0.05


def seconds(function: Callable[[str], str], text: str) -> float:
    """Return the shortest time of three calls."""
    times = []
    for _ in range(3):
        started_at = time.perf_counter()
        function(text)
        times.append(time.perf_counter() - started_at)
    return min(times)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@given(text=st.text(st.sampled_from("aé\u0301\u0316\u0344ї한 "), max_size=60))
def test_normalizing_keeps_at_most_thirty_marks_in_a_row(form: Form, text: str) -> None:
    expected = re.sub("([\u0301\u0316\u0344]{30})[\u0301\u0316\u0344]+", r"\1", text)

    assert normalize(form, text) == unicodedata.normalize(form, expected)


def test_unicodedata_normalize_is_called_only_on_bounded_input() -> None:
    package = Path(contacts_api.__file__).parent

    counts = {
        str(path.relative_to(package)): path.read_text().count("unicodedata.normalize(")
        for path in package.rglob("*.py")
    }

    # `compose` keeps every combining mark of a password and limits its length instead.
    assert {path: n for path, n in counts.items() if n} == {"text.py": 1, "accounts/models.py": 1}


def test_an_address_with_a_long_run_of_marks_is_refused() -> None:
    with pytest.raises(PydanticCustomError):
        normalize_email("e" + "\u0301" * 31 + "@example.com")
    assert normalize_email("*" * 40 + "@example.com") == "*" * 40 + "@example.com"
