"""Measures an owner with very many contacts, files, sign-ins, the start and memory."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from http.client import HTTPConnection
from itertools import chain, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from rich.console import Console
from rich.table import Table

from benchmarks import data, machine
from benchmarks.compare import MEBIBYTES
from benchmarks.machine import BenchmarkError, Server, read_wrk
from contacts_api.accounts.passwords import PasswordHasher

WATCHED = ("-m", "uvicorn", "benchmarks.watched:app", "--no-access-log", "--log-level", "warning")
MANY, FEW, OTHERS = 100_000, 100, 8_998
PAGES = 1_000
SEARCHED = ("friend99", "hopper", "555-0143", "grace hopper")
LARGE = 175_000
LIBRARIES = "asyncpg, fastapi_users, sqlmodel"
BOUNDARY = "a-boundary-of-the-benchmarks"
STARTS = 4
SIGN_IN_ROUNDS = 4
# The number of imports of each file. The fastest one counts.
IMPORTS = 3
SAMPLES = 200
HASHES = 100
# Hashes per second on a core of the machine for which the limits were set.
USUAL_HASHES = 48
PASSWORD = "correct horse battery staple"


class Rows:
    """The rows of the result. Each has its limit, as it was set and as scaled to the speed of this machine."""

    def __init__(self) -> None:
        self.table = Table("", "measured", "to reach", "here", title="Growth, sign-ins, start and memory")
        for column in self.table.columns[1:]:
            column.justify = "right"
        self.missed: list[str] = []
        self.slower = 1.0

    def begin(self, hashes: float) -> None:
        """Begin a section, on a core that can hash `hashes` passwords per second."""
        self.pace(hashes)
        self.table.add_section()
        self.add("passwords that a core can hash", hashes, None, "/s")

    def pace(self, hashes: float) -> None:
        """Relax the limits that follow if the core hashes fewer than USUAL_HASHES passwords per second."""
        self.slower = max(1.0, USUAL_HASHES / hashes)

    def add(self, what: str, value: float, limit: float | None, unit: str, *, at_least: bool = False) -> None:
        if limit is None:
            self.table.add_row(what, f"{value:,.2f} {unit}")
            return
        sign = "≥" if at_least else "≤"
        if unit.endswith("/s"):
            here = limit / self.slower
        elif unit in ("s", "ms"):
            here = limit * self.slower
        else:
            here = limit
        is_met = value >= here if at_least else value <= here
        measured, to_reach, allowed = f"{value:,.2f} {unit}", f"{sign} {limit:,g} {unit}", f"{sign} {here:,.2f} {unit}"
        self.table.add_row(what, measured, to_reach, allowed if here != limit else "", style=None if is_met else "red")
        if not is_met:
            self.missed.append(f"{what}: {measured}; {allowed}")


class Client:
    """An HTTP client with one connection, which sends one request at a time."""

    def __init__(self, server: Server, token: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise BenchmarkError(f"GET {path}: {response.status} {body.decode()}")
        return json.loads(body)

    def fetch(self, path: str, file: Path) -> tuple[float, float]:
        """Write the response to a file. Return the time in seconds until its first byte, and until its last."""
        started_at = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        with file.open("wb") as out:
            out.write(response.read(1))
            first = time.perf_counter() - started_at
            while piece := response.read1(1 << 16):
                out.write(piece)
        return first, time.perf_counter() - started_at

    def send(self, file: Path, contacts: int) -> float:
        """Import a file with `contacts` contacts. Return the time in seconds."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'.encode()
        tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        headers = self._headers | {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(len(head) + file.stat().st_size + len(tail)),
        }
        started_at = time.perf_counter()
        with file.open("rb") as content:
            pieces = chain([head], iter(partial(content.read, 1 << 16), b""), [tail])
            self._connection.request("POST", "/contacts/import", pieces, headers)
        response = self._connection.getresponse()
        report = json.loads(response.read())
        if response.status != 200 or report["created"] + report["skipped"] != contacts:
            raise BenchmarkError(f"importing {file.name}: {response.status} {report}")
        return time.perf_counter() - started_at

    def milliseconds(self, *paths: str) -> float:
        """Return the median response time in ms of SAMPLES requests that rotate over the paths."""
        times = []
        for path in islice(cycle(paths), SAMPLES):
            started_at = time.perf_counter()
            self.get(path)
            times.append((time.perf_counter() - started_at) * 1000)
        return median(times)


