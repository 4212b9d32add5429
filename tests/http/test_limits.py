"""Limits on what one connection can use, tested on a real server with its own port."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest
import uvicorn
from fastapi import FastAPI

from contacts_api.http import limits as protocol

KIB = 1024
MIB = 1024 * KIB
WAIT_SECONDS = 30
HEAD = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
CHUNKED = (
    b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, log_config=None, timeout_graceful_shutdown=10, lifespan="off", http=protocol.Protocol
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 (it says so by nothing else)
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield reader, writer
    finally:
        writer.close()


async def status_of(reader: asyncio.StreamReader) -> int:
    """Return the status of the next answer, or 0 if the connection ends without one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    await reader.readexactly(length)
    return int(head.split()[1])


async def send(writer: asyncio.StreamWriter, *pieces: bytes) -> bool:
    """Send the pieces and return True if all of them were accepted."""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        return False
    return True


def headers(size: int) -> bytes:
    return b"X-A: bbb\r\n" * (size // 10)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + headers(60 * KIB),
        HEAD + b"X-A: " + b"b" * 60 * KIB + b"\r\n",
        b"GET /health/live?" + b"x" * 60 * KIB + b" HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=["headers", "one header", "URL"],
)
async def test_several_heads_of_60_kib_on_one_connection_are_read(port: int, head: bytes) -> None:
    async with connection(port) as (reader, writer):
        for _ in range(3):
            await send(writer, head + b"\r\n")

            assert await status_of(reader) in (200, 422)


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD, *[headers(8 * KIB)] * 64],
        [HEAD, b"X-A: ", *[b"b" * 8 * KIB] * 64],
        [HEAD, *[b"b" * 8 * KIB] * 64],
        [b"GET /", *[b"x" * 8 * KIB] * 64],
        [b"\r\n" * 4 * KIB] * 64,
        [HEAD + headers(40 * KIB), b"X-A: " + b"b" * 30 * KIB + b"\r\n\r\n"],
        [b"GET /?" + b"x" * 40 * KIB + b" HTTP/1.1\r\nHost: x\r\n", headers(30 * KIB) + b"\r\n"],
        [CHUNKED, b"2\r\n{}\r\n0\r\n", *[headers(8 * KIB)] * 64],
        [CHUNKED, b"2;", *[b"x" * 8 * KIB] * 64],
    ],
    ids=["headers", "value", "name", "URL", "blank lines", "together", "URL and headers", "trailers", "extension"],
)
async def test_a_head_over_64_kib_ends_the_connection(port: int, pieces: list[bytes]) -> None:
    async with connection(port) as (reader, writer):
        await send(writer, *pieces)

        assert await status_of(reader) in (0, 400, 422)
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_chunk_sizes_do_not_count_towards_the_limit_on_heads(port: int) -> None:
    async with connection(port) as (reader, writer):
        await send(writer, CHUNKED, b"1\r\n \r\n" * 60 * KIB + b"2\r\n{}\r\n0\r\n\r\n")

        assert await status_of(reader) == 422


