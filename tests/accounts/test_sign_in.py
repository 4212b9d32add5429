import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import psycopg2
import pytest
from fastapi import FastAPI
from pwdlib.hashers.argon2 import Argon2Hasher

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_PASSWORD, Client, Clock
from tests.conftest import SECRET, Execute, client_of


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


async def test_signing_in_returns_a_pair_of_tokens(ada: Client) -> None:
    response = await ada.post("/auth/login", json={"email": "ADA@example.com", "password": A_PASSWORD})

    pair = response.json()
    access, refresh = claims_of(pair["access_token"]), claims_of(pair["refresh_token"])
    assert response.headers["cache-control"] == "no-store"
    assert (pair["token_type"], pair["expires_in"]) == ("bearer", 900)
    assert access.keys() == {"sub", "sid", "aud", "iat", "exp"}
    assert refresh.keys() == access.keys() | {"seq"}
    assert (access["aud"], refresh["aud"]) == ("contacts:access", "contacts:refresh")
    assert (access["exp"] - access["iat"], refresh["exp"] - refresh["iat"]) == (15 * 60, 14 * 24 * 3600)
    assert access["sid"] == refresh["sid"] != claims_of(ada.tokens["access_token"])["sid"]


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ada@example.com", "wrong horse battery staple"),
        ("ada@example.com", A_PASSWORD[:-1]),
        ("ada@example.com", "short"),
        ("ada@example.com", A_PASSWORD + "\x00"),
        ("nobody@example.com", A_PASSWORD),
        ("no address", A_PASSWORD),
        ("ada@example.com\x00", A_PASSWORD),
        ("", ""),
    ],
)
async def test_all_wrong_credentials_get_the_same_answer(ada: Client, email: str, password: str) -> None:
    response = await ada.post("/auth/login", json={"email": email, "password": password})
    form = await ada.post("/auth/token", data={"grant_type": "password", "username": email, "password": password})

    problem = response.json()
    assert response.status_code == form.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert problem == {
        "type": "/docs/errors#bad_credentials",
        "title": "The e-mail address or the password is wrong",
        "status": 401,
        "detail": "The e-mail address or the password is wrong.",
        "code": "bad_credentials",
    }
    assert form.json() == problem | {"error": "invalid_grant", "error_description": problem["detail"]}


async def test_a_deactivated_user_answers_like_an_unknown_one(ada: Client, execute: Execute) -> None:
    unknown = await ada.post("/auth/login", json={"email": "nobody@example.com", "password": A_PASSWORD})
    execute('UPDATE "user" SET is_active = false')

    response = await ada.post("/auth/login", json={"email": "ada@example.com", "password": A_PASSWORD})

    assert (response.status_code, response.content) == (401, unknown.content)


async def test_signing_in_upgrades_a_weak_hash(ada: Client, execute: Execute) -> None:
    weak = Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1).hash(A_PASSWORD)
    execute('UPDATE "user" SET hashed_password = %s', weak)

    await ada.sign_in()

    ((stored,),) = execute('SELECT hashed_password FROM "user"')
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await ada.sign_in()


async def test_signing_in_succeeds_if_the_hash_cannot_be_upgraded(
    ada: Client, execute: Execute, database_url: str
) -> None:
    weak = Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1).hash(A_PASSWORD)
    execute('UPDATE "user" SET hashed_password = %s', weak)

    with closing(psycopg2.connect(database_url)) as other:
        other.cursor().execute('SELECT 1 FROM "user" FOR NO KEY UPDATE')
        await ada.sign_in()

    assert execute('SELECT hashed_password FROM "user"') == [(weak,)]


async def test_a_form_with_other_oauth_parameters_signs_in(ada: Client) -> None:
    form = {"grant_type": "password", "username": "ada@example.com", "password": A_PASSWORD}
    form |= {"scope": "contacts", "client_id": "swagger", "client_secret": "none", "audience": "unknown"}

    response = await ada.post("/auth/token", data=form, headers={"Authorization": "Basic c3dhZ2dlcjpub25l"})

    assert response.status_code == 200
    ada.use(response.json())
    assert (await ada.get("/users/me")).status_code == 200


@pytest.mark.parametrize(
    ("form", "error"),
    [({}, "invalid_request"), ({"grant_type": "client_credentials"}, "unsupported_grant_type")],
)
async def test_a_malformed_form_is_an_oauth_error(client: Client, form: dict[str, str], error: str) -> None:
    response = await client.post("/auth/token", data=form)

    assert (response.status_code, response.json()["error"]) == (422, error)


@pytest.mark.parametrize(
    ("form", "missing"),
    [
        ({"grant_type": "password"}, ["username", "password"]),
        ({"grant_type": "password", "username": "ada@example.com"}, ["password"]),
        ({"grant_type": "password", "password": A_PASSWORD, "scope": "contacts"}, ["username"]),
        ({"grant_type": "refresh_token"}, ["refresh_token"]),
        ({"grant_type": "refresh_token", "username": "ada@example.com", "password": A_PASSWORD}, ["refresh_token"]),
    ],
)
async def test_missing_parameters_of_a_grant_are_named(
    client: Client, form: dict[str, str], missing: list[str]
) -> None:
    response = await client.post("/auth/token", data=form)

    problem = response.json()
    assert (response.status_code, problem["code"], problem["error"]) == (422, "validation_error", "invalid_request")
    assert problem["errors"] == [
        {"loc": ["body", name], "code": "missing", "detail": "Is required."} for name in missing
    ]


async def test_an_empty_refresh_token_in_a_form_is_an_invalid_grant(client: Client) -> None:
    response = await client.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": ""})

    assert (response.status_code, response.json()["error"]) == (401, "invalid_grant")


