import re
from pathlib import Path

from contacts_api.settings import Settings

OPERATING = Path(__file__).parent.parent / "docs" / "operating.md"


def test_every_setting_is_documented_and_every_documented_one_is_there() -> None:
    section = OPERATING.read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]

    documented = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)

    assert sorted(documented) == sorted(name.upper() for name in Settings.model_fields)
