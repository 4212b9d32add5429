"""Floods: requests of one client, or of a few hundred, that try to keep everybody else from being served."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import httpx

from contacts_api.app import create_app
from contacts_api.contacts.models import FOLDING
from contacts_api.settings import Settings
from tests.faults.load import contact
from tests.faults.rig import CREDENTIALS, Rig
from tests.servers import HOST

ANSWER, SIGN_IN, READ, GROWTH = 6.0, 5.0, 2.0, 20.0
# The limit for other accounts' reads while one account sends as much as it can.
OTHERS_READ = 0.5
KIB, MIB = 1024, 1024 * 1024
CONTACT = {"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "phone_number": "123"}
A_CONTACT = {**CONTACT, "date_of_birth": "1990-12-10"}
# The time that filling takes on the reference machine.
FILL_MILLION_SECONDS, FILL_BACKLOG_SECONDS = 30.0, 60.0
MILLION = 1_000_000


@asynccontextmanager
async def strangers(rig: Rig, *, sign_in: bool = True, read: float = ANSWER) -> AsyncIterator[None]:
    """Let another account read and sign in during a flood.

    Each request must be answered in time, and a sign-in after the flood at once.
    """
    name = f"stranger.{rig.name.replace(' ', '.').lower()}@example.com"
    token = await rig.sign_up(name)
    reads: list[tuple[int, float]] = []
    sign_ins: list[tuple[int, float]] = []
    is_over = asyncio.Event()
    # A new connection for each request, so that every worker is used.
    async with rig.client(token, max_keepalive_connections=0) as http:

        async def repeat(found: list[tuple[int, float]], method: str, path: str, **body: Any) -> None:
            while not is_over.is_set():
                begun_at = time.monotonic()
                response = await http.request(method, path, **body)
                found.append((response.status_code, time.monotonic() - begun_at))
                is_right = response.status_code == 200 or "Retry-After" in response.headers
                rig.expect(is_right, f"{path}: {response.status_code}")
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(repeat(reads, "GET", "/contacts?limit=1"))]
        credentials = {**CREDENTIALS, "email": name}
        if sign_in:
            tasks.append(asyncio.create_task(repeat(sign_ins, "POST", "/auth/login", json=credentials)))
        try:
            yield
        finally:
            is_over.set()
            await asyncio.gather(*tasks)
        rig.expect({status for status, _ in reads} == {200}, f"reads: {Counter(status for status, _ in reads)}")
        rig.measure_work("a stranger's read", max(seconds for _, seconds in reads), read)
        if sign_in:
            statuses = Counter(status for status, _ in sign_ins)
            rig.expect(set(statuses) <= {200, 503}, f"sign-ins: {statuses}")
            rig.measure_work("a sign-in", max(seconds for _, seconds in sign_ins), SIGN_IN)
            afterwards = await http.post("/auth/login", json=credentials)
            rig.expect(afterwards.status_code == 200, f"afterwards: {afterwards.status_code}")


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until the condition holds, for at most this many seconds."""
    give_up_at = time.monotonic() + seconds
    while not await asyncio.to_thread(condition) and time.monotonic() < give_up_at:  # noqa: ASYNC110
        await asyncio.sleep(0.2)


