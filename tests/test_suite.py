"""Tests of the test suite: a busy machine does not fail it, and a killed run leaves nothing behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent

# Each test starts a process and, if its worker has none, a database. It writes down the ids of both and its own id, and
# then sleeps.
TESTS = """
import os, subprocess, sys, time
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_that_lasts(database_url, tmp_path, n):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    server = (tmp_path.parent / "data0" / "postgres" / "postmaster.pid").read_text().split()[0]
    (tmp_path / "noted").write_text(f"{os.getpid()} {child.pid} {server}")
    (tmp_path / "noted").rename(tmp_path / "pids")
    time.sleep(600)
"""


@settings(max_examples=1)
@given(nothing=st.none())
def test_an_example_may_take_longer_than_hypothesis_allows(nothing: None) -> None:
    time.sleep(0.3)


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the pytest run that is killed. (The path of `tmp_path` is too long for a socket.)"""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def run_pytest(tmp_path: Path, directory: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Start pytest with this number of workers. Processes that still run after the test are killed."""
    (tmp_path / "test_that_lasts.py").write_text(TESTS)
    processes = []

    def run(workers: int) -> subprocess.Popen[bytes]:
        options: list[str | Path] = [
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "--basetemp",
            directory,
            "-n",
            str(workers),
        ]
        where: list[str | Path] = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, tmp_path / "test_that_lasts.py"]
        # The inner run must not empty the database that these tests use.
        environment = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *where], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def noted_pids(directory: Path) -> list[list[int]]:
    """Return the process ids that each test wrote down."""
    return [[int(pid) for pid in path.read_text().split()] for path in directory.glob("**/pids")]


def test_a_killed_pytest_leaves_nothing_behind(
    run_pytest: Callable[[int], subprocess.Popen[bytes]], directory: Path
) -> None:
    process = run_pytest(0)
    wait_until(lambda: len(noted_pids(directory)) == 1)
    (pids,) = noted_pids(directory)

    process.kill()

    wait_until(lambda: not any(map(lives, pids)))
    wait_until(lambda: not directory.exists())


def test_killed_workers_leave_nothing_behind(
    run_pytest: Callable[[int], subprocess.Popen[bytes]], directory: Path
) -> None:
    process = run_pytest(2)
    wait_until(lambda: len(noted_pids(directory)) == 2)
    of_one, of_other = noted_pids(directory)

    psutil.Process(of_one[0]).kill()
    wait_until(lambda: not any(map(lives, of_one)))
    assert all(map(lives, of_other))

    process.kill()
    # The inner pytest may end as if interrupted. It then leaves its directory behind.
    wait_until(lambda: not any(map(lives, of_other)))
