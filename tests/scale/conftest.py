"""These tests need Debian's PostgreSQL, PgBouncer, Patroni, etcd and HAProxy. See .ci/run."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that is accessible to the user who runs PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="scale-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def directory(home: Path, name: str) -> Path:
    (made := home / name).mkdir(mode=0o755)
    return made
