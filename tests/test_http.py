import logging
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI

from contacts_api.app import create_app
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
async def test_a_method_that_is_not_taken_is_a_405_that_says_which_are(
    ada: Client, method: str, path: str, allow: str
) -> None:
    response = await ada.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/nothing", "/contacts/", "/auth/login/", "/docs/", "/assets/nothing.js", "/CONTACTS"]
)
async def test_what_is_nowhere_is_a_404(ada: Client, path: str) -> None:
    response = await ada.get(path)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["/contacts", "/health/live", "/docs", "/openapi.json", "/assets/docs.js", "/contacts?limit=0"]
)
async def test_head_is_get_without_the_body(ada: Client, path: str) -> None:
    got, headed = await ada.get(path), await ada.head(path)

    ignored = {"x-request-id", "date"}
    assert headed.status_code == got.status_code
    assert headed.content == b""
    assert {k: v for k, v in headed.headers.items() if k not in ignored} == {
        k: v for k, v in got.headers.items() if k not in ignored
    }


UNREADABLE = {
    "syntax": b'{"first_name": ',
    "bad UTF-8": b'{"first_name": "\xff"}',
    "UTF-16": '{"first_name": "x"}'.encode("utf-16"),
    "depth": b"[" * 60_000,
    "digits": b'{"first_name": ' + b"9" * 5_000 + b"}",
    "NaN": b'{"first_name": NaN}',
    "Infinity": b'{"first_name": -Infinity}',
    "lone surrogate": b'{"first_name": "\\ud800"}',
    "two values": b"{} {}",
    "blank": b"  ",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_json_that_cannot_be_read_is_a_422_and_comes_before_the_401(
    ada: Client, client: Client, body: bytes
) -> None:
    for caller in ada, client:
        response = await caller.post("/contacts", content=body, headers=JSON)

        assert (response.status_code, response.json()["code"]) == (422, "invalid_json")
        assert response.json()["errors"][0]["loc"] == ["body"]


async def test_a_number_past_all_bounds_is_no_text(ada: Client) -> None:
    response = await ada.post("/contacts", content=b'{"first_name": 1e400}', headers=JSON)

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", "first_name"]


async def test_of_thousands_of_errors_the_first_hundred_are_named(ada: Client) -> None:
    response = await ada.post("/contacts", json={f"unknown_{n}": 1 for n in range(3000)})

    assert (response.status_code, len(response.json()["errors"])) == (422, 100)


async def test_no_body_where_one_is_needed_is_a_422(ada: Client) -> None:
    for headers in {}, JSON:
        response = await ada.post("/contacts", headers=headers)

        assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["body"])


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/vnd.api+json", "multipart/form-data", ""],
)
async def test_a_body_of_another_type_is_a_415_that_says_which_to_send(ada: Client, media_type: str) -> None:
    response = await ada.post("/contacts", content=b"{}", headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["detail"]


async def test_a_merge_patch_is_for_patch_alone(ada: Client) -> None:
    response = await ada.post("/contacts", json=A_CONTACT, headers={"Content-Type": "application/merge-patch+json"})

    assert response.status_code == 415


@pytest.mark.parametrize("path", ["/contacts", "/auth/login", "/auth/token"])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_over_64_kib_is_a_413_before_all_else(client: Client, path: str, is_chunked: bool) -> None:
    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 32_768

    media_type = "application/x-www-form-urlencoded" if path == "/auth/token" else "application/json"
    content = chunks() if is_chunked else b"x" * (64 * 1024 + 1)

    response = await client.post(path, content=content, headers={"Content-Type": media_type})

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_a_body_of_64_kib_is_read(ada: Client) -> None:
    body = b'{"first_name": "' + b"x" * (64 * 1024 - 18) + b'"}'

    response = await ada.post("/contacts", content=body, headers=JSON)

    assert len(body) == 64 * 1024
    assert response.status_code == 422


@pytest.mark.parametrize(
    ("who", "contact_id", "query", "body", "status"),
    [
        ("nobody", "{own}", "?x=1", {"x": 1}, 401),
        ("ada", "{none}", "?x=1", {"x": 1}, 404),
        ("ada", "{own}", "?x=1", {}, 422),
        ("ada", "{own}", "", {"x": 1}, 422),
        ("ada", "{own}", "", {}, 200),
    ],
)
async def test_the_order_of_answers(
    ada: Client, client: Client, who: str, contact_id: str, query: str, body: dict[str, int], status: int
) -> None:
    contact = await ada.create_contact()
    path = "/contacts/" + contact_id.format(own=contact["id"], none=uuid4()) + query

    response = await (ada if who == "ada" else client).patch(path, json=body)

    assert response.status_code == status


@pytest.mark.parametrize("query", ["q=%FF", "q=%ED%A0%80", "%C3=1", "q=a%C0%80"])
async def test_a_query_string_that_is_not_utf_8_is_a_422(ada: Client, query: str) -> None:
    response = await ada.get(f"/contacts?{query}")

    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert [error["loc"] for error in response.json()["errors"]] == [["query"]]


@pytest.mark.parametrize(
    "path", ["/users/me", "/auth/sessions", "/health/live", "/health/ready", "/contacts/birthdays"]
)
async def test_an_unknown_query_parameter_is_named(ada: Client, path: str) -> None:
    response = await ada.get(f"{path}?verbose=1")

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["query", "verbose"])


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/assets/docs.js"])
async def test_the_pages_take_any_query(client: Client, path: str) -> None:
    assert (await client.get(f"{path}?verbose=1")).status_code in (200, 307)