def run(options: argparse.Namespace, console: Console) -> list[str]:
    """Measure, print the results, and return the missed limits."""
    core = machine.divide_cores()
    directory = machine.temporary_directory()
    rows = Rows()
    console.print("Starting the application …")
    rows.begin(hash_alone(core))
    measure_start(rows, directory, core)
    console.print("Sending and fetching files …")
    rows.begin(hash_alone(core))
    measure_files(rows, machine.start_postgres(None, directory), directory, core)
    console.print(f"Filling a PostgreSQL with {MANY + OTHERS * FEW + 2 * FEW:,} contacts …")
    url = machine.start_postgres(options.postgres, directory)
    few, many = (data.fill(url, name, 1, count)[0] for name, count in (("few", FEW), ("many", MANY)))
    data.fill(url, "other", OTHERS, FEW)
    console.print("Asking for pages …")
    rows.begin(hash_alone(core))
    with Server("project", machine.PROJECT, core, directory, DATABASE_URL=url) as server:
        measure_growth(rows, server, few, many, has_trigrams(url), options.rounds)
        import_beside_a_million(rows, server, url, directory)
    console.print("Signing in …")
    measure_sign_ins(rows, url, directory, core, options)
    console.print(rows.table)
    return rows.missed


def measure_start(rows: Rows, directory: Path, core: int) -> None:
    libraries, imported, answered = [], [], []
    data_dir = directory / "embedded"
    # The first start also compiles the modules and creates the data directory.
    for _ in range(STARTS):
        libraries.append(seconds_to_import(LIBRARIES))
        imported.append(seconds_to_import("contacts_api.app"))
        started_at = time.perf_counter()
        server = Server("start", machine.PROJECT, core, directory, DATA_DIR=str(data_dir), DATABASE_URL="")
        try:
            server.wait("/health/ready")
            answered.append(time.perf_counter() - started_at)
        finally:
            server.stop()
    rows.add(f"import {LIBRARIES}", min(libraries), None, "s")
    rows.add("import contacts_api.app, the interpreter's start included", min(imported), 1.2, "s")
    rows.add("python -m contacts_api to the first answer", min(answered), 2.5, "s")


def seconds_to_import(modules: str) -> float:
    started_at = time.perf_counter()
    # Skip the shutdown of the interpreter, which would add a third to the time.
    subprocess.run([sys.executable, "-c", f"import os, {modules}; os._exit(0)"], check=True, cwd=machine.ROOT)
    return time.perf_counter() - started_at


def has_trigrams(url: str) -> bool:
    with data.cursor(url) as sql:
        sql.execute("SELECT 1 FROM pg_indexes WHERE indexname = 'ix_contact_by_trigram'")
        return sql.fetchone() is not None


def measure_growth(
    rows: Rows, server: Server, few: data.Owner, many: data.Owner, has_trigrams: bool, rounds: int
) -> None:
    growing = {
        "one contact": [[f"/contacts/{contact_id}" for contact_id in owner.contact_ids] for owner in (few, many)],
        "first page": [["/contacts"], ["/contacts"]],
        f"page {PAGES:,}": [["/contacts"], [last_page(server, many)]],
    }
    timed = {f"search for {word}": f"/contacts?q={quote(word)}" for word in SEARCHED if has_trigrams}
    timed["birthdays of a week"] = "/contacts/birthdays?days=7"
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        small, large = Client(server, few.token), Client(server, many.token)
        for what, (of_few, of_many) in growing.items():
            times[f"{what} of few"].append(small.milliseconds(*of_few))
            times[what].append(large.milliseconds(*of_many))
        for what, path in timed.items():
            times[what].append(large.milliseconds(path))
    # Take the fastest round, because other work on the machine can only add to a time.
    quietest = {what: min(medians) for what, medians in times.items()}
    for what in growing:
        beside = quietest[f"{what} of few"]
        rows.add(f"{what}, of 100,000 beside of 100 ({beside:.1f} ms)", quietest[what] / beside, 1.5, "×")
    for what in timed:
        rows.add(what, quietest[what], 10 if what.startswith("birthdays") else 15, "ms")
    if not has_trigrams:
        rows.table.add_row("search", "no pg_trgm here", style="yellow")
    rows.add("memory of the worker", server.mebibytes(), MEBIBYTES, "MiB")


