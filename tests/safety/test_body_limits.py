"""Large bodies are refused while they are read, and are not kept in memory."""

import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest

from tests.client import Client
from tests.safety.document import Operation, operations

CHUNK = b" " * 64 * 1024
MEBIBYTE = 1024 * 1024


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield CHUNK
        await asyncio.sleep(0)


# In chunks. The limit of an import is a setting; tests/features/exchange tests it with a small value.
TOO_MANY = {"create_contacts": 33, "update_contacts": 33}


@pytest.mark.parametrize(
    "operation",
    [each for each in operations() if each.media_types and each.name != "import_contacts"],
    ids=str,
)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_every_operation_refuses_a_body_that_is_too_large(
    ada: Client, operation: Operation, is_chunked: bool
) -> None:
    count = TOO_MANY.get(operation.name, 2)
    for media_type in operation.media_types:
        response = await ada.request(
            operation.method,
            operation.url(),
            content=chunks(count) if is_chunked else count * CHUNK,
            headers={"Content-Type": media_type},
        )

        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/contacts/batch", "/contacts/batch/update"])
async def test_only_64_kib_of_a_body_are_read_before_the_sign_in_is_checked(client: Client, path: str) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(30):
            read.append(1)
            yield CHUNK

    response = await client.post(path, content=body(), headers={"Content-Type": "application/json"})

    assert response.status_code == 401
    assert len(read) <= 2


async def test_a_body_with_a_content_length_over_the_limit_is_not_read(client: Client) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield CHUNK

    headers = {"Content-Type": "application/json", "Content-Length": str(len(CHUNK) + 1)}
    response = await client.post("/contacts", content=body(), headers=headers)

    assert (response.status_code, read) == (413, [])


async def test_bodies_of_200_mib_take_less_than_20_mib_of_memory(client: Client) -> None:
    process = psutil.Process()
    headers = {"Content-Type": "application/json"}
    await client.post("/auth/login", content=chunks(2), headers=headers)
    before = process.memory_info().rss

    bodies = [chunks(50 * MEBIBYTE // len(CHUNK)) for _ in range(4)]
    answers = await asyncio.gather(*(client.post("/auth/login", content=body, headers=headers) for body in bodies))

    assert {answer.status_code for answer in answers} == {413}
    assert process.memory_info().rss - before < 20 * MEBIBYTE
