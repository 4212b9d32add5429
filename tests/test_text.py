import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contacts_api.contacts.models import ContactBase, columns_of
from contacts_api.text import fold


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
def test_folding_takes_case_and_accents_away_in_every_script(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_no_character_folds_to_a_line_of_its_own() -> None:
    """search_text has a field a line: no field may bring one of its own."""
    for code in range(0x20, sys.maxunicode + 1):
        assert "\n" not in fold(chr(code))


@given(st.text(max_size=100), st.text(max_size=100))
def test_what_an_index_holds_has_a_bound(first_name: str, last_name: str) -> None:
    contact = ContactBase(first_name=first_name, last_name=last_name, email=None, phone_number=None, date_of_birth=None)

    columns = columns_of(contact)

    # PostgreSQL takes 2,704 bytes in an entry of a B-tree.
    assert len(columns["sort_name"].encode(errors="surrogatepass")) <= 2000
