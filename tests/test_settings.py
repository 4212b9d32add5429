import re
from pathlib import Path

from contacts_api.settings import Settings

OPERATING = Path(__file__).parent.parent / "docs" / "operating.md"


def test_the_documented_settings_are_exactly_those_that_exist() -> None:
    section = OPERATING.read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]

    documented = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)

    assert sorted(documented) == sorted(name.upper() for name in Settings.model_fields)
