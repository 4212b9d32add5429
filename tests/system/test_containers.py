"""Two containers that share a DATA_DIR, each with its own processes, shared memory and network."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Container = subprocess.Popen[str]
Run = Callable[..., Container]

UNSHARED = ("unshare", "--pid", "--ipc", "--net", "--mount", "--fork", "--kill-child", "--mount-proc")

# Stores each line of its standard input and prints it once it is stored.
STORE = """
import sys
from pathlib import Path
import psycopg2
from contacts_api.database import embedded

connection = psycopg2.connect(embedded.start(Path(sys.argv[1])))
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("CREATE TABLE IF NOT EXISTS kept (line text)")
print("ready", flush=True)
for line in sys.stdin:
    cursor.execute("INSERT INTO kept VALUES (%s)", [line.strip()])
    print(line, end="", flush=True)
cursor.execute("SELECT line FROM kept ORDER BY line")
print(*(line for line, in cursor.fetchall()), flush=True)
"""


@pytest.fixture
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def run(data_dir: Path) -> Iterator[Run]:
    """Run a container that stores lines."""
    containers: list[Container] = []

    def run_container(*before: str) -> Container:
        # This needs root. CI runs as root.
        command = [*UNSHARED, *before, sys.executable, "-c", STORE, str(data_dir)]
        container = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        containers.append(container)
        return container

    yield run_container
    for container in containers:
        if container.poll() is None:
            container.communicate(timeout=60)
        for pipe in filter(None, (container.stdin, container.stdout, container.stderr)):
            pipe.close()


def read_line(container: Container) -> str:
    assert container.stdout
    return container.stdout.readline().strip() or container.communicate(timeout=60)[1]


def store(container: Container, line: str) -> str:
    assert container.stdin
    container.stdin.write(f"{line}\n")
    container.stdin.flush()
    return read_line(container)


def test_two_containers_share_one_server_and_lose_nothing(run: Run) -> None:
    first = run()
    assert read_line(first) == "ready"
    assert store(first, "1") == "1"
    second = run()
    assert read_line(second) == "ready"
    assert store(first, "2") == "2"
    assert store(second, "3") == "3"

    assert second.communicate(timeout=60)[0] == "1 2 3\n"
    assert first.communicate(timeout=60)[0] == "1 2 3\n"
    third = run()
    assert third.communicate(timeout=60)[0] == "ready\n1 2 3\n"


def test_data_of_a_killed_container_is_kept_for_the_next(run: Run) -> None:
    killed = run()
    assert read_line(killed) == "ready"
    assert store(killed, "1") == "1"
    killed.kill()

    following = run()

    assert following.communicate(timeout=60)[0] == "ready\n1\n"


def test_a_container_reports_an_unreachable_server_of_another(run: Run, data_dir: Path) -> None:
    first = run()
    assert read_line(first) == "ready"

    second = run("sh", "-c", f'mount --bind /dev/null {data_dir}/postgres/.s.PGSQL.5432 && exec "$@"', "sh")

    said = second.communicate(timeout=60)[1]
    assert "CommandError: DATA_DIR" in said
    assert "is in use by another container or machine" in said
    assert store(first, "1") == "1"
