import sys
import unicodedata

import pytest

from contacts_api.contacts.collation import sort_form
from contacts_api.text import Form

# In the order of ICU 72 (CLDR 42) at primary strength: Cyrillic names by the `uk` locale, all others by the root
# locale.
NAMES = {
    "Ukrainian": "Андрієнко Гайдай Гнатюк Ґалаґан Ґудзь Дорошенко Еней Євтушенко Жук Зінченко Ильїн Іванко Ілленко "
    "Ївга Їжак Йовса Йосипенко Марія Мар'яна Олег Олегова Олеґ",
    "Russian": "Абрамов Ёлкин Елкина Емельянов Жуков Иванов Ижевский Исаев Йод Йорданов Киров Щукин Эйдельман Юрьев",
    "Bulgarian": "Ангелов Боев Доичев Дойчев Дончев Желев Йовков Кънчев Тодоров Цанев Щерев Ъгълов Ючормански",
    "Serbian": "Дачић Дујић Ђорђевић Ђурић Едић Еремић Јанковић Кнежевић Лазић Љубичић Николић Његош Тадић Ћирић Хаџић "
    "Чолић Џајић",
    "Belarusian": "Гарэцкі Дубоўка Ермаловіч Ігнатоўскі Колас Купала Уладзіміраў Ўласаў Чорны Шамякін",
    "Polish": "Cichy Ćwik Czarny Łapa Lato Łoś Lubański Nowak Śliwa Smolarek Szymański Żmuda Zych",
    "Czech": "Cabrnoch Čech Chalupa Dvořák Hašek Řehák Říha Rosický Šimůnek Svoboda Železný Zima",
    "German": "Maier Mayer Muehle Müller Mütze Oetker Özil Schulz Strasser Straßner",
    "Icelandic": "Ægisson Ársson Bjarnason Daðason Davíðsson Guðmundsson Jónsson Ólafsson Ýmisson Zoëga Þórðarson",
    "Turkish": "Çelik Demir İnan Irmak Isparta Öztürk Şahin Uçar Ünal Yilmaz Yılmaz",
    "Azerbaijani and Hausa": "Buba Ɓala Dzungu Ɗan Eyvazov Əliyev Feyzullayev Fərəcov Kyari Ƙofa Nwosu Ŋa",
    "Greek": "Αγγέλου Ἀθανασίου Βλάχος Ἥρων Θεοδωράκης Ιωάννου Σεφέρης Τσάτσος Ωνάσης",
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_sort_by_the_rules_of_their_language(names: str, form: Form) -> None:
    expected = [unicodedata.normalize(form, name) for name in names.split()]

    assert sorted(sorted(expected), key=sort_form) == expected
    assert sorted((name.upper() for name in sorted(expected)), key=sort_form) == [name.upper() for name in expected]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Zoë", "zoe"),
        ("O\u2019Brien", "OBrien"),
        ("Anne\u2011Marie", "anne-marie"),
        ("ЁЖ", "Еж"),
        ("Straße", "STRASSE"),
        ("ᾳ", "α"),
        ("ꜳ", "aa"),
        ("Ðorð", "dord"),
        ("Ńgũgĩ", "ngugi"),
    ],
)
def test_case_accents_and_apostrophes_do_not_affect_sorting(one: str, other: str) -> None:
    assert sort_form(one) == sort_form(other)


def test_scripts_sort_one_after_another_and_other_characters_by_code_point() -> None:
    expected = [
        "",
        " b",
        "-b",
        "1",
        "Anne Marie",
        "Anne-Marie",
        "Annea",
        "z",
        "ʒ",
        "þ",
        "Αα",
        "ϡ",
        "Аа",
        "ӏ",
        "Ա",
        "李",
    ]

    assert sorted(sorted(expected), key=lambda name: sort_form(name).encode()) == expected


def test_every_letter_sorts_within_its_script() -> None:
    scripts = {"LATIN": ("a", "α"), "GREEK": ("α", "а"), "CYRILLIC": ("а", "ѐ")}
    # The Greek numeral sign sorts like an apostrophe, and the spacing iota subscript starts with a space.
    exceptions = "\u0374\u037a"

    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        script, _, _ = unicodedata.name(letter, "").partition(" ")
        if script in scripts and unicodedata.category(letter).startswith("L") and letter not in exceptions:
            first, end = scripts[script]
            assert first <= sort_form(letter) < end, unicodedata.name(letter)
