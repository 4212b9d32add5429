import asyncio
from collections.abc import Callable
from contextlib import suppress

from contacts_api.app import create_app, end
from contacts_api.settings import Settings
from tests.client import A_CONTACT
from tests.conftest import Execute, client_of


async def test_every_link_starts_with_the_root_path(make_settings: Callable[..., Settings], execute: Execute) -> None:
    app = create_app(make_settings(root_path="/api"))

    async with app.router.lifespan_context(app), client_of(app) as client:
        await client.sign_up("ada@example.com")
        created = await client.post("/contacts", json=A_CONTACT)
        await client.create_contact()
        listed = await client.get("/contacts?limit=1")
        start = await client.get("/")
        unstripped = await client.get("/api/contacts")

    assert created.headers["location"].startswith("/api/contacts/")
    assert listed.headers["link"].startswith("</api/contacts?limit=1&cursor=")
    assert start.headers["location"] == "/api/docs"
    assert unstripped.status_code == 200
    assert app.openapi()["servers"][0]["url"] == "/api"


async def test_a_task_that_ignores_its_first_cancellation_does_not_block_shutdown() -> None:
    async def work() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end([task])

    assert task.cancelled()
