"""Places limit concurrent work and the queue. One owner gets at most half, and disconnected clients get none."""

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


async def test_waiting_requests_are_served_in_order() -> None:
    places, done = Places(1, max_waiting=5, max_seconds=10), list[str]()

    await asyncio.gather(*(work(places, done, name) for name in "abcdef"))

    assert done == list("abcdef")


async def test_a_full_queue_refuses_at_once() -> None:
    places, done = Places(1, max_waiting=2, max_seconds=10), list[str]()

    answers = await asyncio.gather(*(work(places, done, name) for name in "abcde"), return_exceptions=True)

    assert done == list("abc")
    assert [type(answer) for answer in answers] == [type(None)] * 3 + [Busy] * 2


async def test_a_wait_that_times_out_leaves_the_place_to_others() -> None:
    places, done = Places(1, max_waiting=2, max_seconds=0.01), list[str]()
    async with places.place():
        with pytest.raises(Busy):
            await work(places, done, "late")

    await work(places, done, "next")

    assert done == ["next"]


async def test_disconnected_clients_are_not_served() -> None:
    places, done = Places(1, max_waiting=5, max_seconds=10), list[str]()
    gone = {"b", "c"}

    answers = await asyncio.gather(
        work(places, done, "a", seconds=2 * ASKED_AFTER_SECONDS),
        *(work(places, done, name, has_gone=name in gone) for name in "bcd"),
        return_exceptions=True,
    )

    assert done == ["a", "d"]
    assert [type(answer) for answer in answers] == [type(None), Busy, Busy, type(None)]


async def test_after_a_short_wait_a_disconnect_is_not_checked() -> None:
    places, done = Places(1, max_waiting=5, max_seconds=10), list[str]()

    await asyncio.gather(work(places, done, "a"), work(places, done, "b", has_gone=True))

    assert done == ["a", "b"]


async def test_a_refusal_is_a_503_that_says_when_to_try_again() -> None:
    answer = Busy().response(root_path="")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


class Undecided(Request):
    """A request whose check for a disconnect never returns."""

    async def is_disconnected(self) -> bool:
        await asyncio.Event().wait()
        return False


async def test_a_request_cancelled_on_getting_a_place_gives_it_back() -> None:
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
    """Run the calls, each in its own context, until each has a place, waits or is refused."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0.01)
    return tasks


async def test_one_owner_gets_at_most_half_of_the_places() -> None:
    places, release, served = Places(4, max_waiting=20, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, owner, release, served) for owner in [*[ADA] * 6, GRACE, None]))

    assert served == [ADA, ADA, GRACE, None]
    release.set()
    await asyncio.gather(*tasks)
    assert served[4:] == [ADA] * 4


async def test_one_owner_gets_at_most_half_of_the_queue() -> None:
    places, release, served = Places(2, max_waiting=4, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, owner, release, served) for owner in [*[ADA] * 5, GRACE, GRACE, None]))
    release.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in answers] == [*[type(None)] * 3, Busy, Busy, *[type(None)] * 3]
    assert served == [ADA, GRACE, ADA, GRACE, ADA, None]


async def test_requests_without_an_owner_may_use_all_places() -> None:
    places, release, served = Places(4, max_waiting=20, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, None, release, served) for _ in range(5)))

    assert len(served) == 4
    release.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("count", [1, 2])
async def test_with_one_or_two_places_an_owner_gets_one(count: int) -> None:
    places, release, served = Places(count, max_waiting=1, max_seconds=10), asyncio.Event(), list[UUID | None]()

    tasks = await start(*(ask(places, ADA, release, served) for _ in range(2)))

    assert served == [ADA]
    release.set()
    await asyncio.gather(*tasks)
    assert served == [ADA, ADA]


async def test_an_owner_who_holds_their_last_place_is_refused_another() -> None:
    places = Places(2, max_waiting=5, max_seconds=0.05)
    come_for(ADA)

    async with asyncio.timeout(5), places.place():
        with pytest.raises(Busy):
            await places.take()


async def test_a_request_cancelled_while_waiting_is_skipped() -> None:
    places, release, served = Places(1, max_waiting=5, max_seconds=10), asyncio.Event(), list[UUID | None]()
    first, cancelled, last = await start(*(ask(places, owner, release, served) for owner in (None, ADA, GRACE)))

    cancelled.cancel()
    release.set()
    await asyncio.gather(first, last)

    assert served == [None, GRACE]
