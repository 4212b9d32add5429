"""The proxy of docs/nginx.conf."""

import subprocess
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[2] / "docs" / "nginx.conf"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """The configuration, with names, a certificate and logs of the test's own."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ["-subj", "/CN=localhost", "-days", "1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    text = CONFIGURATION.read_text()
    for name, here in {
        "/etc/ssl/CONTACTS.pem": str(certificate),
        "/etc/ssl/CONTACTS.key": str(key),
        "CONTACTS.EXAMPLE.COM": "localhost",
        "/var/log/nginx": str(tmp_path),
    }.items():
        assert name in text
        text = text.replace(name, here)
    path = tmp_path / "nginx.conf"
    path.write_text(f"pid {tmp_path}/pid;\n{text}")
    return path


def test_nginx_takes_the_configuration(configuration: Path) -> None:
    checked = subprocess.run(
        ["nginx", "-t", "-c", configuration, "-p", configuration.parent], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


def test_no_query_string_is_logged() -> None:
    (log_format,) = [part for part in CONFIGURATION.read_text().split(";") if "log_format" in part]

    assert not any(
        name in log_format for name in ("$request ", "$request_uri", "$args", "$query_string", "$http_referer")
    )
