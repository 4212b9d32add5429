"""Places: a limited number at work and waiting, at most half of them for one owner, and none for lost clients."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.requests import Request

from contacts_api.database.waiting import ASKED_AFTER_SECONDS, Places, act_for, has_come
from contacts_api.problems import Busy


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
    owner = await places.take()
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(2 * ASKED_AFTER_SECONDS)
    places.leave(owner)
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    async with asyncio.timeout(1):
        await places.take()


ADA, GRACE = uuid4(), uuid4()


def come_for(owner: UUID | None) -> None:
    come = request(has_gone=False)
    if owner:
        act_for(come, owner)
    has_come(come)


async def ask(places: Places, owner: UUID | None, release: asyncio.Event, served: list[UUID | None]) -> None:
    come_for(owner)
    async with places.place():
        served.append(owner)
        await release.wait()


async def start(*calls: Any) -> list[asyncio.Task[None]]:
    """Run the calls, each in a context of its own, until all of them have a place, wait or are refused."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0.01)
    return tasks


async def test_one_owner_has_half_of_the_places_and_leaves_the_rest_to_others() -> None:
    places, release, served = Places(4, max_waiting=20, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, owner, release, served) for owner in [*[ADA] * 6, GRACE, None]))

    assert served == [ADA, ADA, GRACE, None]
    release.set()
    await asyncio.gather(*tasks)
    assert served[4:] == [ADA] * 4


async def test_one_owner_has_half_of_the_queue_and_only_they_are_refused() -> None:
    places, release, served = Places(2, max_waiting=4, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, owner, release, served) for owner in [*[ADA] * 5, GRACE, GRACE, None]))
    release.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in answers] == [*[type(None)] * 3, Busy, Busy, *[type(None)] * 3]
    assert served == [ADA, GRACE, ADA, GRACE, ADA, None]


async def test_those_without_an_owner_may_have_all_places() -> None:
    places, release, served = Places(4, max_waiting=20, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, None, release, served) for _ in range(5)))

    assert len(served) == 4
    release.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("count", [1, 2])
async def test_of_one_or_two_places_an_owner_has_one(count: int) -> None:
    places, release, served = Places(count, max_waiting=1, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, ADA, release, served) for _ in range(2)))

    assert served == [ADA]
    release.set()
    await asyncio.gather(*tasks)
    assert served == [ADA, ADA]


async def test_who_holds_the_last_place_of_their_half_and_asks_for_another_is_refused_in_time() -> None:
    places = Places(2, max_waiting=5, max_seconds=0.05)
    come_for(ADA)

    async with asyncio.timeout(5), places.place():
        with pytest.raises(Busy):
            await places.take()


async def test_who_is_cancelled_while_waiting_leaves_the_turn_to_the_next() -> None:
    places, release, served = Places(1, max_waiting=5, max_seconds=10), asyncio.Event(), list[UUID | None]()
    first, cancelled, last = await start(*(ask(places, owner, release, served) for owner in (None, ADA, GRACE)))

    cancelled.cancel()
    release.set()
    await asyncio.gather(first, last)

    assert served == [None, GRACE]
