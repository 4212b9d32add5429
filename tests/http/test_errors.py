import logging
from collections.abc import Callable
from uuid import UUID

import asyncpg
import pytest
from fastapi import FastAPI

from contacts_api.app import create_app
from contacts_api.database.errors import problem_of_database_error
from contacts_api.problems import DatabaseUnavailable, InternalError, Unauthorized
from contacts_api.settings import Settings
from tests.client import A_CONTACT, A_PASSWORD, Client
from tests.conftest import Execute, client_of

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/contacts", "GET, HEAD, POST"),
        ("POST", f"/contacts/{UUID(int=0)}", "GET, HEAD, PUT, PATCH, DELETE"),
        ("PUT", "/contacts/birthdays", "GET, HEAD"),
        ("GET", "/auth/login", "POST"),
        ("POST", "/auth/sessions", "GET, HEAD, DELETE"),
        ("OPTIONS", "/users/me", "GET, HEAD, PATCH"),
        ("TRACE", "/health/live", "GET, HEAD"),
        ("DELETE", "/docs", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
    ],
)
async def test_an_unsupported_method_is_a_405_with_an_allow_header(
    ada: Client, method: str, path: str, allow: str
) -> None:
    response = await ada.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/nothing", "/contacts/", "/auth/login/", "/docs/", "/assets/nothing.js", "/CONTACTS"]
)
async def test_an_unknown_path_is_a_404(ada: Client, path: str) -> None:
    response = await ada.get(path)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_no_problem_and_no_log_line_repeats_a_secret(ada: Client, caplog: pytest.LogCaptureFixture) -> None:
    canary = "canary-c0ffee"
    with caplog.at_level(logging.DEBUG):
        answers = [
            await ada.post("/auth/login", json={"email": "ada@example.com", "password": canary}),
            await ada.post("/auth/login", json={"email": "ada@example.com", "password": [canary]}),
            await ada.post("/auth/register", json={"email": canary, "password": canary[:7]}),
            await ada.post("/auth/register", json={"email": "a@example.com", "password": {"x": canary}}),
            await ada.post("/auth/refresh", json={"refresh_token": canary}),
            await ada.post("/auth/refresh", json=canary),
            await ada.post("/auth/token", data={"grant_type": canary, "password": canary}),
            await ada.patch("/users/me", json={"current_password": canary, "password": "short"}),
            await ada.patch("/users/me", json={"current_password": canary, "password": "not so short"}),
            await ada.get("/users/me", headers={"Authorization": f"Bearer {canary}"}),
            await ada.get("/contacts", params={"limit": canary, "sort": canary, "cursor": canary}),
            await ada.post("/contacts", json={**A_CONTACT, "email": canary, "date_of_birth": canary}),
        ]

    assert {answer.status_code for answer in answers} == {401, 403, 422}
    assert not any(canary in answer.text for answer in answers)
    assert not any(
        canary in record.getMessage() for record in caplog.records if record.name[:4] not in ("http", "hpac")
    )


async def test_without_a_database_only_requests_that_need_it_are_a_503(
    make_settings: Callable[..., Settings], ada: Client
) -> None:
    app = create_app(make_settings(database_url="postgresql://nobody@127.0.0.1:1/nowhere"))

    async with app.router.lifespan_context(app), client_of(app) as client:
        client.use(ada.tokens)
        live, ready = await client.get("/health/live"), await client.get("/health/ready")
        listed = await client.get("/contacts")
        forged = await client.get("/contacts", headers={"Authorization": "Bearer x"})
        login = await client.post("/auth/login", json={"email": ada.email, "password": A_PASSWORD})
        unreadable = await client.post("/contacts", content=b"{", headers=JSON)
        form = {"grant_type": "password", "username": ada.email, "password": A_PASSWORD}
        issued = await client.post("/auth/token", data=form)

    assert issued.json()["error"] == "temporarily_unavailable"
    assert [live.status_code, forged.status_code, unreadable.status_code] == [200, 401, 422]
    for response in ready, listed, login, issued:
        assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
        assert int(response.headers["retry-after"]) > 0


async def test_an_internal_error_is_a_500_without_details(
    app: FastAPI, ada: Client, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    execute("ALTER TABLE contact RENAME COLUMN additional_info TO notes")
    try:
        response = await ada.get("/contacts")
    finally:
        execute("ALTER TABLE contact RENAME COLUMN notes TO additional_info")

    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "additional_info" not in response.text
    assert response.headers["x-request-id"] in caplog.text


async def test_only_a_violated_owner_foreign_key_is_a_401(
    app: FastAPI, ada: Client, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    execute("CREATE TABLE shelf (name text PRIMARY KEY)")
    execute("ALTER TABLE contact ADD CONSTRAINT fk_contact_shelf FOREIGN KEY (first_name) REFERENCES shelf NOT VALID")
    try:
        another = await ada.post("/contacts", json=A_CONTACT)
    finally:
        execute("ALTER TABLE contact DROP CONSTRAINT fk_contact_shelf; DROP TABLE shelf")
    execute('DELETE FROM "user"')
    owners = await ada.post("/contacts", json=A_CONTACT)

    assert (another.status_code, another.json()["code"]) == (500, "internal_error")
    assert "fk_contact_shelf" in caplog.text
    assert owners.status_code == 401


@pytest.mark.parametrize(
    ("name", "table", "problem"),
    [
        ("fk_contact_owner_id", "contact", Unauthorized),
        ("fk_contact_owner_id_102008", "contact_102008", Unauthorized),
        ("fk_auth_session_user_id_102016", "auth_session_102016", Unauthorized),
        ("fk_contact_shelf_102008", "contact_102008", InternalError),
    ],
)
def test_a_violated_owner_foreign_key_is_recognized_in_a_citus_shard(
    name: str, table: str, problem: type[Exception]
) -> None:
    error = asyncpg.ForeignKeyViolationError("violates")
    error.constraint_name, error.table_name = name, table

    assert isinstance(problem_of_database_error(error), problem)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("failure on connection marked as essential: 10.0.0.2:5432", DatabaseUnavailable),
        ("cache lookup failed for type 7", InternalError),
    ],
)
def test_a_lost_citus_node_is_a_503(message: str, problem: type[Exception]) -> None:
    assert isinstance(problem_of_database_error(asyncpg.InternalServerError(message)), problem)
