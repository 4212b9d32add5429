from typing import Any

import pytest

from tests.client import Client

JSON = {"Content-Type": "application/json"}


UNREADABLE = {
    "syntax": b'{"first_name": ',
    "bad UTF-8": b'{"first_name": "\xff"}',
    "UTF-16": '{"first_name": "x"}'.encode("utf-16"),
    "depth": b"[" * 60_000,
    "digits": b'{"first_name": ' + b"9" * 5_000 + b"}",
    "a number past all bounds": b'{"first_name": 1e400}',
    "NaN": b'{"first_name": NaN}',
    "Infinity": b'{"first_name": -Infinity}',
    "lone surrogate": b'{"first_name": "\\ud800"}',
    "two values": b"{} {}",
    "blank": b"  ",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_invalid_json_is_a_422_that_comes_before_the_401(ada: Client, client: Client, body: bytes) -> None:
    for caller in ada, client:
        response = await caller.post("/contacts", content=body, headers=JSON)

        assert (response.status_code, response.json()["code"]) == (422, "invalid_json")
        assert response.json()["errors"][0]["loc"] == ["body"]


async def test_only_the_first_hundred_errors_are_listed(ada: Client) -> None:
    response = await ada.post("/contacts", json={f"unknown_{n}": 1 for n in range(3000)})

    assert (response.status_code, len(response.json()["errors"])) == (422, 100)


@pytest.mark.parametrize("path", ["/contacts", "/auth/login", "/auth/token"])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_over_64_kib_is_a_413_before_all_else(client: Client, path: str, is_chunked: bool) -> None:
    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 32_768

    media_type = "application/x-www-form-urlencoded" if path == "/auth/token" else "application/json"
    content = chunks() if is_chunked else b"x" * (64 * 1024 + 1)

    response = await client.post(path, content=content, headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_a_body_of_64_kib_is_read(ada: Client) -> None:
    body = b'{"first_name": "' + b"x" * (64 * 1024 - 18) + b'"}'

    response = await ada.post("/contacts", content=body, headers=JSON)

    assert len(body) == 64 * 1024
    assert response.status_code == 422
