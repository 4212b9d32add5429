"""What one connection can take of the server: a real one, on a port of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from fastapi import FastAPI

from contacts_api import protocol

KIB = 1024
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
    """Return the status of the next answer; 0 where the connection ends without one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    await reader.readexactly(length)
    return int(head.split()[1])


async def send(writer: asyncio.StreamWriter, *pieces: bytes) -> bool:
    """Send the pieces; say whether all of them were taken."""
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
async def test_a_head_of_60_kib_is_read_and_so_is_the_next_one(port: int, head: bytes) -> None:
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
async def test_more_than_64_kib_end_the_connection(port: int, pieces: list[bytes]) -> None:
    async with connection(port) as (reader, writer):
        await send(writer, *pieces)

        assert await status_of(reader) in (0, 400, 422)
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_a_chunked_body_in_small_pieces_is_no_head(port: int) -> None:
    async with connection(port) as (reader, writer):
        await send(writer, CHUNKED, b"1\r\n \r\n" * 60 * KIB + b"2\r\n{}\r\n0\r\n\r\n")

        assert await status_of(reader) == 422


async def test_trailers_are_not_taken_for_headers(port: int) -> None:
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
async def test_who_sends_nothing_more_is_let_go(port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_SECONDS", 0.1)
    async with connection(port) as (reader, writer):
        await send(writer, sent)

        await reader.read()


async def test_who_sends_a_byte_now_and_then_is_not(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_SECONDS", 0.5)
    async with connection(port) as (reader, writer):
        await send(writer, CHUNKED)
        for _ in range(10):
            await send(writer, b"1\r\n \r\n")
            await asyncio.sleep(0.1)
        await send(writer, b"2\r\n{}\r\n0\r\n\r\n")

        assert await status_of(reader) == 422
