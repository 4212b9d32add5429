import pytest

from contacts_api.accounts.passwords import common_passwords
from tests.client import A_PASSWORD, Client

COMMONEST = ["12345678", "password", "Password1", "QWERTYUIOP", "1Q2W3E4R", "iloveyou"]


async def register(client: Client, password: str) -> tuple[int, str | None]:
    response = await client.post("/auth/register", json={"email": "ada@example.com", "password": password})
    return response.status_code, response.json().get("code")


@pytest.mark.parametrize(
    "password",
    [
        "eight ch",
        "x" * 128,
        "п" * 8,
        "🐎" * 128,
        "пароль з пробілами",
        "        ",
        "no digits nor capitals",
        "12345678a!",
    ],
)
async def test_eight_to_128_code_points_will_do_whatever_they_are(client: Client, password: str) -> None:
    assert await register(client, password) == (201, None)
    login = {"email": "ada@example.com", "password": password}
    assert (await client.post("/auth/login", json=login)).status_code == 200
    assert (await client.post("/auth/login", json={**login, "password": password[:-1]})).status_code == 401


@pytest.mark.parametrize("password", ["seven c", "x" * 129, "🐎" * 7, ""])
async def test_fewer_or_more_will_not(client: Client, password: str) -> None:
    assert await register(client, password) == (422, "validation_error")


@pytest.mark.parametrize("password", [*COMMONEST, "ada@example.com", "ADA@Example.com"])
async def test_what_is_guessed_first_will_not_either(ada: Client, client: Client, password: str) -> None:
    changes = {"current_password": A_PASSWORD, "password": password}

    assert await register(client, password) == (422, "weak_password")
    changed = await ada.patch("/users/me", json=changes)
    assert (changed.status_code, changed.json()["errors"][0]["loc"]) == (422, ["body", "password"])


def test_the_list_has_the_3000_commonest() -> None:
    assert len(common_passwords()) == 3000
    assert all(len(password) >= 8 and password == password.casefold() for password in common_passwords())
