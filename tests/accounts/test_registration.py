import asyncio
from collections.abc import Callable

import pytest

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_PASSWORD, Client
from tests.conftest import Execute, client_of


async def test_registration_returns_the_new_user(client: Client) -> None:
    response = await client.post("/auth/register", json={"email": " Ada@Example.COM ", "password": A_PASSWORD})

    user = response.json()
    assert response.status_code == 201
    assert user.keys() == {"id", "email", "is_active", "is_verified", "created_at"}
    assert (user["email"], user["is_active"]) == ("ada@example.com", True)


async def test_the_password_is_stored_only_as_an_argon2id_hash(ada: Client, execute: Execute) -> None:
    ((stored,),) = execute('SELECT "user"::text FROM "user"')

    assert "$argon2id$v=19$m=19456,t=2,p=1$" in stored
    assert A_PASSWORD not in stored


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ada@example.com", "ADA@EXAMPLE.COM"),
        ("zo\u00eb@example.com", "zoe\u0308@example.com"),
        ("ada@b\u00fccher.example.com", "ada@xn--bcher-kva.example.com"),
    ],
    ids=["case", "NFC and NFD", "IDN"],
)
async def test_different_spellings_of_an_address_share_one_account(client: Client, first: str, second: str) -> None:
    await client.sign_up(first)

    response = await client.post("/auth/register", json={"email": second, "password": A_PASSWORD})
    login = await client.post("/auth/login", json={"email": second, "password": A_PASSWORD})

    assert (response.status_code, response.json()["code"]) == (409, "email_taken")
    assert login.status_code == 200


async def test_only_one_of_many_concurrent_registrations_succeeds(client: Client) -> None:
    spellings = ["ada@example.com", "Ada@example.com", "ADA@EXAMPLE.COM"] * 4

    answers = await asyncio.gather(
        *(client.post("/auth/register", json={"email": email, "password": A_PASSWORD}) for email in spellings)
    )

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"email": "ada", "password": A_PASSWORD}, ["body", "email"]),
        ({"email": "Ada <ada@example.com>", "password": A_PASSWORD}, ["body", "email"]),
        # A mail server would send a mail for this address to x@example.com.
        ({"email": "=?utf-8?q?x?=@example.com", "password": A_PASSWORD}, ["body", "email"]),
        ({"email": "a" * 250 + "@example.com", "password": A_PASSWORD}, ["body", "email"]),
        ({"email": "ada@example.com", "password": "seven c"}, ["body", "password"]),
        ({"email": "ada@example.com", "password": "x" * 129}, ["body", "password"]),
        ({"email": "ada@example.com", "password": "eight\x00chars"}, ["body", "password"]),
        ({"email": "ada@example.com"}, ["body", "password"]),
        ({"email": None, "password": A_PASSWORD}, ["body", "email"]),
        ({"email": "ada@example.com", "password": A_PASSWORD, "is_superuser": True}, ["body", "is_superuser"]),
    ],
)
async def test_an_invalid_registration_is_a_422_that_names_the_field(
    client: Client, body: dict[str, object], loc: list[str], execute: Execute
) -> None:
    response = await client.post("/auth/register", json=body)

    assert response.status_code == 422
    assert [error["loc"] for error in response.json()["errors"]] == [loc]
    assert execute('SELECT * FROM "user"') == []


async def test_registration_can_be_closed(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(registration_open=False))

    async with app.router.lifespan_context(app), client_of(app) as client:
        response = await client.post("/auth/register", json={"email": "ada@example.com", "password": A_PASSWORD})

    assert (response.status_code, response.json()["code"]) == (403, "registration_closed")