async def test_trailers_are_not_read_as_headers(port: int) -> None:
    async with connection(port) as (reader, writer):
        await send(writer, CHUNKED, b"2\r\n{}\r\n0\r\nX-Request-ID: planted\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")

        assert b" 422 " in head
        assert b"planted" not in head


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEAD,
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        HEAD + b"\r\n" + HEAD,
        HEAD + b"\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "half a second head", "a blank line"],
)
async def test_a_silent_connection_is_closed(port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SILENCE_SECONDS", 0.1)
    async with connection(port) as (reader, writer):
        await send(writer, sent)

        await reader.read()


async def test_a_connection_that_sends_slowly_stays_open(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SILENCE_SECONDS", 0.5)
    async with connection(port) as (reader, writer):
        await send(writer, CHUNKED)
        for _ in range(10):
            await send(writer, b"1\r\n \r\n")
            await asyncio.sleep(0.1)
        await send(writer, b"2\r\n{}\r\n0\r\n\r\n")

        assert await status_of(reader) == 422


async def test_pipelined_requests_beyond_16_end_the_connection(port: int) -> None:
    request = HEAD + b"\r\n"
    async with connection(port) as (reader, writer):
        await send(writer, request * 100)

        with suppress(ConnectionError):
            while await reader.read(64 * KIB):
                pass


async def test_16_pipelined_requests_are_answered_in_order(port: int) -> None:
    requests = [b"GET /nothing/%d HTTP/1.1\r\nHost: x\r\nX-Request-ID: id-%d\r\n\r\n" % (n, n) for n in range(16)]
    async with connection(port) as (reader, writer):
        await send(writer, b"".join(requests))

        for n in range(16):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            assert b"x-request-id: id-%d" % n in head


@pytest.mark.parametrize(
    "piece",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD + headers(4 * KIB) + b"\r\n",
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000,
    ],
    ids=["smallest", "headers", "bodies"],
)
async def test_a_flood_of_pipelined_requests_takes_little_memory(port: int, piece: bytes) -> None:
    process = psutil.Process()
    before = process.memory_info().rss

    async with connection(port) as (reader, writer):
        await send(writer, *[piece * (64 * KIB // len(piece) + 1)] * 384)
        with suppress(ConnectionError):
            await reader.read()

    assert process.memory_info().rss - before < 20 * MIB


def upgrade_to(protocol_name: bytes, body_head: bytes) -> bytes:
    return (
        b"POST /auth/login HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
        + protocol_name
        + b"\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nContent-Type: application/json\r\n"
        + body_head
    )


CREDENTIALS = json.dumps({"email": "nobody@example.com", "password": "wrong horse battery"}).encode()
WITH_LENGTH = b"Content-Length: %d\r\n\r\n%b" % (len(CREDENTIALS), CREDENTIALS)
IN_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(CREDENTIALS), CREDENTIALS)


@pytest.mark.parametrize("name", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("rest", [WITH_LENGTH, IN_CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize("size", [1, 50, 10_000], ids=["bytes", "pieces", "whole"])
async def test_a_request_to_upgrade_the_protocol_is_answered_as_http_1(
    port: int, name: bytes, rest: bytes, size: int
) -> None:
    request = upgrade_to(name, rest)
    async with connection(port) as (reader, writer):
        for _ in range(2):
            for start in range(0, len(request), size):
                await send(writer, request[start : start + size])
                await asyncio.sleep(0)
            # The body was read: the 401 is about its credentials.
            assert await status_of(reader) == 401

        await send(writer, HEAD + b"\r\n")
        assert await status_of(reader) == 200


async def test_each_pipelined_upgrade_request_is_answered(port: int) -> None:
    async with connection(port) as (reader, writer):
        await send(writer, upgrade_to(b"h2c", WITH_LENGTH) * 3 + HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")

        assert [await status_of(reader) for _ in range(4)] == [401, 401, 401, 200]


async def test_a_client_that_does_not_read_its_answer_is_disconnected(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 1.0)
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 16
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(client, requests)
        async with asyncio.timeout(WAIT_SECONDS):
            while not connections_of_server(port):  # noqa: ASYNC110 (the kernel signals nothing)
                await asyncio.sleep(0.01)
            while connections_of_server(port):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def connections_of_server(port: int) -> int:
    return sum(each.laddr.port == port and bool(each.raddr) for each in psutil.Process().net_connections("tcp"))


async def test_a_client_that_reads_slowly_gets_its_whole_answer(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 1.0)
    async with connection(port) as (reader, writer):
        await send(writer, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        received = 0
        for _ in range(20):
            received += len(await reader.read(2 * KIB))
            await asyncio.sleep(0.1)
        received += len(await reader.read())

    assert received == length
