"""The processes of a benchmark: its own PostgreSQL, the servers on one core, and wrk on another."""

import atexit
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import psycopg2

from contacts_api.database import embedded
from contacts_api.database.migrating import migrate

HERE = Path(__file__).parent
ROOT = HERE.parent
SECRET = "a secret of the benchmarks, and of nothing else"
PROJECT = ("-m", "contacts_api", "serve")


class BenchmarkError(Exception):
    """A benchmark has no result. The message is one line that tells why."""


def divide_cores() -> int:
    """Pin this process, and with it PostgreSQL and wrk, to one core. Return another core for the servers."""
    if not hasattr(os, "sched_setaffinity"):
        raise BenchmarkError("Pinning processes to a core needs Linux.")
    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk is missing: apt-get install wrk.")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("It takes two cores: one for the server, one for the load and PostgreSQL.")
    os.sched_setaffinity(0, {cores[1]})
    return cores[0]


def temporary_directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="contacts-bench-"))
    # Exit handlers run in reverse order. This one is registered first, so that PostgreSQL has stopped when it runs.
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def newest_postgres() -> Path | None:
    """Return the directory with the programs of the newest PostgreSQL installed by Debian, or None."""
    found = Path("/usr/lib/postgresql").glob("*/bin")
    return max(found, key=lambda programs: int(programs.parent.name), default=None)


def start_postgres(programs: Path | None, directory: Path) -> str:
    """Start PostgreSQL with the project's schema, and return its URL. Without `programs`, use the embedded one."""
    url = embedded.start(directory) if programs is None else _start_cluster(programs, directory)
    migrate(url)
    return url


def _start_cluster(programs: Path, directory: Path) -> str:
    # PostgreSQL does not run as root.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    data = directory / "cluster"
    data.mkdir(mode=0o700)
    directory.chmod(0o711)
    shutil.chown(data, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(data), *arguments]
        done = subprocess.run(command, user=user, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", text=True)
        if done.returncode:
            raise BenchmarkError(f"{program} failed: {done.stdout.strip()}")

    run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
    run("pg_ctl", "-w", "-l", str(data / "log"), "-o", f"-c listen_addresses='' -k {data}", "start")
    atexit.register(run, "pg_ctl", "-m", "immediate", "stop")
    with closing(psycopg2.connect(host=str(data), user="postgres", dbname="postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE contacts")
    return f"postgresql://postgres@/contacts?host={data}"


def postmaster(url: str) -> psutil.Process:
    """Return PostgreSQL's main process, the parent of its backends."""
    with closing(psycopg2.connect(url)) as connection:
        return psutil.Process(psutil.Process(connection.info.backend_pid).ppid())


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time in seconds of a process and its children, including children that have ended."""
    used = 0.0
    for each in (process, *process.children(recursive=True)):
        # The time of a process that ends during this loop is in `children_user` of its parent the next time.
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return float(used)


def stolen_since(before: Any) -> float:
    """Return the share of the requested CPU time since `before` that the host gave to other virtual machines."""
    now = psutil.cpu_times()
    spent: dict[str, float] = {name: getattr(now, name) - getattr(before, name) for name in now._fields}
    return spent["steal"] / sum(spent[name] for name in ("user", "nice", "system", "irq", "softirq", "steal"))


@dataclass(frozen=True)
class Load:
    """The results of wrk, and the CPU cost. `server` and `postgres` in µs per request, latencies in ms."""

    server: float
    postgres: float
    rate: float
    p50: float
    p99: float
    longest: float

    @property
    def cpu(self) -> float:
        return self.server + self.postgres


class Server:
    """A server with its own core, for the duration of a `with` block."""

    def __init__(self, name: str, arguments: Sequence[str], core: int, directory: Path, **environment: str) -> None:
        self.name = name
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = psutil.Popen(
                [sys.executable, *arguments, "--port", str(self.port)],
                env={**os.environ, "JWT_SECRET": SECRET, **environment},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._process.cpu_affinity([core])

    def __enter__(self) -> "Server":
        self.wait("/openapi.json")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except psutil.TimeoutExpired:
            self._process.kill()

    def wait(self, path: str, seconds: float = 30) -> None:
        """Wait for the first answer that is not a server error (5xx). Raises BenchmarkError after `seconds`."""
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at and self._process.is_running():
            try:
                urlopen(self.url + path, timeout=5).close()
            except URLError as error:
                if getattr(error, "code", 500) < 500:
                    return
                time.sleep(0.005)
            else:
                return
        raise BenchmarkError(f"{self.name} does not answer: {self.log()}")

    def log(self) -> str:
        """Return the last 2,000 characters of the server's output."""
        return self._log.read_text()[-2000:]

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process)

    def cpu_of_threads(self) -> float:
        """Return the CPU time in seconds of all threads except that of the event loop. These threads hash passwords."""
        threads = self._process.threads()
        return sum(each.user_time + each.system_time for each in threads if each.id != self._process.pid)

    def mebibytes(self) -> float:
        processes = [self._process, *self._process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes) / 2**20

    def load(self, requests: Path, seconds: int, connections: int, postgres: psutil.Process | None = None) -> Load:
        """Send the requests of a file in turn, by wrk. Raises BenchmarkError unless every answer is a success."""
        processes = [self._process, postgres] if postgres else [self._process]
        before = [cpu_seconds(process) for process in processes]
        with self.wrk(requests, seconds, connections) as wrk:
            seen = read_wrk(wrk, self.name)
        after = [cpu_seconds(process) for process in processes]
        used = [(b - a) / seen["requests"] * 1e6 for a, b in zip(before, after, strict=True)]
        return Load(
            used[0], sum(used[1:]), seen["requests"] / seen["seconds"], seen["p50"], seen["p99"], seen["longest"]
        )

    @contextmanager
    def wrk(self, requests: Path, seconds: int, connections: int) -> Iterator[subprocess.Popen[str]]:
        # By default, wrk counts requests of more than two seconds as failed. Sign-ins beside many reads take longer.
        load = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(HERE / "load.lua"))
        command = ["wrk", *load, self.url, "--", str(requests)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


def read_wrk(process: subprocess.Popen[str], name: str) -> dict[str, float]:
    """Wait for wrk to end, and return its results. Raises BenchmarkError if any request failed."""
    output, _ = process.communicate()
    try:
        seen: dict[str, float] = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise BenchmarkError(f"wrk failed: {output.strip()}") from None
    if seen["refused"] or seen["broken"] or not seen["requests"]:
        raise BenchmarkError(
            f"{name}: {seen['refused']} answers of {seen['requests']} were errors, {seen['broken']} failed."
        )
    return seen