async def test_a_401_distinguishes_a_missing_token_from_an_invalid_one(ada: Client, client: Client) -> None:
    wrong = ["x", "", ada.tokens["refresh_token"], "ck_x"]

    without = await client.get("/contacts")
    answers = [await client.get("/contacts", headers={"Authorization": f"Bearer {token}"}) for token in wrong]

    assert (without.status_code, without.headers["www-authenticate"]) == (401, "Bearer")
    assert {(each.status_code, each.headers["www-authenticate"]) for each in answers} == {
        (401, 'Bearer error="invalid_token"')
    }


async def test_json_is_not_a_form(client: Client) -> None:
    response = await client.post("/auth/token", json={"grant_type": "password"})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "application/x-www-form-urlencoded" in response.json()["detail"]


def sign(key: str = SECRET, algorithm: str = "HS256", headers: Any = None, **changes: Any) -> str:
    now = int(datetime.now(UTC).timestamp())
    claims = {"sub": str(uuid4()), "sid": str(uuid4()), "aud": "contacts:access", "iat": now, "exp": now + 900}
    present = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(present, key, algorithm, headers)


FORGED = {
    "no JWT": lambda: "rubbish",
    "alg none": lambda: sign("", "none"),
    "another HMAC": lambda: sign(SECRET * 2, "HS512"),
    "another key": lambda: sign("another secret that is long enough too"),
    "refresh token": lambda: sign(aud="contacts:refresh", seq=0),
    "no aud": lambda: sign(aud=None),
    "wrong aud": lambda: sign(aud="fastapi-users:auth"),
    "no exp": lambda: sign(exp=None),
    "exp as text": lambda: sign(exp="tomorrow"),
    "no sub": lambda: sign(sub=None),
    "no sid": lambda: sign(sid=None),
    "sub no UUID": lambda: sign(sub="ada"),
    "sid no UUID": lambda: sign(sid="1"),
    "expired": lambda: sign(exp=int(datetime.now(UTC).timestamp()) - 31),
    "unknown crit": lambda: sign(headers={"crit": ["b64x"], "b64x": True}),
    "100 kB": lambda: sign(padding="x" * 100_000),
    "empty": lambda: "",
}


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_token_is_a_401(client: Client, forge: Callable[[], str]) -> None:
    response = await client.get("/users/me", headers={"Authorization": f"Bearer {forge()}"})

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


# Values that JSON, as Python writes and reads it, can hold, but no valid claim has.
ODD = [float("inf"), float("nan"), 1e308, 0.5, 2**70, 10**400, -1, "1", True, [], {}]


@pytest.mark.parametrize("claim", ["sub", "sid", "aud", "iat", "exp", "seq"])
async def test_an_unreadable_claim_is_a_401(ada: Client, claim: str) -> None:
    access, refresh = (
        jwt.decode(ada.tokens[f"{kind}_token"], options={"verify_signature": False}) for kind in ("access", "refresh")
    )
    for odd in ODD:
        opened = jwt.encode({**access, claim: odd}, SECRET, "HS256")
        rotated = jwt.encode({**refresh, claim: odd}, SECRET, "HS256")

        answers = [
            await ada.get("/contacts", headers={"Authorization": f"Bearer {opened}"}),
            await ada.post("/auth/refresh", json={"refresh_token": rotated}),
        ]

        assert [answer.status_code for answer in answers] == [401, 401], odd


async def test_the_current_lifetime_setting_applies_to_older_access_tokens(
    ada: Client, make_settings: Callable[..., Settings], execute: Execute
) -> None:
    """Otherwise, after the setting is lowered, an older token would outlive the record that its session has ended."""
    clock = Clock()
    app = create_app(make_settings(access_token_seconds=60), clock)
    async with app.router.lifespan_context(app), client_of(app) as client:
        client.use(ada.tokens)
        before = (await client.get("/contacts")).status_code
        clock.now = datetime.now(UTC) + timedelta(seconds=60 + 31)
        after = (await client.get("/contacts")).status_code

    assert (before, after) == (200, 401)


async def test_access_and_refresh_tokens_are_not_interchangeable(ada: Client) -> None:
    refreshed = await ada.post("/auth/refresh", json={"refresh_token": ada.tokens["access_token"]})
    called = await ada.get("/users/me", headers={"Authorization": f"Bearer {ada.tokens['refresh_token']}"})

    assert (refreshed.status_code, refreshed.json()["code"]) == (401, "invalid_refresh_token")
    assert called.status_code == 401


@pytest.mark.parametrize(("seconds", "status"), [(-30, 200), (900, 200), (900 + 28, 200), (900 + 31, 401)])
async def test_an_access_token_expires_with_a_leeway_for_clocks(
    ada: Client, clock: Clock, seconds: int, status: int
) -> None:
    clock.now = datetime.now(UTC) + timedelta(seconds=seconds)

    assert (await ada.get("/contacts")).status_code == status


async def test_without_a_token_every_secured_operation_is_a_401(client: Client, app: FastAPI) -> None:
    secured = [
        (method, re.sub(r"{\w+_id}", str(uuid4()), path))
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "security" in operation
    ]

    answers = {call: await client.request(*call, headers={"Content-Type": "application/json"}) for call in secured}

    assert len(secured) >= 14
    assert {answer.status_code for answer in answers.values()} == {401}
    assert {answer.json()["code"] for answer in answers.values()} == {"not_authenticated"}


async def test_lifetimes_are_settings(ada: Client, make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(access_token_seconds=60, refresh_token_seconds=120, session_seconds=90))

    async with app.router.lifespan_context(app), client_of(app) as client:
        client.email = ada.email
        pair = (await client.sign_in()).tokens

    refresh = claims_of(pair["refresh_token"])
    assert (pair["expires_in"], refresh["exp"] - refresh["iat"]) == (60, 90)
