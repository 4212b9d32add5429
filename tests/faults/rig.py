"""What a fault is put into, and what is found out about it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.faults.load import Load
from tests.servers import HOST, Api, Postgres

CREDENTIALS = {"email": "ada@example.com", "password": "a long enough phrase"}


@dataclass
class Rig:
    """Our PostgreSQL, our API, and what is found out about one fault: a line of the table."""

    postgres: Postgres
    api: Api
    token: str = ""
    name: str = ""
    load: Load | None = None
    figures: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowness: float = 1.0
    """How many times as long as on the machine that the limits are for a piece of work takes here and now."""

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.failures.append(what)

    def measure_work(self, what: str, value: float, limit: float, unit: str = "s") -> None:
        """Judge a time that the machine's speed decides: a slow or busy one has more."""
        self.measure(what, value, limit * self.slowness, unit)

    def measure(self, what: str, value: float, limit: float, unit: str = "s") -> None:
        self.figures.append(f"{what} {value:.2f} {unit}, ≤ {limit:.3g}")
        self.expect(value <= limit, f"{what} {value:.2f} {unit}")

    def client(self, token: str = "", max_keepalive_connections: int | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token or self.token or 'none'}"}
        limits = httpx.Limits(max_keepalive_connections=max_keepalive_connections)
        return httpx.AsyncClient(base_url=self.api.url, headers=headers, timeout=20, limits=limits)

    async def sign_in(self, email: str = CREDENTIALS["email"]) -> str:
        async with self.client() as http:
            response = await http.post("/auth/login", json={**CREDENTIALS, "email": email})
            return str(response.raise_for_status().json()["access_token"])

    async def sign_up(self, email: str) -> str:
        async with self.client() as http:
            (await http.post("/auth/register", json={**CREDENTIALS, "email": email})).raise_for_status()
        return await self.sign_in(email)

    async def send(self, head: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request over a connection of its own."""
        reader, writer = await asyncio.open_connection(HOST, self.api.port)
        writer.write(f"{head}\r\nHost: x\r\nContent-Type: application/json\r\n\r\n".encode() + body)
        return reader, writer

    @asynccontextmanager
    async def loaded(self, *, clients: int = 10, pause: float = 0.05, may_break: bool = False) -> AsyncIterator[Load]:
        name = self.name.replace(" ", "-").lower()
        self.load = Load(self.api.url, name, self.token, clients, pause, may_break)
        async with self.load.running():
            yield self.load