async def test_the_start_page_is_the_docs(client: Client) -> None:
    response = await client.get("/")

    assert (response.status_code, response.headers["location"]) == (307, "/docs")


@pytest.mark.parametrize(
    ("sent", "is_kept"), [("abc-123_X.y", True), ("x" * 65, False), ("a b", False), ("a\tb", False)]
)
async def test_every_answer_carries_a_request_id_and_so_does_its_log_line(
    client: Client, caplog: pytest.LogCaptureFixture, sent: str, is_kept: bool
) -> None:
    with caplog.at_level(logging.INFO, "contacts_api.access"):
        response = await client.get("/nothing?q=secret", headers={"X-Request-ID": sent})

    request_id = response.headers["x-request-id"]
    assert (request_id == sent) == is_kept
    (line,) = [record.getMessage() for record in caplog.records if record.name == "contacts_api.access"]
    assert re.fullmatch(rf"GET /nothing 404 [0-9.]+ms {re.escape(request_id)}", line)


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


async def test_the_root_path_is_in_front_of_every_link(
    make_settings: Callable[..., Settings], execute: Execute
) -> None:
    app = create_app(make_settings(root_path="/api"))

    async with app.router.lifespan_context(app), client_of(app) as client:
        await client.sign_up("ada@example.com")
        created = await client.post("/contacts", json=A_CONTACT)
        await client.create_contact()
        listed = await client.get("/contacts?limit=1")
        start = await client.get("/")
        unstripped = await client.get("/api/contacts")

    assert created.headers["location"].startswith("/api/contacts/")
    assert listed.headers["link"].startswith("</api/contacts?limit=1&cursor=")
    assert start.headers["location"] == "/api/docs"
    assert unstripped.status_code == 200
    assert app.openapi()["servers"][0]["url"] == "/api"


async def test_listed_origins_may_call_from_a_browser(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(cors_origins=["https://app.example.com"]))

    async with app.router.lifespan_context(app), client_of(app) as client:
        ours = await client.get("/contacts", headers={"Origin": "https://app.example.com"})
        others = await client.get("/contacts", headers={"Origin": "https://evil.example.com"})
        preflight = {
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,if-match",
        }
        asked = await client.options("/contacts", headers={"Origin": "https://app.example.com", **preflight})
        refused = await client.options("/contacts", headers={"Origin": "https://evil.example.com", **preflight})

    assert ours.headers["access-control-allow-origin"] == "https://app.example.com"
    for header in ("ETag", "Link", "Location", "Retry-After"):
        assert header in ours.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in others.headers
    assert asked.status_code == 200
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")


async def test_no_origin_may_by_default(client: Client) -> None:
    response = await client.get("/contacts", headers={"Origin": "https://app.example.com"})

    assert "access-control-allow-origin" not in response.headers


async def test_without_a_database_the_answer_is_503_but_for_what_needs_none(
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


async def test_ready_means_that_the_schema_is_current(client: Client, execute: Execute) -> None:
    before = await client.get("/health/ready")
    ((revision,),) = execute("SELECT version_num FROM alembic_version")
    execute("UPDATE alembic_version SET version_num = 'older'")
    after = await client.get("/health/ready")
    execute("UPDATE alembic_version SET version_num = %s", revision)

    assert (before.status_code, before.json()) == (200, {"status": "ok"})
    assert (after.status_code, after.json()["code"]) == (503, "schema_outdated")
    assert "retry-after" in after.headers


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(
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


async def test_a_foreign_key_that_fails_is_a_401_for_the_owners_own_only(
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
