"""The application with a monitor of its event loop. GET /stall returns the longest stall since the last call, in ms."""

import asyncio
import json
import time
from pathlib import Path

from starlette.types import Receive, Scope, Send

from contacts_api.app import app as contacts

TICK_SECONDS = 0.001
longest = 0.0
tasks: set[asyncio.Task[None]] = set()


def queued() -> float:
    """Return how long this thread has waited for a core, in seconds. This time does not count as a stall."""
    _, nanoseconds, _ = Path("/proc/thread-self/schedstat").read_text().split()
    return int(nanoseconds) / 1e9


async def watch() -> None:
    global longest
    while True:
        started_at, waited = time.perf_counter(), queued()
        await asyncio.sleep(TICK_SECONDS)
        longest = max(longest, time.perf_counter() - started_at - TICK_SECONDS - (queued() - waited))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    global longest
    if scope["type"] == "lifespan":
        tasks.add(asyncio.create_task(watch()))
    if scope.get("path") != "/stall":
        await contacts(scope, receive, send)
        return
    body, longest = json.dumps(longest * 1000).encode(), 0.0
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
