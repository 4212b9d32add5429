"""What runs: a PostgreSQL of the benchmark's own, servers on one core, and wrk on another."""

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
    """Why there is no result, in one line."""


def divide_cores() -> int:
    """Keep this process, and with it PostgreSQL and wrk, to one core; return the other, for the servers."""
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
    # Registered before PostgreSQL's own exit, so that it runs after it.
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def newest_postgres() -> Path | None:
    """Return the programs of the newest PostgreSQL that Debian has installed, if any."""
    found = Path("/usr/lib/postgresql").glob("*/bin")
    return max(found, key=lambda programs: int(programs.parent.name), default=None)


def start_postgres(programs: Path | None, directory: Path) -> str:
    """Start a PostgreSQL with the project's schema; return its URL. Without `programs`, the embedded one."""
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
    """Return the process of PostgreSQL whose children are its backends."""
    with closing(psycopg2.connect(url)) as connection:
        return psutil.Process(psutil.Process(connection.info.backend_pid).ppid())


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and its children, of those that have ended as well."""
    used = 0.0
    for each in (process, *process.children(recursive=True)):
        # One that ends meanwhile counts among the children of its parent, the next time.
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return float(used)


def stolen_since(before: Any) -> float:
    """Return the share of the CPU time asked for since `before` that the host gave to other machines."""
    now = psutil.cpu_times()
    spent: dict[str, float] = {name: getattr(now, name) - getattr(before, name) for name in now._fields}
    return spent["steal"] / sum(spent[name] for name in ("user", "nice", "system", "irq", "softirq", "steal"))


@dataclass(frozen=True)
class Load:
    """What wrk saw, and what it cost the server and PostgreSQL. Times in ms, CPU in µs a request."""

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
    """A server on a core of its own, for the time of a with block."""

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
        """Return as soon as there is an answer; any answer but an error of the server will do."""
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
        """Return the end of what the server has written."""
        return self._log.read_text()[-2000:]

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process)

    def cpu_of_threads(self) -> float:
        """Return the CPU time, in seconds, of all threads but that of the event loop: of those that hash."""
        threads = self._process.threads()
        return sum(each.user_time + each.system_time for each in threads if each.id != self._process.pid)

    def mebibytes(self) -> float:
        processes = [self._process, *self._process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes) / 2**20

    def load(self, requests: Path, seconds: int, connections: int, postgres: psutil.Process | None = None) -> Load:
        """Have wrk send the requests of a file in turn. Raises BenchmarkError unless every answer is a success."""
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
        # By itself, wrk counts what takes two seconds as failed. Sign-ins do where reads fill the core.
        load = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(HERE / "load.lua"))
        command = ["wrk", *load, self.url, "--", str(requests)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


def read_wrk(process: subprocess.Popen[str], name: str) -> dict[str, float]:
    """Wait for wrk to end, and return what it saw."""
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
