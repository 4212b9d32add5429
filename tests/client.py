"""An HTTP client for the API that can sign up, sign in and create contacts."""

from datetime import UTC, datetime
from typing import Any

import httpx

A_PASSWORD = "correct horse battery staple"
A_CONTACT = {
    "first_name": "Grace",
    "last_name": "Hopper",
    "email": "grace@example.com",
    "phone_number": "+1 (202) 555-0143",
    "date_of_birth": "1906-12-09",
    "additional_info": None,
}


class Client(httpx.AsyncClient):
    """A client that keeps its tokens. The fixtures `ada` and `grace` are two of these."""

    email = ""
    tokens: dict[str, Any]

    async def sign_up(self, email: str) -> "Client":
        response = await self.post("/auth/register", json={"email": email, "password": A_PASSWORD})
        assert response.status_code == 201, response.text
        self.email = email
        return await self.sign_in()

    async def sign_in(self) -> "Client":
        response = await self.post("/auth/login", json={"email": self.email, "password": A_PASSWORD})
        assert response.status_code == 200, response.text
        self.use(response.json())
        return self

    def use(self, tokens: dict[str, Any]) -> None:
        self.tokens = tokens
        self.headers["Authorization"] = f"Bearer {tokens['access_token']}"

    async def create_contact(self, **fields: Any) -> dict[str, Any]:
        response = await self.post("/contacts", json={**A_CONTACT, **fields})
        assert response.status_code == 201, response.text
        return dict(response.json())

    async def create_contacts(self, contacts: list[dict[str, Any]]) -> None:
        response = await self.post("/contacts/batch", json={"items": [{**A_CONTACT, **fields} for fields in contacts]})
        assert response.status_code == 201, response.text

    async def list_contacts(self, **query: Any) -> list[dict[str, Any]]:
        response = await self.get("/contacts", params=query)
        assert response.status_code == 200, response.text
        return list(response.json()["items"])

    async def first_names(self, **query: Any) -> list[str]:
        return [contact["first_name"] for contact in await self.list_contacts(**query)]


class Clock:
    """The application's clock. It returns the current time unless a test sets `now`."""

    now: datetime | None = None

    def __call__(self) -> datetime:
        return self.now or datetime.now(UTC)