async def at_once(rig: Rig, call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Return the answer. The first call must succeed; a slow machine has more attempts."""
    for _ in range(round(rig.slowness)):
        answer = await call()
        if answer.status_code != 503:
            break
    return answer


def expect_answers(rig: Rig, answers: Iterable[httpx.Response], *allowed: int) -> None:
    answers = list(answers)
    statuses = Counter(answer.status_code for answer in answers)
    rig.expect(set(statuses) <= set(allowed), f"answers: {statuses}")
    rig.expect(all("Retry-After" in a.headers for a in answers if a.status_code == 503), "no Retry-After")
    rig.figures.append(", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))


async def register(rig: Rig, kind: str) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send 400 registrations, each over its own connection. (httpx takes seconds for this many.)"""
    connections = []
    for n in range(400):
        body = json.dumps({**CREDENTIALS, "email": f"{kind}.{n}@example.com"}).encode()
        head = f"POST /auth/register HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}"
        connections.append(await rig.send(head, body))
    return connections


async def register_at_once(rig: Rig) -> None:
    async with strangers(rig):
        connections = await register(rig, "kept")
        answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    statuses = Counter(answer[9:12].decode() for answer in answers)
    rig.expect(set(statuses) <= {"201", "503"}, f"answers: {statuses}")
    rig.expect(all(b"retry-after" in answer for answer in answers if b" 503 " in answer[:16]), "no Retry-After")
    rig.figures.append(", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))


async def register_and_hang_up(rig: Rig) -> None:
    async with strangers(rig):
        for _, writer in await register(rig, "gone"):
            writer.close()
        await asyncio.sleep(SIGN_IN)
    ((made,),) = rig.postgres.execute("SELECT count(*) FROM \"user\" WHERE email LIKE 'gone.%'", "contacts")
    rig.measure("worked for", made / 400 * 100, 40, "%")


async def change_at_once(rig: Rig) -> None:
    token = await rig.sign_up("changing@example.com")
    own = {"current_password": CREDENTIALS["password"]}
    changes = [{**own, "email": f"changing.{n}@example.com"} for n in range(25)]
    changes += [{**own, "password": own["current_password"]}] * 25
    async with strangers(rig), rig.client(token) as http:
        answers = await asyncio.gather(*(http.patch("/users/me", json=change) for change in changes))
    expect_answers(rig, answers, 200, 503)


async def call_everything_frozen(rig: Rig) -> None:
    """Call each operation of the OpenAPI document twenty times, with a valid body, while PostgreSQL is frozen."""
    document = json.loads(json.dumps(create_app(Settings(_env_file=None)).openapi()))
    longest, slowest = 0.0, ""
    for path, methods in document["paths"].items():
        url = re.sub("{.*?}", str(UUID(int=1)), path)
        for method, operation in methods.items():
            # Sign in for each operation, because one of them ends the session.
            token = await rig.sign_in()
            body = body_of(operation)
            query = {
                p["name"]: "x" for p in operation.get("parameters", ()) if p.get("required") and p["in"] == "query"
            }
            async with rig.client(token) as http:
                with rig.postgres.frozen():
                    begun_at = time.monotonic()
                    calls = (http.request(method.upper(), url, params=query, **body) for _ in range(20))
                    answers = await asyncio.gather(*calls)
                    seconds = time.monotonic() - begun_at
            longest, slowest = max((longest, slowest), (seconds, operation["operationId"]))
            statuses = {answer.status_code for answer in answers}
            rig.expect(statuses <= {200, *range(400, 500), 503}, f"{operation['operationId']}: {statuses}")
            is_told_when = all("Retry-After" in answer.headers for answer in answers if answer.status_code == 503)
            rig.expect(is_told_when, f"{operation['operationId']}: no Retry-After")
    rig.measure(f"longest, {slowest}", longest, ANSWER)


def body_of(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the example of the operation's body as arguments of httpx."""
    content = operation.get("requestBody", {}).get("content", {})
    for media_type, media in content.items():
        if media_type.startswith("multipart"):
            return {"files": {"file": ("contacts.csv", b"first_name\r\nAda\r\n")}}
        return {"json" if media_type.endswith("json") else "data": media["example"]}
    return {}


async def import_at_once(rig: Rig) -> None:
    tokens = [await rig.sign_up(f"importing.{n}@example.com") for n in range(24)]
    head = "first_name,last_name,email,phone_number,date_of_birth\r\n"
    rows = "".join(f"First{n},Last{n},c{n}@example.com,+1 202 {n:07},1990-01-01\r\n" for n in range(10_000))
    file = {"file": ("contacts.csv", (head + rows).encode())}
    may_end = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await may_end.wait()
        yield b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\nfirst_name\r\nAda\r\n\r\n--x--\r\n'

    async with rig.client() as http:

        async def import_(token: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}"}
            return await http.post("/contacts/import", files=file, headers=headers, timeout=120)

        async with strangers(rig, sign_in=False, read=READ):
            answers = await asyncio.gather(*map(import_, tokens))
        headers = {"Authorization": f"Bearer {tokens[0]}", "Content-Type": "multipart/form-data; boundary=x"}
        uploading = asyncio.create_task(http.post("/contacts/import", content=slowly(), headers=headers))
        await asyncio.sleep(0.5)
        another = await import_(tokens[0])
        may_end.set()
        uploaded = await uploading

        may_end.clear()
        hung_up = asyncio.create_task(http.post("/contacts/import", content=slowly(), headers=headers))
        await asyncio.sleep(0.5)
        hung_up.cancel()
        await asyncio.sleep(1)
        afterwards = await import_(tokens[0])
    rig.expect(afterwards.status_code == 200, f"{afterwards.status_code} after a hang-up")
    expect_answers(rig, answers, 200, 503)
    rig.expect((another.status_code, uploaded.status_code) == (409, 200), f"{another.status_code}, one at a time")


async def hang_up_on_imports(rig: Rig) -> None:
    """Start large imports of eight accounts and hang up, then import a single row for another account."""
    rows = "".join(f"First{n},Last{n},c{n}@example.com\r\n" for n in range(200_000))
    file = {"file": ("contacts.csv", f"first_name,last_name,email\r\n{rows}".encode())}
    tokens = [await rig.sign_up(f"burning.{n}@example.com") for n in range(8)]
    copying = "SELECT count(*) > 2 FROM pg_stat_activity WHERE query LIKE 'COPY staged%'"
    seconds = []
    async with rig.client(await rig.sign_up("one.row@example.com"), max_keepalive_connections=0) as http:
        clients = [rig.client(token) for token in tokens]
        imports = [asyncio.create_task(client.post("/contacts/import", files=file)) for client in clients]
        await until(lambda: rig.postgres.execute(copying)[0][0], 20 * rig.slowness)
        for import_ in imports:
            import_.cancel()
        await asyncio.gather(*imports, *(client.aclose() for client in clients), return_exceptions=True)
        for n in range(4):
            row = {"file": ("contacts.csv", f"first_name\r\nAda{n}\r\n".encode())}
            begun_at = time.monotonic()
            response = await http.post("/contacts/import", files=row, timeout=60)
            seconds.append(time.monotonic() - begun_at)
            rig.expect(response.status_code == 200, f"a single row: {response.status_code}")
    rig.measure_work("a single row", max(seconds), SIGN_IN)
    burning = "SELECT id FROM \"user\" WHERE email LIKE 'burning.%'"
    ((kept,),) = rig.postgres.execute(f"SELECT count(*) FROM contact WHERE owner_id IN ({burning})", "contacts")
    rig.expect(kept == 0, f"{kept} contacts imported for clients that hung up")


async def send_batches_of_keys(rig: Rig) -> None:
    before = {worker.pid for worker in rig.api.workers()}
    # The first body is refused for the number of its values, the second for its unknown members.
    bodies = [b'{"items":[{' + b",".join(b'"%x":1' % n for n in range(count)) + b"}]}" for count in (205_000, 45_000)]
    token = await rig.sign_in()
    headers = {"Content-Type": "application/json"}
    async with strangers(rig, read=READ), rig.client(token) as http:
        sent = (http.post("/contacts/batch", content=bodies[n % 2], headers=headers) for n in range(12))
        answers = await asyncio.gather(*sent)
    expect_answers(rig, answers, 422, 503)
    rig.expect(all(len(a.json().get("errors", ())) <= 100 for a in answers), "too many errors are named")
    rig.expect({worker.pid for worker in rig.api.workers()} == before, "a worker was replaced")


async def send_large_heads(rig: Rig) -> None:
    begin, block = b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * (8 * KIB)
    posting = b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    floods = {
        "headers": (begin, block),
        "one header": (begin + b"X-A: ", b"b" * 64 * KIB),
        "a URL": (b"GET /", b"x" * 64 * KIB),
        "trailers": (posting + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", block),
    }
    for name, (first, piece) in floods.items():
        start = {worker: worker.memory_info().rss for worker in rig.api.workers()}
        reader, writer = await asyncio.open_connection(HOST, rig.api.port)
        sent, growth, is_over = 0, 0, False
        try:
            writer.write(first)
            while sent < 40 * MIB:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
                growth = max(growth, *(worker.memory_info().rss - rss for worker, rss in start.items()))
            status = await asyncio.wait_for(reader.readline(), ANSWER)
            is_over = not status or b" 4" in status[:12]
        except ConnectionError:
            is_over = True
        rig.expect(is_over, f"{name}: goes on")
        growth = max(growth, *(worker.memory_info().rss - rss for worker, rss in start.items()))
        rig.measure(f"{name}: growth", growth / MIB, GROWTH, "MB")
        writer.close()


async def stay_silent(rig: Rig) -> None:
    stalled = b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    starts = [b""] * 400 + [b"GET / HTTP/1.1\r\nHo"] * 400 + [stalled] * 50
    begun_at = time.monotonic()
    connections = []
    for start in starts:
        reader, writer = await asyncio.open_connection(HOST, rig.api.port)
        writer.write(start)
        connections.append((reader, writer))
    async with strangers(rig, sign_in=False):
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.gather(*(reader.read() for reader, _ in connections), return_exceptions=True)
        rig.measure_work("let go after", time.monotonic() - begun_at, 15)
    for _, writer in connections:
        writer.close()


async def delete_a_million(rig: Rig) -> None:
    token = await rig.sign_up("million@example.com")
    async with rig.client(token) as http:
        owner_id = (await http.get("/users/me")).json()["id"]
        fill = f"""
            INSERT INTO contact (owner_id, id, first_name, last_name, email, search_text, sort_name, identity, folding)
            SELECT '{owner_id}', lpad(to_hex(n), 32, '0')::uuid, 'First' || n, 'Last' || n, n || '@example.com',
                concat(E'\\nFIRSTNAME first', n, E'\\nLASTNAME last', n, E'\\nEMAIL ', n, '@example.com'),
                concat_ws(E'\\n', 'last' || n, 'first' || n),
                concat_ws(E'\\n', 'last' || n, 'first' || n, n || '@example.com'), {FOLDING}
            FROM generate_series(1, {MILLION - 10}) AS n
        """
        # As in a database in use: the statistics of PostgreSQL cover other contacts, but not the new ones.
        few = {"items": [contact(f"few.{n}@example.com") for n in range(100)]}
        async with rig.client(await rig.sign_up("few@example.com")) as other:
            (await other.post("/contacts/batch", json=few)).raise_for_status()
        await asyncio.to_thread(rig.postgres.execute, "ANALYZE contact", "contacts")
        await fill_with(rig, fill, FILL_MILLION_SECONDS)
        file = {"file": ("contacts.csv", b"first_name\r\n" + b"".join(b"New%d\r\n" % n for n in range(5)))}
        begun_at = time.monotonic()
        imported = await at_once(rig, lambda: http.post("/contacts/import", files=file, timeout=60 * rig.slowness))
        rig.measure_work("import of five", time.monotonic() - begun_at, 15)
        rig.expect((imported.status_code, imported.json().get("created")) == (200, 5), imported.text[:100])
        async with strangers(rig, sign_in=False):
            begun_at = time.monotonic()
            confirmation = {"current_password": CREDENTIALS["password"]}
            deleted = await at_once(rig, lambda: http.post("/users/me/delete", json=confirmation))
            rig.expect(deleted.status_code == 204, f"deleted: {deleted.status_code}")
            again = await http.post("/auth/register", json={**CREDENTIALS, "email": "million@example.com"})
            rig.expect(again.status_code == 201, f"the address again: {again.status_code}")
            left = f"SELECT count(*) FROM (SELECT FROM contact WHERE owner_id = '{owner_id}' LIMIT 1) AS one"
            await until(lambda: rig.postgres.execute(left, "contacts") == [(0,)], 240)
            rig.measure_work("rows gone after", time.monotonic() - begun_at, 60)


async def take_everything(rig: Rig) -> None:
    """Send many concurrent calls of every kind from one account, repeatedly. Other accounts must hardly notice."""
    token = await rig.sign_up("greedy@example.com")
    async with rig.client(token, max_keepalive_connections=0) as http:
        items = [{**contact(f"greedy.{n}@example.com"), "labels": [f"Label {n % 50}"]} for n in range(500)]
        for _ in range(10):
            (await http.post("/contacts/batch", json={"items": items})).raise_for_status()
        ids = [each["id"] for each in (await http.get("/contacts?limit=500")).json()["items"]]
        rows = b"".join(b"First%d,Last%d,%d@example.com\r\n" % (n, n, n) for n in range(2000))
        file = {"file": ("contacts.csv", b"first_name,last_name,email\r\n" + rows)}
        changes = {"items": [{"id": each, "additional_info": "changed"} for each in ids]}
        statuses: Counter[int] = Counter()
        is_over = asyncio.Event()

        async def repeat(method: str, path: str, **body: Any) -> None:
            while not is_over.is_set():
                answer = await http.request(method, path, timeout=60, **body)
                statuses[answer.status_code] += 1
                await answer.aread()

        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/contacts/export.csv", {}),
            ("GET", "/contacts/export.vcf?q=example", {}),
            ("GET", "/contacts?limit=500&with_total=true&q=ada", {}),
            ("GET", "/contacts/labels", {}),
            ("PATCH", "/contacts/labels/label%201", {"json": {"label": "Label 1"}}),
            ("PATCH", f"/contacts/{ids[0]}", {"json": {"additional_info": "changed"}}),
            ("POST", "/contacts/batch/update", {"json": changes}),
            ("POST", "/contacts/import?dry_run=true", {"files": file}),
        ]
        tasks: list[asyncio.Task[None]] = []
        async with strangers(rig, read=OTHERS_READ):
            tasks = [asyncio.create_task(repeat(m, path, **body)) for m, path, body in calls for _ in range(5)]
            await asyncio.sleep(10)
            is_over.set()
            await asyncio.gather(*tasks)
    allowed = {200, 409, 503}
    rig.expect(set(statuses) <= allowed, f"answers: {statuses}")
    rig.figures.append(", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))


async def leave_a_backlog(rig: Rig) -> None:
    rows = 5_000_000
    fill = f"""
        INSERT INTO failed_attempt (key, failures, failed_at)
        SELECT uuid_send(gen_random_uuid()), 1, now() - interval '2 days' FROM generate_series(1, {rows})
    """
    await asyncio.to_thread(rig.api.stop)
    await fill_with(rig, fill, FILL_BACKLOG_SECONDS)
    begun_at = time.monotonic()
    await asyncio.to_thread(rig.api.start)
    try:
        async with strangers(rig, sign_in=False):
            await until(lambda: count_deleted_attempts(rig) >= rows / 10, 240)
        rig.measure_work("a tenth of five million gone after", time.monotonic() - begun_at, 45)
    finally:
        await asyncio.to_thread(rig.postgres.execute, "TRUNCATE failed_attempt", "contacts")


async def fill_with(rig: Rig, statement: str, seconds: float) -> None:
    """Run the statement. If it takes longer than `seconds`, the disk is slow: raise the limits for what follows."""
    begun_at = time.monotonic()
    await asyncio.to_thread(rig.postgres.execute, statement, "contacts")
    # Write to disk now, so that the next measurement does not include it.
    await asyncio.to_thread(rig.postgres.execute, "CHECKPOINT", "contacts")
    taken = time.monotonic() - begun_at
    rig.figures.append(f"filled in {taken:.1f} s")
    rig.slowness = max(rig.slowness, taken / seconds)


def count_deleted_attempts(rig: Rig) -> int:
    # Counting the rows would be as expensive as deleting them.
    deleted = "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'failed_attempt'"
    ((count,),) = rig.postgres.execute(deleted, "contacts")
    return int(count)


FLOODS: dict[str, Callable[[Rig], Awaitable[None]]] = {
    "400 registrations": register_at_once,
    "400 hung up": register_and_hang_up,
    "50 password changes": change_at_once,
    "All calls, frozen": call_everything_frozen,
    "24 imports": import_at_once,
    "Imports hung up": hang_up_on_imports,
    "Batches of keys": send_batches_of_keys,
    "Large heads": send_large_heads,
    "Silent connections": stay_silent,
    "One account takes all": take_everything,
    "Million deleted": delete_a_million,
    "Backlog": leave_a_backlog,
}
