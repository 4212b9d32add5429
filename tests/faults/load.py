"""Clients that write, read and probe, and record every answer."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx


def contact(email: str) -> dict[str, str]:
    names = {"first_name": "Ada", "last_name": "Lovelace", "phone_number": "+44 20 7946 0000"}
    return {**names, "email": email, "date_of_birth": "1990-12-10"}


class RefusedError(Exception):
    """A missing or forbidden answer. It has been counted already."""


class Load:
    """The requests of clients during a fault, and their answers."""

    def __init__(
        self, url: str, name: str, tokens: tuple[str, str], clients: int, pause: float, may_break: bool
    ) -> None:
        """`tokens` are those of the account that works, and of one whose requests must not wait behind that work."""
        self.answers: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        # Counts the requests that start and end while the fault is active.
        self.is_on, self.during = False, Counter[str]()
        self.longest = 0.0
        self.created: set[str] = set()
        self.patched: set[str] = set()
        self.failed: set[str] = set()
        self.recovery: float | None = None
        self._token, self._other_token = tokens
        self._name, self._clients, self._pause, self._may_break = name, clients, pause, may_break
        self._path = ""
        self._is_over = False
        self._ended_at = 0.0
        self._missing: set[str] = set()
        self._numbers = itertools.count()
        self._http = httpx.AsyncClient(base_url=url, timeout=20)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self._visit(f"{self._name}.first@example.com")
        tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]
        await asyncio.sleep(1)
        try:
            yield
        finally:
            self._is_over = True
            await asyncio.gather(*tasks)
            await self._http.aclose()

    def expect_recovery(self) -> None:
        """Mark the end of the fault. A read and a write must succeed soon afterwards."""
        self._ended_at, self._missing = time.monotonic(), {"read", "write"}

    async def _run(self) -> None:
        while not self._is_over:
            with suppress(RefusedError):
                await self._visit(f"{self._name}.{next(self._numbers)}@example.com")
            await asyncio.sleep(self._pause)

    async def _visit(self, email: str) -> None:
        await self._call("probe", "POST", "/contacts", {401}, token="ey.no.token", json={})
        await self._call("probe", "POST", "/contacts", {422}, json={"first_name": 1})
        await self._call("probe", "GET", "/health/live", {200})
        await self._call("ready", "GET", "/health/ready", {200, 503})
        await self._call("me", "GET", "/users/me", {200, 503}, token=self._other_token)
        await self._call("read", "GET", "/contacts?limit=5", {200, 503})
        self.failed.add(email)
        created = await self._call("write", "POST", "/contacts", {201, 503}, json=contact(email))
        if created:
            self.failed.discard(email)
            self.created.add(email)
            self._path = path = f"/contacts/{created['id']}"
            await self._call("read", "GET", path, {200, 503})
            if await self._call("write", "PATCH", path, {200, 503}, json={"additional_info": "patched"}):
                self.patched.add(email)
        # This is a 503 if the connection is lost while the contact is locked.
        await self._call("probe", "PATCH", self._path, {422, 503}, json={"email": "none"})

    async def _call(self, kind: str, method: str, path: str, right: set[int], token: str = "", **body: Any) -> Any:
        """Return the JSON of a success, or None on a 503. Raises RefusedError."""
        was_on, started_at = self.is_on, time.monotonic()
        headers = {"Authorization": f"Bearer {token or self._token}"}
        response, answer = None, "none"
        with suppress(httpx.TransportError):
            response = await self._http.request(method, path, headers=headers, **body)
            answer = str(response.status_code)
        now = time.monotonic()
        self.longest = max(self.longest, now - started_at)
        self.answers[answer] += 1
        if was_on and self.is_on:
            self.during[f"{kind} {answer}"] += 1
        if response is None and self._may_break:
            raise RefusedError
        is_right = response is not None and response.status_code in right
        if response is None or not is_right or (answer == "503" and "Retry-After" not in response.headers):
            self.wrong[f"{method} {path[:9]}: {answer}"] += 1
            raise RefusedError
        if not response.is_success:
            return None
        if kind in self._missing:
            self._missing.discard(kind)
            self.recovery = None if self._missing else now - self._ended_at
        return response.json()
