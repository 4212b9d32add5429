"""Places: so many at work, so many that wait, for so long, and none for who has gone."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from contacts_api.problems import Busy
from contacts_api.waiting import ASKED_AFTER_SECONDS, Places, has_come


def request(*, has_gone: bool) -> Request:
    async def receive() -> Any:
        if not has_gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


async def work(places: Places, done: list[str], name: str, *, has_gone: bool = False, seconds: float = 0) -> None:
    has_come(request(has_gone=has_gone))
    async with places.place():
        await asyncio.sleep(seconds)
        done.append(name)


async def test_those_who_wait_come_in_turn() -> None:
    places, done = Places(1, max_waiting=5, max_seconds=10), list[str]()

    await asyncio.gather(*(work(places, done, name) for name in "abcdef"))

    assert done == list("abcdef")


async def test_who_finds_the_queue_full_is_refused_at_once() -> None:
    places, done = Places(1, max_waiting=2, max_seconds=10), list[str]()

    answers = await asyncio.gather(*(work(places, done, name) for name in "abcde"), return_exceptions=True)

    assert done == list("abc")
    assert [type(answer) for answer in answers] == [type(None)] * 3 + [Busy] * 2


async def test_who_waits_too_long_is_refused_and_the_place_is_there_for_others() -> None:
    places, done = Places(1, max_waiting=2, max_seconds=0.01), list[str]()
    async with places.place():
        with pytest.raises(Busy):
            await work(places, done, "late")

    await work(places, done, "next")

    assert done == ["next"]


async def test_nothing_is_done_for_who_has_gone_meanwhile() -> None:
    places, done = Places(1, max_waiting=5, max_seconds=10), list[str]()
    gone = {"b", "c"}

    answers = await asyncio.gather(
        work(places, done, "a", seconds=2 * ASKED_AFTER_SECONDS),
        *(work(places, done, name, has_gone=name in gone) for name in "bcd"),
        return_exceptions=True,
    )

    assert done == ["a", "d"]
    assert [type(answer) for answer in answers] == [type(None), Busy, Busy, type(None)]


async def test_who_has_waited_a_moment_is_not_asked() -> None:
    places, done = Places(1, max_waiting=5, max_seconds=10), list[str]()

    await asyncio.gather(work(places, done, "a"), work(places, done, "b", has_gone=True))

    assert done == ["a", "b"]


async def test_a_refusal_is_a_503_that_says_when_to_try_again() -> None:
    answer = Busy().response(root_path="")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


class Undecided(Request):
    """A request of a client that is still being asked whether it is there."""

    async def is_disconnected(self) -> bool:
        await asyncio.Event().wait()
        return False


async def test_who_is_cancelled_on_getting_a_place_gives_it_back() -> None:
    async def wait() -> None:
        has_come(Undecided({"type": "http"}))
        await places.take()

    places = Places(1, max_waiting=5, max_seconds=10)
    await places.take()
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(2 * ASKED_AFTER_SECONDS)
    places.leave()
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    async with asyncio.timeout(1):
        await places.take()
