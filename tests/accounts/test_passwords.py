import time
import unicodedata
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from pwdlib.hashers.argon2 import Argon2Hasher

from contacts_api.accounts.passwords import common_passwords
from tests.client import A_PASSWORD, Client
from tests.conftest import Execute

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
async def test_any_8_to_128_code_points_are_accepted(client: Client, password: str) -> None:
    assert await register(client, password) == (201, None)
    login = {"email": "ada@example.com", "password": password}
    assert (await client.post("/auth/login", json=login)).status_code == 200
    assert (await client.post("/auth/login", json={**login, "password": password[:-1]})).status_code == 401


@pytest.mark.parametrize("password", ["seven c", "x" * 129, "🐎" * 7, ""])
async def test_fewer_or_more_code_points_are_refused(client: Client, password: str) -> None:
    assert await register(client, password) == (422, "validation_error")


@pytest.mark.parametrize("password", [*COMMONEST, "ada@example.com", "ADA@Example.com"])
async def test_common_passwords_and_the_address_are_refused(ada: Client, client: Client, password: str) -> None:
    changes = {"current_password": A_PASSWORD, "password": password}

    assert await register(client, password) == (422, "weak_password")
    changed = await ada.patch("/users/me", json=changes)
    assert (changed.status_code, changed.json()["errors"][0]["loc"]) == (422, ["body", "password"])


def test_the_list_has_3000_common_passwords() -> None:
    assert len(common_passwords()) == 3000
    assert all(len(password) >= 8 and password == password.casefold() for password in common_passwords())


COMPOSED = "pässwörter für Zoé"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
# Composed characters, and what other keyboards send for the same text.
PAIRS = [
    (COMPOSED, DECOMPOSED),
    (unicodedata.normalize("NFC", "비밀번호는 길어야 해"), unicodedata.normalize("NFD", "비밀번호는 길어야 해")),
    ("Ångström units", "\u212bngstr\u00f6m units"),
    ("ệ" * 128, "e\u0302\u0323" * 128),
]


async def sign_in(client: Client, password: str, email: str = "ada@example.com") -> int:
    return (await client.post("/auth/login", json={"email": email, "password": password})).status_code


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("registered", [0, 1])
async def test_a_password_works_in_composed_and_decomposed_form(
    client: Client, pair: tuple[str, str], registered: int
) -> None:
    assert await register(client, pair[registered]) == (201, None)

    form = {"grant_type": "password", "username": "ada@example.com"}
    assert [await sign_in(client, password) for password in pair] == [200, 200]
    assert [(await client.post("/auth/token", data={**form, "password": each})).status_code for each in pair] == [
        200
    ] * 2


@pytest.mark.parametrize(
    ("password", "other"),
    [
        ("ﬁne long phrase", "fine long phrase"),
        ("long phrase ２", "long phrase 2"),
        ("ſafe long phrase", "safe long phrase"),
    ],
)
async def test_compatibility_characters_are_not_folded(client: Client, password: str, other: str) -> None:
    assert await register(client, password) == (201, None)

    assert [await sign_in(client, each) for each in (password, other)] == [200, 401]


async def test_passwords_are_composed_wherever_they_are_set(client: Client, app: FastAPI) -> None:
    users = app.state.users
    await register(client, A_PASSWORD)
    await users.set_password(await users.find("ada@example.com"), DECOMPOSED)
    client.email = "ada@example.com"
    login = await client.post("/auth/login", json={"email": client.email, "password": COMPOSED})
    client.use(login.json())

    changed = await client.patch("/users/me", json={"current_password": DECOMPOSED, "password": f"{DECOMPOSED} 2"})
    token = await users.token_for(SimpleNamespace(purpose="reset", address=client.email))
    signed_in = await sign_in(client, f"{COMPOSED} 2")
    reset = await client.post("/auth/reset-password", json={"token": token, "password": f"{DECOMPOSED} 3"})

    assert (login.status_code, changed.status_code, signed_in, reset.status_code) == (200, 200, 200, 204)
    assert await sign_in(client, f"{COMPOSED} 3") == 200


@pytest.mark.parametrize("count", [7, 129])
async def test_the_length_limits_apply_to_the_composed_form(client: Client, count: int) -> None:
    assert await register(client, "e\u0302\u0323" * count) == (422, "validation_error")


async def test_an_old_hash_of_a_decomposed_password_still_works(ada: Client, client: Client, execute: Execute) -> None:
    old = Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(DECOMPOSED)
    execute('UPDATE "user" SET hashed_password = %s', old)

    changed = await ada.patch("/users/me", json={"current_password": DECOMPOSED, "email": "ada.l@example.com"})
    before = await sign_in(client, COMPOSED, "ada.l@example.com")
    signed_in = await sign_in(client, DECOMPOSED, "ada.l@example.com")
    # The sign-in has replaced the hash with that of the composed form.
    after = await sign_in(client, COMPOSED, "ada.l@example.com")

    assert (changed.status_code, before, signed_in, after) == (200, 401, 200, 200)
    assert execute('SELECT hashed_password FROM "user"') != [(old,)]


async def test_a_long_run_of_combining_marks_is_not_normalized(client: Client) -> None:
    """Normalizing 60 kB of marks takes seconds, because it is quadratic. A whole body may be such a password."""
    marks = "a" + "\u0301\u0327" * 14_000
    started_at = time.perf_counter()
    plain = await sign_in(client, "a" * len(marks))
    plain_seconds = time.perf_counter() - started_at

    started_at = time.perf_counter()
    answers = [await sign_in(client, marks), (await register(client, marks))[0]]

    assert (plain, answers) == (401, [401, 422])
    assert time.perf_counter() - started_at < 5 * plain_seconds + 0.5
