"""The birthday calendar with a real client: vdirsyncer, from which khal and others read."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.client import A_CONTACT
from tests.system.test_docs_page import PASSWORD, register, running_server

CONFIG = """
[general]
status_path = "{directory}/status"

[pair birthdays]
a = "here"
b = "there"
collections = null

[storage here]
type = "filesystem"
path = "{directory}/calendar"
fileext = ".ics"

[storage there]
type = "http"
url = "{url}"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.fixture
def ada(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server) as client:
        tokens = client.post("/auth/login", json={"email": register(server), "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield client


def vdirsyncer(directory: Path, command: str) -> int:
    environment = {**os.environ, "VDIRSYNCER_CONFIG": str(directory / "config")}
    run = subprocess.run(["vdirsyncer", command], env=environment, input=b"y\n" * 3, timeout=60, capture_output=True)
    return run.returncode


def test_vdirsyncer_subscribes_syncs_changes_and_loses_access(ada: httpx.Client, tmp_path: Path) -> None:
    url = ada.post("/contacts/birthdays/feed").json()["url"]
    (tmp_path / "config").write_text(CONFIG.format(directory=tmp_path, url=url))
    (tmp_path / "calendar").mkdir()

    def birthdays() -> list[str]:
        # Ignore the UIDs, because vdirsyncer replaces those of a calendar from a URL.
        files = [path.read_text() for path in (tmp_path / "calendar").iterdir()]
        return sorted(line for file in files for line in file.splitlines() if line.startswith(("SUMMARY", "RRULE")))

    rule = "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=-1"
    zoe, grace = (
        ada.post("/contacts", json={**A_CONTACT, "first_name": name, "date_of_birth": "2000-02-29"}).json()
        for name in ("Zoë, née", "Grace")
    )
    assert vdirsyncer(tmp_path, "discover") == 0
    assert vdirsyncer(tmp_path, "sync") == 0
    first = birthdays()
    ada.delete(f"/contacts/{grace['id']}")
    ada.patch(f"/contacts/{zoe['id']}", json={"first_name": "Zoe"})
    assert vdirsyncer(tmp_path, "sync") == 0
    second = birthdays()
    ada.post("/contacts/birthdays/feed")

    assert first == [*[rule] * 2, "SUMMARY:Grace Hopper's birthday", r"SUMMARY:Zoë\, née Hopper's birthday"]
    assert second == [rule, "SUMMARY:Zoe Hopper's birthday"]
    assert vdirsyncer(tmp_path, "sync") != 0
    assert birthdays() == second