def measure_files(rows: Rows, url: str, directory: Path, core: int) -> None:
    many, *importers = data.fill(url, "many", 1, MANY) + data.fill(url, "importer", 3 + 2 * IMPORTS, 0)
    (whole,) = data.fill(url, "whole", 1, MANY, are_whole=True)
    large = directory / "large.csv"
    with large.open("w") as out:
        print("first_name,last_name,email,additional_info", file=out)
        for n in range(LARGE):
            print(f"Ada,Number {n},friend{n}@example.com,{'A long story. ' * 36}", file=out)
    with Server("project", machine.PROJECT, core, directory, DATABASE_URL=url) as server:
        Client(server, many.token).get("/contacts")
        before = server.mebibytes()
        for kind, name, at_least in (("csv", "CSV", 12_000), ("vcf", "vCards", 9_000)):
            file = directory / f"contacts.{kind}"
            first, seconds = Client(server, many.token).fetch(f"/contacts/export.{kind}", file)
            rows.add(f"export of 100,000 as {name}", MANY / seconds, 40_000, "rows/s", at_least=True)
            rows.add(f"its first byte, of {file.stat().st_size / 1e6:.0f} MB", first * 1000, 100, "ms")
            hashes, times = [hash_alone(core)], []
            for _ in range(IMPORTS):
                times.append(Client(server, importers.pop().token).send(file, MANY))
                # Between the imports, because the speed of the machine varies from second to second.
                hashes.append(hash_alone(core))
            rows.pace(median(hashes))
            rows.add(f"import of 100,000 from {name}", MANY / min(times), at_least, "rows/s", at_least=True)
            file = directory / f"whole.{kind}"
            Client(server, whole.token).fetch(f"/contacts/export.{kind}", file)
            seconds = Client(server, importers.pop().token).send(file, MANY)
            rows.add("the same with a label and a detail each", MANY / seconds, None, "rows/s")
        seconds = Client(server, importers.pop().token).send(large, LARGE)
        rows.add(f"import of a CSV of {large.stat().st_size / 1e6:.0f} MB", LARGE / seconds, None, "rows/s")
        rows.add("memory that the worker took for these files", server.mebibytes() - before, 20, "MiB")
    with data.cursor(url) as sql:
        data.settle(sql)


def import_beside_a_million(rows: Rows, server: Server, url: str, directory: Path) -> None:
    (importer,) = data.fill(url, "importer", 1, 0)
    seconds = Client(server, importer.token).send(directory / "contacts.csv", MANY)
    rows.add("import of 100,000 from CSV, beside a million", MANY / seconds, None, "rows/s")


def last_page(server: Server, owner: data.Owner) -> str:
    """Return the path of page PAGES of the owner's contacts, by following the cursors of all pages before it."""
    client, path = Client(server, owner.token), "/contacts"
    for _ in range(PAGES - 1):
        path = f"/contacts?cursor={client.get(path)['next_cursor']}"
    return path


def measure_sign_ins(rows: Rows, url: str, directory: Path, core: int, options: argparse.Namespace) -> None:
    owners = data.fill(url, "login", 100, FEW, asyncio.run(PasswordHasher(threads=1).hash(PASSWORD)))

    def sign_in(owner: data.Owner, n: int) -> data.Request:
        return "POST", "/auth/login", json.dumps({"email": owner.email, "password": PASSWORD})

    sign_ins = data.write_requests(directory / "sign-ins.txt", owners, sign_in, each=1)
    reads = data.write_requests(directory / "reads.txt", owners, data.JOBS["one contact"])
    hashes, rates, left = [], [], []
    with Server("project", machine.PROJECT, core, directory, DATABASE_URL=url) as server:
        # Warm up: the first sign-in builds the SQL statements, which takes 20 ms.
        server.load(sign_ins, 1, 4)
        # Many short rounds, because the speed of the machine varies from second to second.
        for n in range(SIGN_IN_ROUNDS * options.rounds):
            if n % SIGN_IN_ROUNDS == 0:
                hashes.append(hash_alone(core))
            alone = server.load(reads, 2, options.connections)
            rates.append(server.load(sign_ins, 2, 4).rate)
            used, started_at = server.cpu_of_threads(), time.perf_counter()
            with server.wrk(sign_ins, 2, 4) as signing, server.wrk(reads, 2, options.connections) as reading:
                meanwhile = read_wrk(reading, "reads")
                read_wrk(signing, "sign-ins")
            share = (server.cpu_of_threads() - used) / (time.perf_counter() - started_at)
            left.append(meanwhile["requests"] / meanwhile["seconds"] / alone.rate / (1 - share))
    # Measured separately, because watching the event loop also takes CPU.
    with Server("watched", WATCHED, core, directory, DATABASE_URL=url) as server:
        server.load(sign_ins, 1, 4)
        stall(server)
        server.load(sign_ins, options.seconds, 4)
        stalled = stall(server)
    rows.begin(median(hashes))
    rows.add("sign-ins on one core", median(rates), 35, "/s", at_least=True)
    rows.add("longest stall of the event loop meanwhile", stalled, 10, "ms")
    # 0.9 leaves a tenth for the cost of switching between threads.
    rows.add("reads during sign-ins, beside their share of the core", median(left), 0.9, "×", at_least=True)


def hash_alone(core: int) -> float:
    """Return the number of passwords that an otherwise idle core hashes per second."""
    hasher, ours = PasswordHasher(threads=1), os.sched_getaffinity(0)

    async def hash_often() -> None:
        for _ in range(HASHES):
            await hasher.hash(PASSWORD)

    os.sched_setaffinity(0, {core})
    started_at = time.perf_counter()
    asyncio.run(hash_often())
    seconds = time.perf_counter() - started_at
    os.sched_setaffinity(0, ours)
    return HASHES / seconds


def stall(server: Server) -> float:
    """Return the longest stall of the event loop since the last call, in ms."""
    with urlopen(server.url + "/stall", timeout=5) as response:
        return float(json.load(response))
