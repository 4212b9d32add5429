"""The servers that a fault is injected into, and the results of a fault."""

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
    """PostgreSQL, the API, and the results of one fault: a row of the table."""

    postgres: Postgres
    api: Api
    token: str = ""
    name: str = ""
    other_token: str = ""
    """That of another account, which does nothing but read itself."""
    load: Load | None = None
    figures: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowness: float = 1.0
    """The time of a fixed piece of work relative to the machine that the limits were set on."""

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.failures.append(what)

    def measure_work(self, what: str, value: float, limit: float, unit: str = "s") -> None:
        """Measure a time that depends on the speed of the machine. A slow or busy machine has a higher limit."""
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
        """Send a request over its own connection."""
        reader, writer = await asyncio.open_connection(HOST, self.api.port)
        writer.write(f"{head}\r\nHost: x\r\nContent-Type: application/json\r\n\r\n".encode() + body)
        return reader, writer

    @asynccontextmanager
    async def loaded(self, *, clients: int = 10, pause: float = 0.05, may_break: bool = False) -> AsyncIterator[Load]:
        name = self.name.replace(" ", "-").lower()
        self.load = Load(self.api.url, name, (self.token, self.other_token), clients, pause, may_break)
        async with self.load.running():
            yield self.load
