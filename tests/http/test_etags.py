import pytest

from contacts_api.http.etags import matches_etag


@pytest.mark.parametrize(
    ("tags", "is_match"),
    [
        ('"7"', True),
        ("*", True),
        (' "6" , "7" ', True),
        ('"6"', False),
        ("7", False),
        ('W/"7"', False),
        ('"77"', False),
        ("", False),
    ],
)
def test_a_list_of_tags_matches_if_it_contains_the_version(tags: str, is_match: bool) -> None:
    assert matches_etag(tags, 7) is is_match
