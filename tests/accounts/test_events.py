"""The log of security events: each event is one line, with ids and no secrets."""

import json
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest
from fastapi import FastAPI

from contacts_api.app import create_app
from contacts_api.runtime import JsonFormatter
from contacts_api.settings import Settings
from tests.cli.test_command_line import Start, command, start, stop
from tests.client import A_PASSWORD, Client
from tests.conftest import SECRET, Execute, client_of
from tests.servers import free_port

__all__ = ["start"]

ANOTHER_PASSWORD = "another long phrase"
ANOTHER_ADDRESS = "ada.l@example.com"
WRONG = "a wrong phrase"
ORIGIN = {"client": "203.0.113.9", "request_id": "a-request"}


class Log:
    """The output of the event logger since the last read."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.text = ""

    def records(self) -> list[logging.LogRecord]:
        found = [record for record in self._caplog.records if record.name == "contacts_api.security"]
        self._caplog.clear()
        self.text += "".join(map(JsonFormatter().format, found))
        return found

    def events(self) -> list[dict[str, Any]]:
        """Return the members of each event as the JSON format writes them."""
        lines = [json.loads(JsonFormatter().format(record)) for record in self.records()]
        return [{name: line[name] for name in line if name not in JSON_MEMBERS} for line in lines]


JSON_MEMBERS = {"time", "level", "logger", "message"}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.INFO, "contacts_api.security")
    return Log(caplog)


def session_of(client: Client) -> str:
    return str(jwt.decode(client.tokens["access_token"], options={"verify_signature": False})["sid"])


async def mailed(app: FastAPI, purpose: str) -> str:
    return str(await app.state.users.token_for(SimpleNamespace(purpose=purpose, address="ada@example.com")))


Change = Callable[[Client, FastAPI], Awaitable[dict[str, Any]]]


async def sign_in(ada: Client, app: FastAPI) -> dict[str, Any]:
    await ada.sign_in()
    return {"event": "signed_in", "session_id": session_of(ada)}


async def sign_in_by_form(ada: Client, app: FastAPI) -> dict[str, Any]:
    form = {"grant_type": "password", "username": ada.email, "password": A_PASSWORD}
    ada.use((await ada.post("/auth/token", data=form)).json())
    return {"event": "signed_in", "session_id": session_of(ada)}


async def sign_in_wrongly(ada: Client, app: FastAPI) -> dict[str, Any]:
    assert (await ada.post("/auth/login", json={"email": ada.email, "password": WRONG})).status_code == 401
    return {"event": "sign_in_refused"}


async def sign_in_wrongly_by_form(ada: Client, app: FastAPI) -> dict[str, Any]:
    form = {"grant_type": "password", "username": ada.email, "password": WRONG}
    assert (await ada.post("/auth/token", data=form)).status_code == 401
    return {"event": "sign_in_refused"}


async def give_a_wrong_current_password(ada: Client, app: FastAPI) -> dict[str, Any]:
    assert (await ada.post("/users/me/delete", json={"current_password": WRONG})).status_code == 403
    return {"event": "sign_in_refused"}


async def reuse_a_refresh_token(ada: Client, app: FastAPI) -> dict[str, Any]:
    old = {"refresh_token": ada.tokens["refresh_token"]}
    ada.tokens = (await ada.post("/auth/refresh", json=old)).json()
    ada.tokens = (await ada.post("/auth/refresh", json={"refresh_token": ada.tokens["refresh_token"]})).json()
    assert (await ada.post("/auth/refresh", json=old)).status_code == 401
    return {"event": "refresh_token_reused", "session_id": session_of(ada)}


async def sign_out(ada: Client, app: FastAPI) -> dict[str, Any]:
    await ada.post("/auth/logout")
    return {"event": "signed_out", "session_id": session_of(ada)}


async def sign_out_by_refresh_token(ada: Client, app: FastAPI) -> dict[str, Any]:
    # The second call ends nothing and logs no event.
    for _ in range(2):
        body = {"refresh_token": ada.tokens["refresh_token"]}
        assert (await ada.post("/auth/logout", json=body)).status_code == 204
    return {"event": "signed_out", "session_id": session_of(ada)}


async def end_a_session(ada: Client, app: FastAPI) -> dict[str, Any]:
    await ada.delete(f"/auth/sessions/{session_of(ada)}")
    return {"event": "sessions_ended", "session_id": session_of(ada)}


async def end_all_sessions(ada: Client, app: FastAPI) -> dict[str, Any]:
    await ada.delete("/auth/sessions")
    return {"event": "sessions_ended"}


async def change_the_password(ada: Client, app: FastAPI) -> dict[str, Any]:
    await ada.patch("/users/me", json={"current_password": A_PASSWORD, "password": ANOTHER_PASSWORD})
    return {"event": "password_changed", "session_id": session_of(ada)}


async def change_the_address(ada: Client, app: FastAPI) -> dict[str, Any]:
    await ada.patch("/users/me", json={"current_password": A_PASSWORD, "email": ANOTHER_ADDRESS})
    return {"event": "address_changed", "session_id": session_of(ada)}


async def reset_the_password(ada: Client, app: FastAPI) -> dict[str, Any]:
    body = {"token": await mailed(app, "reset"), "password": ANOTHER_PASSWORD}
    assert (await ada.post("/auth/reset-password", json=body)).status_code == 204
    return {"event": "password_reset"}


async def verify_the_address(ada: Client, app: FastAPI) -> dict[str, Any]:
    assert (await ada.post("/auth/verify", json={"token": await mailed(app, "verify")})).status_code == 200
    return {"event": "address_verified"}


async def make_a_key(ada: Client, app: FastAPI) -> dict[str, Any]:
    made = (await ada.post("/auth/keys", json={"name": "Newsletter", "scope": "read"})).json()
    ada.tokens["key"] = made["key"]
    return {"event": "key_made", "key_id": made["id"]}


async def delete_the_account(ada: Client, app: FastAPI) -> dict[str, Any]:
    await ada.post("/users/me/delete", json={"current_password": A_PASSWORD})
    return {"event": "account_deleted"}


CHANGES: list[Change] = [
    sign_in,
    sign_in_by_form,
    sign_in_wrongly,
    sign_in_wrongly_by_form,
    give_a_wrong_current_password,
    reuse_a_refresh_token,
    sign_out,
    sign_out_by_refresh_token,
    end_a_session,
    end_all_sessions,
    change_the_password,
    change_the_address,
    reset_the_password,
    verify_the_address,
    make_a_key,
    delete_the_account,
]


@pytest.fixture
async def ada_of_log(ada: Client, app: FastAPI, log: Log, execute: Execute) -> Any:
    """Ada at another client address, with a request id."""
    transport = httpx.ASGITransport(app, client=(ORIGIN["client"], 1234))
    headers = {"X-Request-ID": ORIGIN["request_id"]}
    async with Client(transport=transport, base_url="http://testserver", headers=headers) as client:
        client.email = ada.email
        client.use(ada.tokens)
        log.records()
        yield client


@pytest.mark.parametrize("change", CHANGES)
async def test_each_event_is_one_line_with_its_ids(
    ada_of_log: Client, app: FastAPI, log: Log, execute: Execute, change: Change
) -> None:
    ((user_id,),) = execute('SELECT id::text FROM "user"')

    expected = await change(ada_of_log, app)

    assert log.events() == [{**expected, "user_id": user_id, **ORIGIN}]
    tokens = [ada_of_log.tokens[name] for name in ("access_token", "refresh_token", "key") if name in ada_of_log.tokens]
    secrets = [A_PASSWORD, ANOTHER_PASSWORD, WRONG, "example.com", *tokens]
    assert [secret for secret in secrets if secret in log.text] == []


async def test_registering_and_deleting_a_key_are_events(
    client: Client, app: FastAPI, log: Log, execute: Execute
) -> None:
    await client.sign_up("ada@example.com")
    registered, _ = log.events()
    made = (await client.post("/auth/keys", json={"name": "Newsletter", "scope": "read"})).json()
    log.records()
    await client.delete(f"/auth/keys/{made['id']}")
    await client.delete(f"/auth/keys/{made['id']}")

    (deleted,) = log.events()
    ((user_id,),) = execute('SELECT id::text FROM "user"')
    assert (registered["event"], registered["user_id"]) == ("registered", user_id)
    assert (deleted["event"], deleted["user_id"], deleted["key_id"]) == ("key_deleted", user_id, made["id"])


async def test_a_refused_sign_in_names_the_account_if_there_is_one(
    ada_of_log: Client, log: Log, execute: Execute
) -> None:
    ((user_id,),) = execute('SELECT id::text FROM "user"')
    for email in "nobody@example.com", "no address":
        await ada_of_log.post("/auth/login", json={"email": email, "password": A_PASSWORD})
    of_nobody = log.events()
    statuses = [
        (await ada_of_log.post("/auth/login", json={"email": ada_of_log.email, "password": WRONG})).status_code
        for _ in range(11)
    ]

    assert of_nobody == [{"event": "sign_in_refused", **ORIGIN}] * 2
    assert statuses == [401] * 10 + [429]
    assert log.events() == [{"event": "sign_in_refused", "user_id": user_id, **ORIGIN}] * 11


async def test_a_sign_in_to_an_account_that_is_not_verified_or_not_active_is_refused(
    ada_of_log: Client, app: FastAPI, log: Log, execute: Execute, make_settings: Callable[..., Settings]
) -> None:
    execute('UPDATE "user" SET is_active = false')
    await ada_of_log.post("/auth/login", json={"email": ada_of_log.email, "password": A_PASSWORD})
    execute('UPDATE "user" SET is_active = true')
    strict = create_app(make_settings(require_verification=True))
    async with strict.router.lifespan_context(strict), client_of(strict) as client:
        refused = await client.post("/auth/login", json={"email": ada_of_log.email, "password": A_PASSWORD})

    assert refused.status_code == 403
    assert [event["event"] for event in log.events()] == ["sign_in_refused"] * 2


async def test_a_session_ended_by_the_limit_is_an_event(ada: Client, log: Log, execute: Execute) -> None:
    execute("""
        INSERT INTO auth_session (user_id, id, seq, created_at, expires_at)
        SELECT id, gen_random_uuid(), 0, now() - n * interval '1 minute', now() + interval '1 day'
        FROM "user", generate_series(1, 99) AS n
    """)
    ((oldest,),) = execute("SELECT id::text FROM auth_session ORDER BY created_at LIMIT 1")
    log.records()

    await ada.sign_in()

    signed_in, ended = log.events()
    assert (signed_in["event"], signed_in["session_id"]) == ("signed_in", session_of(ada))
    assert (ended["event"], ended["session_id"]) == ("sessions_ended", oldest)


async def test_the_text_format_has_the_same_members(ada_of_log: Client, log: Log, execute: Execute) -> None:
    ((user_id,),) = execute('SELECT id::text FROM "user"')

    await ada_of_log.sign_in()

    (record,) = log.records()
    assert (record.levelname, record.getMessage()) == (
        "INFO",
        f"signed_in user_id={user_id} session_id={session_of(ada_of_log)} client=203.0.113.9 request_id=a-request",
    )


@pytest.mark.parametrize(
    ("forwarded", "logged"),
    [
        ("2001:db8::1", "2001:db8::1"),
        ("x\nevent=signed_in user_id=1", "x?event?signed_in?user_id?1"),
        ('1.2.3.4", "event": "é', "1.2.3.4????event?:???"),
        ("x" * 10_000, "x" * 64),
        ("", None),
    ],
)
async def test_a_forwarded_address_cannot_forge_a_line(
    app: FastAPI, log: Log, forwarded: str, logged: str | None
) -> None:
    transport = httpx.ASGITransport(app, client=(forwarded, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        await client.post("/auth/login", json={"email": "no address", "password": WRONG})

    (event,) = log.events()
    assert event.get("client") == logged


def lines_of(stderr: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"] == "contacts_api.security"]


def test_commands_log_events_without_a_client(database_url: str, execute: Execute) -> None:
    settings = {"DATABASE_URL": database_url, "LOG_FORMAT": "json"}
    runs = [
        command("add-user", "ada@example.com", stdin=f"{A_PASSWORD}\n", **settings),
        command("set-password", "ada@example.com", stdin=f"{ANOTHER_PASSWORD}\n", **settings),
        command("deactivate", "ada@example.com", **settings),
        command("activate", "ada@example.com", **settings),
    ]

    ((user_id,),) = execute('SELECT id::text FROM "user"')
    assert [run.returncode for run in runs] == [0] * 4
    logged = [
        [(line["event"], line["user_id"], line.keys() - JSON_MEMBERS) for line in lines_of(run.stderr)] for run in runs
    ]
    assert logged == [
        [(event, user_id, {"event", "user_id"})]
        for event in ("registered", "password_reset", "account_deactivated", "account_activated")
    ]
    assert not [run for run in runs if A_PASSWORD in run.stderr or "example.com" in run.stderr]


@pytest.mark.parametrize("format_", ["json", "text"])
def test_a_server_logs_the_client_that_a_proxy_forwards(database_url: str, start: Start, format_: str) -> None:
    port = free_port()
    server = start("serve", port=port, DATABASE_URL=database_url, JWT_SECRET=SECRET, LOG_FORMAT=format_)
    answer = httpx.post(
        f"http://127.0.0.1:{port}/auth/login",
        json={"email": "nobody@example.com", "password": WRONG},
        headers={"X-Forwarded-For": "203.0.113.9"},
    )

    log = stop(server)
    request_id = answer.headers["x-request-id"]
    assert UUID(request_id)
    if format_ == "json":
        (line,) = lines_of(log)
        assert line["message"] == f"sign_in_refused client=203.0.113.9 request_id={request_id}"
        assert (line["event"], line["client"], line["request_id"]) == ("sign_in_refused", "203.0.113.9", request_id)
    else:
        words = f"INFO contacts_api.security: sign_in_refused client=203.0.113.9 request_id={request_id}\n"
        assert log.count(words) == 1
    assert WRONG not in log
    assert "nobody" not in log
