"""Reads from a standby, which here is the primary itself or missing. tests/scale has a real one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from contacts_api.app import create_app
from contacts_api.database.standby import Shared
from tests.client import Client
from tests.conftest import client_of

NOBODY_THERE = "postgresql:///contacts?host=/nowhere"


async def signed_up(app: FastAPI, email: str) -> AsyncIterator[Client]:
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield await client.sign_up(email)


@pytest.fixture
async def reader(database_url: str, make_settings: Any) -> AsyncIterator[Client]:
    async for client in signed_up(create_app(make_settings(database_read_url=database_url)), "reader@example.com"):
        yield client


@pytest.fixture
async def alone(make_settings: Any) -> AsyncIterator[Client]:
    async for client in signed_up(create_app(make_settings(database_read_url=NOBODY_THERE)), "alone@example.com"):
        yield client


READS = ["/contacts", "/contacts?q=grace&with_total=true", "/contacts/birthdays?days=365", "/contacts/export.csv"]


@pytest.mark.parametrize("path", READS)
async def test_a_read_sees_the_latest_write(reader: Client, path: str) -> None:
    await reader.create_contact()

    assert "Grace" in (await reader.get(path)).text


@pytest.mark.parametrize("path", READS)
async def test_reads_fall_back_to_the_primary(alone: Client, path: str) -> None:
    await alone.create_contact()

    assert "Grace" in (await alone.get(path)).text


async def test_calendar_reads_fall_back_to_the_primary(alone: Client) -> None:
    await alone.create_contact()
    url = (await alone.post("/contacts/birthdays/feed")).json()["url"]

    assert "Grace" in (await alone.get(url)).text


async def test_an_unreachable_standby_is_logged_once(alone: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "contacts_api.database.standby"):
        for _ in range(3):
            await alone.list_contacts()

    assert [record.message for record in caplog.records] == ["cannot read from the standby: FileNotFoundError"]


class Question:
    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> int:
        self.asked += 1
        answer = self.asked
        await asyncio.sleep(0.01)
        return answer


async def test_concurrent_calls_share_a_result() -> None:
    question = Question()
    shared = Shared(question)

    assert await asyncio.gather(*(shared() for _ in range(10))) == [1] * 10


async def test_a_call_during_a_running_call_gets_the_next_result() -> None:
    question = Question()
    shared = Shared(question)

    first = asyncio.create_task(shared())
    await asyncio.sleep(0.005)
    others = await asyncio.gather(*(shared() for _ in range(10)))

    assert (await first, set(others), question.asked) == (1, {2}, 2)


async def test_cancelling_the_first_call_does_not_cancel_the_shared_one() -> None:
    shared = Shared(Question())

    first, second = asyncio.create_task(shared()), asyncio.create_task(shared())
    await asyncio.sleep(0.005)
    first.cancel()

    assert await second == 1
